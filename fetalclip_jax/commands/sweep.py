"""`fetalclip sweep`."""

import argparse
import os
import subprocess
import sys
import time

from fetalclip_jax.commands import arguments

SUMMARY = "Train and judge every point of a sweep; goes on where it was stopped."
EXAMPLE = """\
fetalclip sweep --config configs/sweeps/batch_temperature.py --workdir runs/sweep --jobs 2
  fetalclip sweep --config configs/sweeps/batch_temperature.py --workdir runs/sweep --list
  bash launch/slurm.sh --array 0-17%4 -- \\
      fetalclip sweep --config configs/sweeps/batch_temperature.py --workdir runs/sweep"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    arguments.add_config(parser, required=True)
    parser.add_argument("--workdir", required=True, help="folder of the sweep and all its runs")
    parser.add_argument(
        "--jobs",
        type=int,
        default=1,
        metavar="N",
        help="points at once, each with its share of cores and GPUs (default: 1)",
    )
    parser.add_argument(
        "--stop-early",
        action="store_true",
        help="give up points that are worse than the median of the others on the way",
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--list", action="store_true", help="check and show the points, run nothing")
    what.add_argument("--point", metavar="INDEX", help="run this one alone, in this process")
    what.add_argument(
        "--collect", action="store_true", help="write the page and tables of what is there"
    )
    arguments.add_job(parser)


def run(given: argparse.Namespace, overrides: list[str]) -> int:
    if "://" in given.workdir:
        raise ValueError(
            f"--workdir={given.workdir}: the points of a sweep share locks and records, which a "
            "bucket has not; use a disk that all of them see"
        )
    if given.point is not None:
        return _run_point(given, overrides)
    from fetalclip_jax.sweeps import plan as plans
    from fetalclip_jax.sweeps import stopping
    from fetalclip_jax.sweeps.folder import Folder

    folder = Folder(given.workdir)
    plan = folder.resolved(plans.read(given.config, overrides))
    if given.stop_early:
        stopping.check(plan.judging)
    if given.list:
        _list(plan, folder)
    elif given.collect:
        folder.check(plan)
        _write(plan, folder)
    else:
        return _run_all(given, overrides, plan, folder)
    return 0


def _run_point(given: argparse.Namespace, overrides: list[str]) -> int:
    began = time.time()
    from fetalclip_jax.training import preemption

    # Before JAX is imported, which takes seconds.
    with preemption.Notice() as notice, arguments.job(given, heeds_notices=True):
        from fetalclip_jax.sweeps import local, point
        from fetalclip_jax.sweeps import plan as plans
        from fetalclip_jax.sweeps.folder import Folder

        folder = Folder(given.workdir)
        plan = folder.resolved(plans.read(given.config, overrides))
        folder.check(plan)
        one = plan.point(given.point)
        options = {"notice": notice, "stop_early": given.stop_early, "began": began}
        state = point.run(plan, one, folder, **options)
        print(f"{one.name}: {local.in_words(state)}")
        return notice.stopped_status if state.status == "interrupted" else 0


def _list(plan, folder) -> None:
    from fetalclip_jax.sweeps import check

    check.check(plan, folder)
    for point in plan.points:
        print(f"{point.index}\t{point.name}\t{folder.state(point, plan).status}")


def _run_all(given: argparse.Namespace, overrides: list[str], plan, folder) -> int:
    from fetalclip_jax.sweeps import local, slots
    from fetalclip_jax.training import preemption

    shares = slots.divide(given.jobs)
    _check_elsewhere(given, overrides, shares[0])
    ended = ("done", "stopped") if given.stop_early else ("done",)
    waiting = [point for point in plan.points if folder.state(point, plan).status not in ended]
    print(
        f"{len(plan.points)} points in {given.workdir}, {len(plan.points) - len(waiting)} of them "
        "done before",
        flush=True,
    )
    command = local.command(given.config, str(given.workdir), overrides, given.stop_early)
    whole = local.run(plan, folder, waiting, command, shares)
    outcome = _write(plan, folder)
    if not whole:
        print("Stopped; run the same command to go on")
        return preemption.stopped_status()
    if failed := outcome.count("failed"):
        first = next(row for row in outcome.rows if row.state.status == "failed")
        raise ValueError(
            f"{failed} of {len(plan.points)} points failed, first {first.point.name}: "
            f"{first.state.message} (see {folder.log(first.point)}); run the same command to try "
            "them again"
        )
    return 0


def _check_elsewhere(given: argparse.Namespace, overrides: list[str], slot) -> None:
    """Looks at all points in a process that has what each of them will have.

    Raises:
      ValueError: what is wrong with one.
    """
    command = [sys.executable, "-m", "fetalclip_jax.cli", "sweep", "--config", given.config]
    command += ["--workdir", str(given.workdir), "--list", *overrides]
    with slot.given():
        done = subprocess.run(
            command, capture_output=True, text=True, env=os.environ | dict(slot.environment)
        )
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"ended with status {done.returncode}"]
        raise ValueError(lines[-1].removeprefix("fetalclip sweep: "))


def _write(plan, folder):
    from fetalclip_jax.reports import sweep as page
    from fetalclip_jax.sweeps import outcome as outcomes

    outcome = outcomes.collect(plan, folder)
    outcomes.write(outcome, folder)
    page.write(outcome, folder)
    done = outcome.count("done")
    print(f"{done} of {len(plan.points)} points are done: {folder.page}, {folder.summary}")
    if outcome.verdict:
        print(outcome.verdict.in_words())
    return outcome
