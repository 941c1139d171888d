"""Which checkpoints of a run stay, and which of them is the best."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping

import numpy as np

from fetalclip_jax import storage
from fetalclip_jax.run import Run
from fetalclip_jax.training import integrity

# What Orbax writes last; without it it takes a folder in a bucket for half written.
COMMITTED = "commit_success.txt"


@dataclasses.dataclass(frozen=True)
class Kept:
    """Which checkpoints stay: an `ocp.checkpoint_managers.PreservationPolicy`."""

    last: int
    milestone: int | None
    best_step: Callable[[], int | None]

    def should_preserve(self, checkpoints, *, context) -> list[bool]:
        steps = [checkpoint.step for checkpoint in checkpoints]
        kept = {*sorted(steps)[-self.last :], self.best_step()}
        if self.milestone is not None:
            kept.add(max((step for step in steps if step <= self.milestone), default=None))
        return [step in kept for step in steps]


def remove_half_written(folder: storage.Path) -> None:
    """Removes what a killed or failed save left: it holds space, and nobody reads it.

    What is whole though nothing was recorded of it, such as a copy of a checkpoint of an earlier
    version, is recorded.
    """
    for path in folder.glob("*"):
        # In a bucket a checkpoint has its name from the beginning.
        named = storage.is_bucket(path) and path.name.isdigit() and not integrity.is_recorded(path)
        if named and _is_marked(path.listing()):
            integrity.record(path)
        elif named or ".orbax-checkpoint-tmp" in path.name:
            storage.rmtree(path)


def _is_marked(names: Iterable[str]) -> bool:
    """Whether Orbax says that it wrote all of a checkpoint, or of parameters that are alone."""
    items = {name.split("/")[0] for name in names if "/" in name}
    wanted = {f"{item}/{COMMITTED}" for item in items}
    if items != {"params"}:
        wanted.add(COMMITTED)
    return wanted <= set(names)


def metrics(folder: storage.Path) -> dict[str, float]:
    """The validation metrics that a checkpoint was saved with."""
    return dict(integrity.read_json(folder / "progress").get("metrics", {}))


def best(values: Mapping[int, Mapping[str, float]], name: str) -> int | None:
    """The step with the lowest value of that name; None where no step has one."""
    finite = {
        step: found[name]
        for step, found in values.items()
        if name in found and np.isfinite(found[name])
    }
    # The first of equals, so that a run that was resumed keeps the same.
    return min(sorted(finite), key=finite.__getitem__, default=None)


def best_step(workdir: storage.Path, metric: str) -> int:
    """The checkpoint whose validation `metric` is lowest.

    Raises:
      ValueError: no checkpoint has that metric.
    """
    run = Run(workdir)
    found = best({step: metrics(run.checkpoints / str(step)) for step in run.steps()}, metric)
    if found is None:
        raise ValueError(
            f"no checkpoint in {run.checkpoints} knows its {metric or 'validation loss'}; open the "
            f"newest, {workdir}, or train with config.train.keep_best=val_loss"
        )
    return found


def unused(path: storage.Path) -> storage.Path:
    """`path`, or with a number behind it where something has that name."""
    number, name = 1, path.name
    while path.exists():
        number += 1
        path = path.with_name(f"{name}-{number}")
    return path
