#!/usr/bin/env bash
# Runs a fetalclip command on all hosts of a Cloud TPU slice: asks for the slice, waits for it,
# installs this checkout there, runs the command and shows what it prints. A slice that is preempted
# is asked for again, and the command goes on from its checkpoint.
#   bash launch/tpu_vm.sh --name NAME --zone ZONE --topology v5e:4x4 [options] -- \
#       fetalclip train --config FILE --workdir gs://BUCKET/RUN
# Interrupted, it leaves slice and command as they are; the same command goes on watching.
#
#   --name NAME              of the slice
#   --zone ZONE              where, such as us-west4-a
#   --topology TOPOLOGY      by the names of `fetalclip plan`, such as v5e:4x4
#   --project PROJECT        (default: gcloud's)
#   --spot                   cheaper, and may be preempted
#   --reserved               from a reservation
#   --runtime-version NAME   software of the hosts (default: by generation)
#   --create OPTION          any other option of `gcloud compute tpus queued-resources create`, as
#                            --create=--network=NAME; may be repeated
#   --setup COMMAND          run on every host before the installation, to mount a disk for example
#   --restarts N             how often a command that failed is started again (default: 5);
#                            preemptions are no failures
#   --poll-seconds N         between looks at the state of the slice (default: 30)
#   --delete                 deletes the slice when the command has ended
#   --dry-run                prints what would be run, for a shell, and runs nothing
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
# shellcheck source=launch/options.sh
source "$here/options.sh"
# shellcheck source=launch/topologies.sh
source "$here/topologies.sh"

name='' zone='' topology='' project='' spot='' reserved='' runtime_version='' create=() setup=''
restarts=5 poll_seconds=30 delete='' dry_run=''
parse "name zone topology project runtime-version create setup restarts poll-seconds" \
  "spot reserved delete dry-run" "$@"

check() {
  [ -n "$name" ] || fail "--name is missing"
  [ -n "$zone" ] || fail "--zone is missing, such as us-west4-a"
  [ -n "$topology" ] || fail "--topology is missing, such as v5e:4x4"
  [[ "$name" =~ ^[a-z]([a-z0-9-]*[a-z0-9])?$ && ${#name} -le 60 ]] ||
    fail "--name $name: use at most 60 lower-case letters, digits and '-', and begin with a letter"
  [ -z "$spot" ] || [ -z "$reserved" ] || fail "--spot and --reserved exclude each other"
  whole_number --restarts "$restarts" 0
  whole_number --poll-seconds "$poll_seconds" 1
  check_workdir "${command[@]}"
  set_slice "$topology"
}

# --- The commands, each as an array: what is run is what a dry run prints. ---

set_commands() {
  local place=("--zone=$zone" ${project:+"--project=$project"})
  local queue=(gcloud compute tpus queued-resources) vm=(gcloud compute tpus tpu-vm)
  ask=("${queue[@]}" create "$name" "--node-id=$name" "${place[@]}"
    "--accelerator-type=$accelerator_type" "--runtime-version=${runtime_version:-$runtime}"
    ${spot:+--spot} ${reserved:+--reserved} ${create[@]+"${create[@]}"})
  state=("${queue[@]}" describe "$name" "${place[@]}" '--format=value(state.state)')
  node_state=("${vm[@]}" describe "$name" "${place[@]}" '--format=value(state,acceleratorType)')
  give_back=("${queue[@]}" delete "$name" "${place[@]}" --force --quiet)
  make_folder=("${vm[@]}" ssh "$name" "${place[@]}" --worker=all '--command=mkdir -p fetalclip')
  # No more than what is installed: neither runs nor data.
  pack=(tar -czf "$sent/sent.tar.gz" -C "$here/.." fetalclip_jax configs launch setup.py
    pyproject.toml README.md LICENSE)
  send=("${vm[@]}" scp "$sent/sent.tar.gz" "$sent/command.sh" "$sent/setup.sh"
    "$here/tpu_vm_job.sh" "$name:fetalclip/" "${place[@]}" --worker=all)
  run=("${vm[@]}" ssh "$name" "${place[@]}" --worker=all
    "--command=bash fetalclip/tpu_vm_job.sh $attempt")
}

show() {
  echo "# $topology: $chips chips on $hosts host(s)"
  quoted "${ask[@]}"
  echo "# until this says ACTIVE:"
  quoted "${state[@]}"
  echo "mkdir -p $sent"
  printf "cat >%s/command.sh <<'END'\n%s\nEND\n" "$sent" "$(quoted "${command[@]}")"
  printf "cat >%s/setup.sh <<'END'\n%s\nEND\n" "$sent" "$setup"
  quoted "${pack[@]}"
  quoted "${make_folder[@]}"
  quoted "${send[@]}"
  quoted "${run[@]}"
  echo "# when the slice was preempted (SUSPENDED, or its node PREEMPTED), before all of it again:"
  echo "#   $(quoted "${give_back[@]}")"
  [ -z "$delete" ] || quoted "${give_back[@]}"
}

say() { echo "tpu_vm.sh: $1" >&2; }

# Sets `now`: READY, GONE (it was preempted), ABSENT, FAILED, or WAIT for what changes by itself.
look() {
  local found tries=0 node kind
  until found="$("${state[@]}" 2>"$sent/error")"; do
    if grep -q NOT_FOUND "$sent/error"; then
      now=ABSENT
      return
    fi
    tries=$((tries + 1))
    # What never worked is not tried again.
    if [ -z "$now" ] || [ "$tries" -eq 5 ]; then fail "$(tr '\n' ' ' <"$sent/error")"; fi
    sleep "$poll_seconds"
  done
  case "$found" in
    ACTIVE) ;;
    SUSPENDED) found=GONE ;;
    FAILED) ;;
    *) found="WAIT ($found)" ;;
  esac
  if [ "$found" = ACTIVE ]; then
    read -r node kind <<<"$("${node_state[@]}" 2>/dev/null || echo unknown "$accelerator_type")"
    [ "$kind" = "$accelerator_type" ] ||
      leave "$name is a slice of $kind, and $topology is $accelerator_type; choose another --name"
    case "$node" in
      READY) found=READY ;;
      PREEMPTED | TERMINATED | STOPPED) found=GONE ;;
      *) found="WAIT (node)" ;;
    esac
  fi
  now="$found"
}

new_attempt() {
  attempt="$(date +%s)-$$-$RANDOM"
  set_commands
}

end() { # STATUS: the command has ended
  if [ -n "$delete" ]; then
    "${give_back[@]}" || say "the slice could not be deleted; it costs until: $(quoted "${give_back[@]}")"
  else
    say "the slice is there, and costs, until: $(quoted "${give_back[@]}")"
  fi
  exit "$1"
}

give_up() {
  say "$1"
  end 1
}

leave() { # the command may go on, or never began
  say "$1; the slice, where there is one, costs until: $(quoted "${give_back[@]}")"
  exit 1
}

# Sets `status`: of the command on all hosts (see tpu_vm_job.sh), or of gcloud.
run_there() {
  status=0
  # The connection of gcloud tries ten times by itself.
  "${make_folder[@]}" </dev/null && "${send[@]}" </dev/null || status=1
  [ "$status" -ne 0 ] || "${run[@]}" </dev/null || status=$?
}

watch() {
  local failures=0 lost=0 said=''
  now=
  while :; do
    look
    [ "$now" = "$said" ] || say "slice $name: $now"
    said="$now"
    case "$now" in
      ABSENT)
        "${ask[@]}" || leave "the slice was refused"
        continue
        ;;
      GONE)
        say "preempted; asking for another one"
        "${give_back[@]}" || say "the old one could not be deleted; trying again"
        new_attempt
        ;;
      FAILED) leave "the request failed; why: $(quoted "${state[@]::${#state[@]}-1}")" ;;
      READY)
        run_there
        case "$status" in
          0)
            say "finished"
            end 0
            ;;
          64)
            say "not started again: status 2 says that something it was given is wrong"
            end 2
            ;;
          65) give_up "the installation failed" ;;
          66) leave "another command runs there; wait for it, or choose another --name" ;;
          75)
            say "told to end; it saved, and goes on"
            lost=0
            new_attempt
            ;;
          70)
            failures=$((failures + 1)) lost=0
            [ "$failures" -le "$restarts" ] || give_up "it failed $failures times"
            say "it failed; starting it again ($failures of at most $restarts times)"
            new_attempt
            ;;
          *)
            lost=$((lost + 1))
            [ "$lost" -lt 10 ] || leave "no connection to the slice, ten times in a row"
            say "the connection ended (status $status); what runs there goes on"
            ;;
        esac
        ;;
    esac
    sleep "$poll_seconds"
  done
}

check
attempt=1
if [ -n "$dry_run" ]; then
  sent=/tmp/fetalclip-sent
  set_commands
  show
  exit 0
fi
need gcloud "see https://cloud.google.com/sdk/docs/install"
sent="$(mktemp -d)"
trap 'rm -rf "$sent"' EXIT
# shellcheck disable=SC2016
trap 'say "watching ends; slice and command go on. The same command watches again; to end both: $(quoted "${give_back[@]}")"; exit 130' INT TERM HUP
new_attempt
quoted "${command[@]}" >"$sent/command.sh"
echo "$setup" >"$sent/setup.sh"
"${pack[@]}"
watch
