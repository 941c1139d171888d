#!/usr/bin/env bash
# Runs on every host of a TPU slice, sent there by tpu_vm.sh: installs what was sent, runs the
# command so that it outlives the connection, and shows what it prints. Called again for the same
# ATTEMPT, or while the command runs, it goes on showing.
#   bash fetalclip/tpu_vm_job.sh ATTEMPT
# Exits with 0: finished, 75: told to end, and saved, 64: status 2, something given is wrong,
# 65: the installation failed, 66: another command runs here, 70: any other failure. Everything else
# is of the connection.
set -u
cd "$(dirname "${BASH_SOURCE[0]}")" || exit 65
attempt="$1"

# After a restart of the host its number may be of another program.
runs() { grep -qs 'running\.sh' "/proc/$(cat pid 2>/dev/null)/cmdline"; }

install() {
  rm -rf code && mkdir code && tar -xzf sent.tar.gz -C code || return
  # The images of TPU VMs have older versions of Python; uv brings its own.
  PIP_BREAK_SYSTEM_PACKAGES=1 python3 -m pip install --quiet --user --upgrade uv || return
  local uv="$HOME/.local/bin/uv"
  [ -x venv/bin/python ] || "$uv" venv --quiet --python 3.12 venv || return
  "$uv" pip install --quiet --python venv/bin/python -e 'code[gcs]' 'jax[tpu]'
}

begin() {
  rm -f status
  cp command.sh running.sh
  : >log # what shows it may be quicker than what writes it
  echo "$attempt" >attempt
  # shellcheck disable=SC2016 # of the inner shell
  FETALCLIP_STOPPED_STATUS=75 PYTHONUNBUFFERED=1 PATH="$PWD/venv/bin:$PATH" \
    setsid nohup bash -c 'cd code && bash ../running.sh; echo "$?" >../status' \
    >log 2>&1 </dev/null &
  echo "$!" >pid
}

shown=+1 # all lines
if runs; then
  cmp -s command.sh running.sh || exit 66
  shown=20
elif [ "$(cat attempt 2>/dev/null)" != "$attempt" ]; then
  if ! { bash setup.sh && install; } >install.log 2>&1; then
    cat install.log >&2
    exit 65
  fi
  begin
fi
tail -n "$shown" --pid="$(cat pid)" -f log
case "$(cat status 2>/dev/null)" in
  0) exit 0 ;;
  75) exit 75 ;;
  2) exit 64 ;;
  *) exit 70 ;;
esac
