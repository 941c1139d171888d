"""One point of a sweep in this process: trained as a run like any other, then judged."""

import json
import time
from collections.abc import Callable

import fetalclip_jax
from fetalclip_jax.evaluation import studies, validation
from fetalclip_jax.evaluation.evaluate import Planned, evaluate
from fetalclip_jax.parallel import distributed
from fetalclip_jax.run import is_lead
from fetalclip_jax.sweeps import folder as folders
from fetalclip_jax.sweeps import stopping
from fetalclip_jax.sweeps.folder import Folder, State
from fetalclip_jax.sweeps.plan import Plan, Point
from fetalclip_jax.training import loop, preemption


def run(
    plan: Plan,
    point: Point,
    folder: Folder,
    *,
    notice: preemption.Notice,
    stop_early: bool = False,
    began: float | None = None,
) -> State:
    """Trains a point, or goes on with it, and judges it; writes down how far it came.

    Args:
      notice: asked after each step whether to stop there, saved.
      stop_early: by `stopping.MedianRule`.
      began: `time.time()` when the program began.

    Raises:
      ValueError: as `training.loop.train`, `evaluation.evaluate` and, with `stop_early`,
        `stopping.check`; another process trains it.
    """
    began = began or time.time()
    if stop_early:
        stopping.check(plan.judging)
    before = folder.state(point, plan)
    if before.status == "done" or (stop_early and before.status == "stopped"):
        return before
    # One that another process trains stays as it is.
    distributed.on_lead(lambda: _claim(point, folder))
    say = _saying(folder, point)
    say(State("running"))
    try:
        return say(_run(plan, point, folder, notice, stop_early, began))
    except (ValueError, OSError) as error:
        say(State("failed", str(error)))
        raise


def _claim(point: Point, folder: Folder) -> None:
    folder.run(point).claim(point.config)


def _run(plan, point, folder, notice, stop_early: bool, began: float) -> State:
    folder.prepare(point)
    config, judge, rule = point.config, validation.judge, None
    if stop_early:
        config, rule = _with_rule(plan, point, folder, notice)

        def judge(*arguments):
            return rule.watching(validation.judge(*arguments))

    workdir = folder.run(point).workdir
    reached = int(loop.train(config, workdir, notice=notice, judge=judge, began=began).step)
    if reached < config.train.steps:
        if rule is not None and rule.reason:
            return State("stopped", rule.reason, reached, time.time() - began)
        return State("interrupted", "", reached)
    judging = time.time()
    _judge(plan, point, folder)
    summary = folder.run(point).results / "train.json"
    # Of all processes that trained it.
    training = json.loads(summary.read_text(encoding="utf-8"))["seconds"]
    seconds = training + time.time() - judging
    return State("done", "", reached, seconds, folders.options(plan))


def _with_rule(plan: Plan, point: Point, folder: Folder, notice):
    """The configuration with what the rule looks at, and the rule."""
    config = point.config.copy_and_resolve_references()
    score = plan.score
    every = config.train.study_every or stopping.study_every(config.train.steps)
    chosen = dict.fromkeys([*config.train.studies, score.partition("/")[0]])
    config.train.update({"studies": tuple(chosen), "study_every": every})
    others = [
        (folder.run(other), other.config.train.steps)
        for other in plan.points
        if other.name != point.name
    ]
    own = folder.run(point)
    return config, stopping.MedianRule(score, own, config.train.steps, every, others, notice)


def _judge(plan: Plan, point: Point, folder: Folder) -> None:
    """The studies of a trained point, with intervals and predictions.

    Raises:
      ValueError: a study that cannot be run, or none that gives the score.
    """
    judging, one = plan.judging, plan.judged_on(point)
    results = evaluate(
        {point.name: lambda: fetalclip_jax.load(folder.run(point).workdir)},
        {one.kind: one},
        [
            Planned(studies.create(name, **judging.options.get(name, {})))
            for name in judging.studies
        ],
        folder.results(point, plan),
        workers=point.config.data.workers,
        progress=False,
    )
    measured = [f"{one.study}/{name}" for one in results for name in one.metrics]
    if plan.score not in measured:
        raise ValueError(
            f"the score {plan.score} is not measured; give sweep() one of {', '.join(measured)}. "
            "Trained points stay as they are"
        )


def _saying(folder: Folder, point: Point) -> Callable[[State], State]:
    def say(state: State) -> State:
        if is_lead():
            folder.write_state(point, state)
        return state

    return say
