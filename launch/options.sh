# shellcheck shell=bash
# Sourced by slurm.sh, tpu_vm.sh and gke.sh: options, and errors of one line.

fail() {
  echo "error: $1" >&2
  exit 2
}

# Of the words after the two lists: sets the variable `name_of` to VALUE for --name-of VALUE or
# --name-of=VALUE, adds to the array of that name where it is one, sets it to 1 for a flag, and puts
# what follows "--" into `command`. --help prints the comment that the script begins with.
#   parse "names that take a value" "flags" "$@"
parse() {
  # Names that are no options: the variables of those are set from here.
  local valued=" $1 " flags=" $2 " option given variable
  shift 2
  command=()
  while [ $# -gt 0 ]; do
    case "$1" in
      --)
        shift
        command=("$@")
        break
        ;;
      -h | --help)
        awk 'NR > 1 { if (!/^#/) exit; sub(/^# ?/, ""); print }' "$0"
        exit 0
        ;;
      --*) option="${1%%=*}" option="${option#--}" ;;
      *) fail "unexpected '$1': options come first, then -- and the command (--help lists them)" ;;
    esac
    variable="${option//-/_}"
    if [[ "$flags" == *" $option "* ]]; then
      [ "$1" = "--$option" ] || fail "--$option takes no value (given: ${1#*=})"
      printf -v "$variable" 1
      shift
      continue
    fi
    [[ "$valued" == *" $option "* ]] || fail "unknown option --$option; --help lists what there is"
    if [[ "$1" == *=* ]]; then
      given="${1#*=}"
      shift
    else
      if [ $# -lt 2 ] || [ "$2" = -- ]; then fail "--$option needs a value"; fi
      given="$2"
      shift 2
    fi
    [ -n "$given" ] || fail "--$option needs a value"
    if [[ "$(declare -p "$variable" 2>/dev/null)" == "declare -a"* ]]; then
      eval "$variable+=(\"\$given\")" # arrays by name need bash 4.3; macOS has 3.2
    else
      printf -v "$variable" %s "$given"
    fi
  done
  [ ${#command[@]} -gt 0 ] || fail "no command: give it after --, such as: -- fetalclip train ..."
  check_command "${command[@]}"
}

# What is started again when it was stopped must know where it goes on.
check_command() { # WORDS of the command
  [ "${1##*/}" = fetalclip ] ||
    fail "'$1' is not fetalclip; the command is one of fetalclip, such as: -- fetalclip train ..."
  case "${2-}" in
    train | sweep)
      [ -n "$(value_of --workdir "$@")" ] || fail "fetalclip $2 needs --workdir, the folder it goes on in"
      ;;
  esac
}

whole_number() { # OPTION VALUE LEAST
  [[ "$2" =~ ^[0-9]{1,9}$ ]] && [ "$((10#$2))" -ge "$3" ] && return
  fail "$1 $2 is not a whole number from $3"
}

need() { # PROGRAM WHERE-IT-COMES-FROM
  command -v "$1" >/dev/null || fail "$1 is not installed here: $2 (--dry-run needs no $1)"
}

quoted() { # WORDS: as a shell would read them
  local line
  printf -v line '%q ' "$@"
  echo "${line% }"
}

# The value of an option in a command, empty where it has none: of "--workdir W" and "--workdir=W".
value_of() { # OPTION WORDS
  local option="$1" before=
  shift
  for word in "$@"; do
    if [ "$before" = "$option" ]; then
      echo "$word"
      return
    fi
    case "$word" in
      "$option"=*)
        echo "${word#*=}"
        return
        ;;
    esac
    before="$word"
  done
}
