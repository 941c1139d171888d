"""Giving up points that are hopeless: the median stopping rule.

A point stops when its score is worse than the median of what the others had when they had seen the
same share of their training (Golovin et al., Google Vizier, KDD 2017). Scores are those of the
validation patients, at every `config.train.study_every` steps or, where that is not set, at each
quarter of the training. A score of half a training says little of its end, where learning rates
fall to zero: what was stopped is listed as such and takes part in no comparison.
"""

import dataclasses
import json
import statistics
from collections.abc import Callable, Sequence
from typing import Any

from fetalclip_jax.parallel import distributed
from fetalclip_jax.run import Run
from fetalclip_jax.sweeps.grid import Sweep
from fetalclip_jax.sweeps.score import is_error
from fetalclip_jax.training import preemption

_TIMES = 4
# Of fewer others a median says nothing.
FEWEST_OTHERS = 3
# Shares of training are compared with so much tolerance: steps are whole numbers.
_SAME = 0.01


def check(judging: Sweep) -> None:
    """Raises ValueError where points are judged on what their training does not look at."""
    if judging.judged_on is not None:
        raise ValueError(
            f"--stop-early compares points on the validation patients of what they are trained on, "
            f"and this sweep is judged on {judging.judged_on.kind}; leave --stop-early out"
        )


def study_every(steps: int) -> int:
    """Steps between two judgements, where the configuration names none."""
    return max(1, -(-steps // _TIMES))


@dataclasses.dataclass
class MedianRule:
    """Asks a run to stop where its score is worse than the median of the others.

    Attributes:
      score: "study/metric".
      run, steps, every: the run, its steps in all, and between two judgements.
      others: the runs of the other points, and the steps of each.
      notice: that is asked.
      reason: why it was asked to; "" as long as it was not.
    """

    score: str
    run: Run
    steps: int
    every: int
    others: Sequence[tuple[Run, int]]
    notice: preemption.Notice
    reason: str = ""

    def watching(self, measure: Callable[[Any], dict[str, float]]) -> Callable:
        """A function of parameters that measures as `measure` does, and applies the rule."""

        def measured(params: Any) -> dict[str, float]:
            found = measure(params)
            step = max(judged(self.run, self.score), default=0) + self.every
            value = found[f"study/{self.score}"]
            self.reason = distributed.on_lead(lambda: self.verdict(step, value))
            if self.reason:
                self.notice.ask()
            return found

        return measured

    def verdict(self, step: int, value: float) -> str:
        """Why a run with this score after `step` is to stop, or ""."""
        share = step / self.steps
        if share >= 1:
            return ""
        there = [_at(judged(run, self.score), share * steps, steps) for run, steps in self.others]
        there = [one for one in there if one is not None]
        if len(there) < FEWEST_OTHERS:
            return ""
        median = statistics.median(there)
        if not (value > median if is_error(self.score) else value < median):
            return ""
        return (
            f"{self.score} {value:.3f} at {100 * share:.0f} % of its training, worse than the "
            f"median {median:.3f} of {len(there)} other points there"
        )


def judged(run: Run, score: str) -> dict[int, float]:
    """step -> a score that was measured while training."""
    try:
        lines = run.metrics.read_text(encoding="utf-8").splitlines()
    except OSError:
        return {}
    found = {}
    for line in lines:
        try:
            values = json.loads(line)
        except ValueError:  # cut short by a killed process, or being written
            continue
        if f"study/{score}" in values:
            found[int(values["step"])] = float(values[f"study/{score}"])
    return found


def _at(scores: dict[int, float], step: float, steps: int) -> float | None:
    """The score at about a step, or None."""
    nearest = min(scores, key=lambda at: abs(at - step), default=None)
    if nearest is None or abs(nearest - step) > max(1, _SAME * steps):
        return None
    return scores[nearest]
