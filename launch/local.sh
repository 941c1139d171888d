#!/usr/bin/env bash
# Starts a command as several processes of one job on this machine, each with simulated devices:
# the same code as on several hosts, without them.
#   bash launch/local.sh PROCESSES DEVICES COMMAND...
#   bash launch/local.sh 2 4 fetalclip train --config configs/phantom_quickstart.py --workdir runs/two
# Output lines begin with the number of their process. SIGINT and SIGTERM are passed on; a second
# one kills. When a process fails the others are ended, and its status is returned.
#   FETALCLIP_GRACE_SECONDS=60   what processes are given to end after a signal or a failure
set -u -m # job control: every process leads a group of its own, which holds what it starts

if [ $# -lt 3 ] || ! [[ "$1" =~ ^[1-9][0-9]*$ && "$2" =~ ^[1-9][0-9]*$ ]]; then
  echo "usage: bash launch/local.sh PROCESSES DEVICES COMMAND..." >&2
  exit 2
fi
processes=$1 devices=$2
shift 2
grace="${FETALCLIP_GRACE_SECONDS:-60}"
venv="${FETALCLIP_VENV:-$(dirname "${BASH_SOURCE[0]}")/../.venv}"
[ -d "$venv/bin" ] && PATH="$(cd "$venv/bin" && pwd):$PATH"

export PATH PYTHONUNBUFFERED=1 JAX_PLATFORMS=cpu JAX_NUM_PROCESSES="$processes"
flag=--xla_force_host_platform_device_count
XLA_FLAGS="$(sed -E "s/$flag=[0-9]+//" <<<"${XLA_FLAGS:-}") $flag=$devices"
JAX_COORDINATOR_ADDRESS="127.0.0.1:$(python3 -c '
import socket
with socket.create_server(("127.0.0.1", 0)) as server:
    print(server.getsockname()[1])')" || exit 1
export XLA_FLAGS JAX_COORDINATOR_ADDRESS

pipes="$(mktemp -d)" || exit 1
running=() number=() printers=() status=0 signals=0 deadline=

send() { # SIGNAL, to all that still run and to what they started
  local pid
  for pid in ${running[@]+"${running[@]}"}; do kill "-$1" -- "-$pid" 2>/dev/null; done
}

# shellcheck disable=SC2317,SC2329 # traps call it
on_signal() {
  signals=$((signals + 1))
  if [ "$signals" -gt 1 ]; then send KILL; else send "$1"; fi
  [ -n "$deadline" ] || deadline=$((SECONDS + grace))
}

# shellcheck disable=SC2317,SC2329
finish() {
  send KILL
  rm -rf "$pipes"
}

trap finish EXIT
trap 'on_signal INT' INT
trap 'on_signal TERM' TERM HUP

for ((i = 0; i < processes; i++)); do
  mkfifo "$pipes/$i" || exit 1
  # Signals are for the command: the last words are printed whatever happens.
  (trap '' INT TERM HUP && exec sed -u -E "/\[Gloo\] Rank|connected peer ranks/d; s/^/[$i] /" <"$pipes/$i") &
  printers+=("$!")
  JAX_PROCESS_ID="$i" "$@" >"$pipes/$i" 2>&1 </dev/null &
  running+=("$!") number[$!]=$i
done

terminated=
while [ ${#running[@]} -gt 0 ]; do
  left=()
  for pid in "${running[@]}"; do
    if kill -0 "$pid" 2>/dev/null; then
      left+=("$pid")
      continue
    fi
    wait "$pid" 2>/dev/null
    code=$?
    kill -KILL -- "-$pid" 2>/dev/null # workers that outlived it
    if [ "$code" -ne 0 ]; then
      echo "[${number[pid]}] ended with status $code" >&2
      [ "$status" -ne 0 ] || status=$code
      # They find out by themselves; this is for those that cannot.
      [ -n "$deadline" ] || deadline=$((SECONDS + grace))
    fi
  done
  running=(${left[@]+"${left[@]}"})
  if [ -n "$deadline" ] && [ "$SECONDS" -ge "$deadline" ]; then
    if [ -z "$terminated" ]; then
      send TERM
      terminated=1 deadline=$((SECONDS + 5))
    else
      send KILL
    fi
  fi
  [ ${#running[@]} -eq 0 ] || sleep 0.2
done
wait "${printers[@]}" 2>/dev/null
exit "$status"
