#!/usr/bin/env bash
# Submits a fetalclip command to Slurm. The job comes back until the command has finished.
#   bash launch/slurm.sh [options] -- fetalclip train --config FILE --workdir RUN
#   bash launch/slurm.sh --array 0-17%4 -- fetalclip sweep --config FILE --workdir SWEEP
#
#   --nodes N            nodes, one process on each (default: 1)
#   --gpus-per-node N    GPUs of a node, all for its process (default: none asked for)
#   --cpus-per-task N    cores of a node
#   --time LIMIT         of Slurm, such as 4:00:00; when it is reached the job saves and queues again
#   --partition NAME     (default: the cluster's)
#   --account NAME       (default: yours)
#   --name NAME          of the job (default: fetalclip)
#   --array INDICES      one job for each point of a sweep, such as 0-17%4: four at a time
#   --save-seconds N     notice before the time limit, to save in (default: 300)
#   --restarts N         how often in a row a job may come back without progress (default: 5)
#   --logs FOLDER        for what jobs print, on a disk that all nodes share (default: slurm)
#   --sbatch OPTION      any other option of sbatch, as --sbatch=--exclusive; may be repeated
#   --dry-run            prints what would be run, for a shell, and runs nothing
#
# Programs are looked for in FETALCLIP_VENV (default: .venv beside launch/), then in PATH.
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
# shellcheck source=launch/options.sh
source "$here/options.sh"

nodes=1 gpus_per_node='' cpus_per_task='' time='' partition='' account='' name=fetalclip array=''
save_seconds=300 restarts=5 logs=slurm sbatch=() dry_run=''
parse "nodes gpus-per-node cpus-per-task time partition account name array save-seconds restarts \
logs sbatch" dry-run "$@"

check() {
  local own option
  local time_limit='^([0-9]+-)?[0-9]+(:[0-9]+){0,2}$|^(UNLIMITED|INFINITE)$'
  whole_number --nodes "$nodes" 1
  whole_number --save-seconds "$save_seconds" 1
  whole_number --restarts "$restarts" 0
  [ -z "$gpus_per_node" ] || whole_number --gpus-per-node "$gpus_per_node" 1
  [ -z "$cpus_per_task" ] || whole_number --cpus-per-task "$cpus_per_task" 1
  [[ "$name" =~ ^[A-Za-z0-9._-]+$ ]] || fail "--name $name: use letters, digits, '.', '_', '-'"
  [[ "$logs" != *[[:space:]%]* ]] || fail "--logs $logs: a name without spaces and %"
  for option in "$time" "$partition" "$account" ${sbatch[@]+"${sbatch[@]}"}; do
    [[ "$option" != *$'\n'* ]] || fail "a value has a line break: $option"
  done
  for option in ${sbatch[@]+"${sbatch[@]}"}; do
    [[ "$option" == -* ]] || fail "--sbatch $option is no option; write it as --sbatch=--exclusive"
    own="${option%%[= ]*}"
    case "$own" in
      --requeue | --no-requeue | --signal | --ntasks | --ntasks-per-node | --open-mode | --output)
        fail "--sbatch=$option: slurm.sh sets $own itself, for the job to come back"
        ;;
    esac
  done
  [[ -z "$time" || "$time" =~ $time_limit ]] ||
    fail "--time $time is no limit of Slurm; use MINUTES, HOURS:MINUTES:SECONDS or DAYS-HOURS"
  [ -n "$array" ] || return 0
  [[ "$array" =~ ^[0-9]+([,:-][0-9]+)*(%[0-9]+)?$ ]] ||
    fail "--array $array is not INDICES such as 0-17, 0-17%4 or 1,5,7"
  [[ " ${command[*]} " == *" sweep "* ]] ||
    fail "--array runs the points of a sweep; its command is: fetalclip sweep ..."
  [ -z "$(value_of --point "${command[@]}")" ] ||
    fail "--point is what --array gives each job; leave it out"
}

# What sbatch reads: what is asked for, what to run, and the part that never changes.
job() {
  local venv="${FETALCLIP_VENV:-$here/../.venv}" log="$logs/%x-%j.log"
  [ -z "$array" ] || log="$logs/%x-%A_%a.log"
  echo '#!/usr/bin/env bash'
  printf '#SBATCH %s\n' "--job-name=$name" "--nodes=$nodes" --ntasks-per-node=1 \
    ${gpus_per_node:+"--gpus-per-node=$gpus_per_node"} \
    ${cpus_per_task:+"--cpus-per-task=$cpus_per_task"} \
    ${time:+"--time=$time"} ${partition:+"--partition=$partition"} \
    ${account:+"--account=$account"} ${array:+"--array=$array"} \
    "--output=$log" --open-mode=append --requeue "--signal=B:TERM@$save_seconds" \
    ${sbatch[@]+"${sbatch[@]}"}
  if [ -d "$venv/bin" ]; then
    echo "export PATH=$(quoted "$(cd "$venv/bin" && pwd)"):\"\$PATH\""
  fi
  echo "restarts=$restarts"
  echo "counted=$(quoted "$logs/$name-")\"\${SLURM_ARRAY_JOB_ID:-\$SLURM_JOB_ID}\${SLURM_ARRAY_TASK_ID+_\$SLURM_ARRAY_TASK_ID}.restarts\""
  echo "workdir=$(quoted "$(value_of --workdir "${command[@]}")")"
  # shellcheck disable=SC2016 # the job's
  echo "command=($(quoted "${command[@]}")${array:+ --point \"\$SLURM_ARRAY_TASK_ID\"})"
  cat "$here/slurm_job.sh"
}

check
script="$(job)"
if [ -n "$dry_run" ]; then
  printf "mkdir -p %q\nsbatch <<'END_OF_JOB'\n%s\nEND_OF_JOB\n" "$logs" "$script"
  exit 0
fi
need sbatch "run this on a login node of the cluster"
mkdir -p "$logs"
sbatch <<<"$script"
