"""What slurm.sh submits, and what a job does, with a scheduler that is played."""

import pathlib
import re
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
TRAIN = ["--", "fetalclip", "train", "--config", "c.py", "--workdir", "run"]
SWEEP = ["--", "fetalclip", "sweep", "--config", "s.py", "--workdir", "sweep"]

# Each line of $FAKES/steps is what a step does: the status, and what it saves before.
SRUN = """
read -r status saves <"$FAKES/steps"; sed -i 1d "$FAKES/steps"
[ -z "$saves" ] || mkdir -p "$saves"
if [ "$status" = waits ]; then
  echo $$ >"$FAKES/step"
  trap 'mkdir -p run/checkpoints/9; exit 75' TERM
  for ((i = 0; i < 600; i++)); do /bin/sleep 0.05; done
fi
exit "$status"
"""
SCONTROL = """
case "$1" in
  show) cat "$FAKES/job" ;;
  requeue) [ ! -e "$FAKES/refuses" ] || { echo "scontrol: not permitted" >&2; exit 1; } ;;
esac
"""


@pytest.fixture
def slurm(fakes):
    """Fakes, with a Slurm whose job 17 runs."""
    fakes.program("sbatch", 'cat >"$FAKES/script"; echo Submitted batch job 17')
    fakes.program("srun", SRUN)
    fakes.program("scontrol", SCONTROL)
    fakes.program("scancel", 'kill -TERM "$(cat "$FAKES/step")"')
    fakes.program("python", f'exec {sys.executable} "$@"')
    fakes.environment |= {"SLURM_JOB_ID": "17", "PYTHONPATH": str(ROOT)}
    fakes.write("job", "JobId=17 JobState=RUNNING TimeLimit=UNLIMITED EndTime=Unknown Deadline=N/A")
    return fakes


def run(slurm):
    """The job, as often as it asks for it."""
    outputs = []
    for _ in range(20):
        before = len(slurm.calls("scontrol requeue"))
        done = slurm.bash(slurm.folder / "script")
        assert done.stderr == ""
        outputs.append(done.stdout)
        if len(slurm.calls("scontrol requeue")) == before:
            return done.returncode, outputs
    raise AssertionError("it never ended")


def test_a_dry_run_prints_what_a_shell_would_submit_and_submits_nothing(slurm):
    options = ["--nodes=2", "--gpus-per-node", "8", "--time=4:00:00", "--sbatch=--exclusive"]
    shown = slurm.launch("slurm.sh", *options, "--dry-run", *TRAIN)
    assert shown.returncode == 0
    assert slurm.calls() == []
    assert {path.name for path in slurm.folder.iterdir()} == {"bin", "job"}
    assert slurm.launch("slurm.sh", *options, *TRAIN).stdout == "Submitted batch job 17\n"
    submitted = (slurm.folder / "script").read_text()
    slurm.bash(stdin=shown.stdout)
    assert slurm.calls() == ["sbatch", "sbatch"]
    assert (slurm.folder / "script").read_text() == submitted
    for wanted in (
        *("--nodes=2", "--ntasks-per-node=1", "--gpus-per-node=8", "--time=4:00:00", "--requeue"),
        *("--exclusive", "--signal=B:TERM@300", "--open-mode=append"),
    ):
        assert f"\n#SBATCH {wanted}\n" in submitted


@pytest.mark.parametrize("limit", ["90", "90:30", "4:00:00", "2-0", "2-12:30", "UNLIMITED"])
def test_every_way_to_write_a_time_limit_is_taken(slurm, limit):
    done = slurm.launch("slurm.sh", "--dry-run", "--time", limit, *TRAIN)
    assert f"\n#SBATCH --time={limit}\n" in done.stdout


def test_a_command_that_finishes_is_run_once(slurm):
    slurm.launch("slurm.sh", "--cpus-per-task=4", *TRAIN)
    slurm.write("steps", 0)
    slurm.environment["SLURM_CPUS_PER_TASK"] = "4"
    status, outputs = run(slurm)
    assert (status, outputs) == (0, ["slurm.sh: finished\n"])
    # Newer versions of srun do not take over the cores of a job by themselves.
    assert slurm.calls("srun") == [
        "srun --kill-on-bad-exit=0 --wait=120 --cpus-per-task=4 "
        "fetalclip train --config c.py --workdir run"
    ]


def test_one_that_was_stopped_or_killed_comes_back_until_it_has_finished(slurm):
    slurm.launch("slurm.sh", "--restarts=0", *TRAIN)
    slurm.write(
        "steps", "75 run/checkpoints/10", "137 run/checkpoints/20", "75 run/checkpoints/30", "0"
    )
    status, outputs = run(slurm)
    assert status == 0
    assert [re.findall(r"status (\d+); queued again", output) for output in outputs] == [
        *(["75"], ["137"], ["75"], [])
    ]
    assert slurm.calls("scontrol requeue") == ["scontrol requeue 17"] * 3


def test_without_progress_there_is_an_end_to_it(slurm):
    slurm.launch("slurm.sh", "--restarts=2", *TRAIN)
    slurm.write("steps", 1, 1, "75 run/checkpoints/10", 75, 1, 137, 0)
    status, outputs = run(slurm)
    assert status == 137
    # Twice, progress, and twice again; the third attempt is the last.
    assert len(outputs) == 6
    assert "status 137, and nothing new was saved in 3 attempts" in outputs[-1]
    assert not list((slurm.folder / "slurm").glob("*.restarts"))


def test_points_of_a_sweep_are_progress_too(slurm):
    slurm.launch("slurm.sh", "--restarts=0", *SWEEP)
    slurm.write("steps", "75 sweep/points/a/checkpoints/5", "75 sweep/points/b/checkpoints/5", 75)
    status, outputs = run(slurm)
    assert (status, len(outputs)) == (75, 3)


def test_what_was_given_wrongly_is_not_tried_again(slurm):
    slurm.launch("slurm.sh", *TRAIN)
    slurm.write("steps", 2)
    status, outputs = run(slurm)
    assert (status, len(outputs)) == (2, 1)
    assert "not started again: status 2 says that something it was given is wrong" in outputs[0]


def tell(slurm):
    """Runs the job's script until its step waits, and sends it what Slurm sends before the end."""
    return slurm.bash(
        "-c",
        'bash "$FAKES/script" & job=$!; until [ -s "$FAKES/step" ]; do /bin/sleep 0.05; done;'
        " kill -TERM $job; while kill -0 $job 2>/dev/null; do wait $job; done; wait $job",
    )


def test_before_the_time_limit_all_processes_are_told_to_save(slurm):
    slurm.launch("slurm.sh", *TRAIN)
    slurm.write("steps", "waits")
    done = tell(slurm)
    assert done.returncode == 0
    assert slurm.calls("scancel") == ["scancel --signal=TERM 17"]
    assert slurm.calls("scontrol requeue") == ["scontrol requeue 17"]
    assert "told to stop" in done.stdout
    assert "status 75; queued again (without progress: 0 of at most 5 times)" in done.stdout


@pytest.mark.parametrize(
    ("job", "comes_back"),
    [
        ("JobState=COMPLETING EndTime=2100-01-01T00:00:00", False),  # cancelled by its user
        ("JobState=COMPLETING PreemptTime=2026-11-26T10:00:00 EndTime=2100-01-01T00:00:00", True),
        ("JobState=COMPLETING PreemptTime=None EndTime=2026-01-01T00:00:00", True),  # time limit
    ],
)
def test_a_job_that_its_user_cancels_stays_away(slurm, job, comes_back):
    slurm.launch("slurm.sh", *TRAIN)
    slurm.write("steps", "waits")
    slurm.write("job", f"JobId=17 {job} Deadline=N/A")
    done = tell(slurm)
    assert bool(slurm.calls("scontrol requeue")) == comes_back
    assert ("slurm.sh: cancelled" in done.stdout) != comes_back
    assert done.returncode == (0 if comes_back else 75)


def test_where_jobs_may_not_queue_again_it_says_how_to_go_on(slurm):
    slurm.launch("slurm.sh", *TRAIN)
    slurm.write("steps", "75 run/checkpoints/1")
    slurm.write("refuses")
    done = slurm.bash(slurm.folder / "script")
    assert done.returncode == 75
    assert "does not let a job queue again; submit the same command, and it goes on" in done.stdout


def test_jobs_of_an_array_run_a_point_each(slurm):
    slurm.launch("slurm.sh", "--array=0-17%4", *SWEEP)
    assert "\n#SBATCH --array=0-17%4\n" in (slurm.folder / "script").read_text()
    slurm.write("steps", 0)
    slurm.environment |= {"SLURM_ARRAY_JOB_ID": "16", "SLURM_ARRAY_TASK_ID": "7"}
    assert run(slurm)[0] == 0
    (call,) = slurm.calls("srun")
    assert call.endswith("fetalclip sweep --config s.py --workdir sweep --point 7")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--nodes=0", *TRAIN], "--nodes 0 is not a whole number from 1"),
        (["--array=a-b", *SWEEP], "--array a-b is not INDICES such as 0-17"),
        (["--array=0-3", *TRAIN], "--array runs the points of a sweep"),
        (["--array=0-3", *SWEEP, "--point", "2"], "--point is what --array gives each job"),
        (["--sbatch=exclusive", *TRAIN], "--sbatch exclusive is no option"),
        (["--sbatch=--no-requeue", *TRAIN], "--sbatch=--no-requeue: slurm.sh sets --no-requeue"),
        (["--logs=a b", *TRAIN], "--logs a b: a name without spaces"),
        (["--time=1\n#SBATCH -x", *TRAIN], "a value has a line break"),
        (["--time", "banana", *TRAIN], "--time banana is no limit of Slurm; use MINUTES, "),
    ],
)
def test_what_cannot_be_submitted_is_said(slurm, arguments, message):
    done = slurm.launch("slurm.sh", *arguments)
    assert (done.returncode, slurm.calls()) == (2, [])
    assert done.stderr.startswith(f"error: {message}")
