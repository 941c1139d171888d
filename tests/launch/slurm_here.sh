#!/usr/bin/env bash
# A Slurm cluster of two nodes of one core on this machine, in a folder, without system services:
# for trying what launch/slurm.sh submits. Needs the Debian package slurm-wlm.
#   bash tests/launch/slurm_here.sh start FOLDER     (an empty one; prints what to export)
#   bash tests/launch/slurm_here.sh stop FOLDER
# Anyone who reaches its ports may run programs as you (AuthType=auth/none): stop it when done.
set -euo pipefail

usage() {
  echo "usage: bash tests/launch/slurm_here.sh start|stop FOLDER" >&2
  exit 2
}

free_ports() { # COUNT: as many ports in a row as given, the first of them
  python3 - "$1" <<'PYTHON'
import random, socket, sys
while True:
    first = random.randrange(20000, 30000)
    held = []
    try:
        for port in range(first, first + int(sys.argv[1])):
            held.append(socket.create_server(("127.0.0.1", port)))
    except OSError:
        continue
    finally:
        for server in held:
            server.close()
    print(first)
    break
PYTHON
}

write_configuration() {
  local port
  port="$(free_ports 3)"
  # The nodes are called by addresses of this machine, for processes of a job find each other by
  # the names of their nodes.
  cat >"$folder/slurm.conf" <<CONF
ClusterName=here
SlurmctldHost=$(hostname -s)(127.0.0.1)
SlurmctldPort=$port
SlurmUser=$(id -un)
SlurmdUser=$(id -un)
AuthType=auth/none
CredType=cred/none
StateSaveLocation=$folder/state
SlurmctldPidFile=$folder/slurmctld.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdPidFile=$folder/slurmd-%n.pid
SlurmdLogFile=$folder/slurmd-%n.log
SlurmdSpoolDir=$folder/spool-%n
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=2,bf_interval=2
SlurmdParameters=config_overrides
ReturnToService=2
KillWait=120
NodeName=127.0.0.1 NodeHostname=$(hostname -s) NodeAddr=127.0.0.1 Port=$((port + 1)) CPUs=1
NodeName=127.0.0.2 NodeHostname=$(hostname -s) NodeAddr=127.0.0.2 Port=$((port + 2)) CPUs=1
PartitionName=all Nodes=127.0.0.[1-2] Default=YES MaxTime=INFINITE OverTimeLimit=0
CONF
}

start() {
  if [ -e "$folder/slurm.conf" ]; then
    echo "error: $folder has a cluster already; stop it, or give another folder" >&2
    exit 2
  fi
  for program in slurmctld slurmd sinfo; do
    if ! command -v "$program" >/dev/null; then
      echo "error: $program is not installed; on Debian: apt-get install slurm-wlm" >&2
      exit 2
    fi
  done
  mkdir -p "$folder/state"
  write_configuration
  export SLURM_CONF="$folder/slurm.conf"
  slurmctld
  for node in 127.0.0.1 127.0.0.2; do slurmd -N "$node"; done
  for _ in $(seq 60); do
    if [ "$(sinfo -h -o %T)" = idle ]; then
      echo "export SLURM_CONF=$SLURM_CONF"
      return
    fi
    sleep 0.5
  done
  echo "error: the nodes did not come up within 30 s; see $folder/slurmctld.log" >&2
  stop
  exit 1
}

stop() {
  local pid file
  for file in "$folder"/slurmd-*.pid "$folder/slurmctld.pid"; do
    [ -e "$file" ] || continue
    pid="$(cat "$file")"
    kill "$pid" 2>/dev/null || true
    for _ in $(seq 40); do kill -0 "$pid" 2>/dev/null || break; sleep 0.25; done
    kill -KILL "$pid" 2>/dev/null || true
  done
  rm -f "$folder/slurm.conf"
}

[ $# -eq 2 ] || usage
mkdir -p "$2"
folder="$(cd "$2" && pwd)"
case "$1" in
  start) start ;;
  stop) stop ;;
  *) usage ;;
esac
