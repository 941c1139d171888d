
# shellcheck shell=bash
# The part of a job that slurm.sh puts behind what it was asked for: runs the command on all nodes,
# and queues the job again until the command has finished.
: "${command:?}" "${counted:?}" "${restarts:?}" "${workdir?}"
# With it a command that was told to end, and saved, differs from one that has finished.
export FETALCLIP_STOPPED_STATUS=75 PYTHONUNBUFFERED=1

say() { echo "slurm.sh: $1"; }

# What is kept of the run so far: the newest checkpoint of a run, or of all points of a sweep.
saved() {
  [ -n "$workdir" ] || return 0
  python - "$workdir" <<'PYTHON' || say "what $workdir holds cannot be seen; this counts as no progress" >&2
import sys
from fetalclip_jax.run import Run

run = Run(sys.argv[1])
print([Run(folder).steps()[-1:] for folder in (run.workdir, *sorted(run.workdir.glob("points/*")))])
PYTHON
}

told=
# shellcheck disable=SC2317,SC2329 # a trap calls it
tell() { # to all processes of the job; they save and end
  told=1
  say "told to stop; the processes save and end"
  scancel --signal=TERM "$SLURM_JOB_ID"
}

# The state of a job that Slurm ends is COMPLETING, whatever ends it. One that is not at its end,
# and not preempted, was cancelled by its user, who does not want it back.
is_cancelled() {
  local now job
  now="$(date +%FT%T)" job="$(scontrol show job -o "$SLURM_JOB_ID")"
  [[ "$job" != *JobState=RUNNING* && "$job" != *PreemptTime=2* && "$now" < "$ends" ]]
}

ends="$(scontrol show job -o "$SLURM_JOB_ID" | sed -E 's/.* EndTime=([^ ]+).*/\1/')"
before="$(saved)"
trap tell TERM
# One that fails is not to have the others killed: they end by themselves, and say why.
srun --kill-on-bad-exit=0 --wait=120 ${SLURM_CPUS_PER_TASK:+"--cpus-per-task=$SLURM_CPUS_PER_TASK"} \
  "${command[@]}" &
step=$!
# A signal interrupts `wait`.
while kill -0 "$step" 2>/dev/null; do wait "$step"; done
wait "$step"
status=$?
trap '' TERM

if [ "$status" -eq 0 ]; then
  rm -f "$counted"
  say "finished"
  exit 0
fi
if [ "$status" -eq 2 ] && [ -z "$told" ]; then
  say "not started again: status 2 says that something it was given is wrong"
  exit 2
fi
if is_cancelled; then
  say "cancelled; submit the same command, and it goes on"
  exit "$status"
fi
count=0
if [ "$(saved)" = "$before" ]; then
  if [ -r "$counted" ]; then read -r count <"$counted"; fi
  count=$((count + 1))
fi
if [ "$count" -gt "$restarts" ]; then
  say "status $status, and nothing new was saved in $count attempts; not started again"
  rm -f "$counted"
  exit "$status"
fi
echo "$count" >"$counted"
say "status $status; queued again (without progress: $count of at most $restarts times)"
if ! scontrol requeue "$SLURM_JOB_ID"; then
  say "the cluster does not let a job queue again; submit the same command, and it goes on"
  exit "$status"
fi
exit 0 # Slurm ends the script that was queued again
