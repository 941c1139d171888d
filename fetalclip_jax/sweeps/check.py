"""Everything that can be wrong with a point and shows without training it."""

import json
from collections.abc import Callable

from fetalclip_jax.config import flatten
from fetalclip_jax.data import subset
from fetalclip_jax.datasets import registry
from fetalclip_jax.evaluation import studies
from fetalclip_jax.evaluation.sources import Sources
from fetalclip_jax.sweeps.folder import Folder
from fetalclip_jax.sweeps.plan import SEED, Plan, Point
from fetalclip_jax.training import inputs, loop


def check(plan: Plan, folder: Folder) -> None:
    """Builds every point on the devices of this process, and opens its data. Trains nothing.

    Raises:
      ValueError: a point that cannot train or be judged, or a folder of other points.
    """
    folder.check(plan)
    built, opened = set(), set()
    for point in plan.points:
        fields = flatten(point.config)
        fields.pop(SEED)
        # One that has begun may go on without what it started from.
        fields["begun"] = bool(folder.run(point).steps())
        _once(
            *(built, fields, plan, point),
            lambda point: loop.check(point.config, folder.run(point).workdir),
        )
        data = {name: value for name, value in fields.items() if name.startswith("data.")}
        data["size"] = point.config.model.vision_cfg.image_size
        data["batch"] = point.config.train.global_batch_size
        _once(opened, data, plan, point, lambda point: _check_data(plan, point))


def _once(
    seen: set[str], settings: dict, plan: Plan, point: Point, look: Callable[[Point], None]
) -> None:
    """Looks at a point unless one with the same settings was looked at."""
    key = json.dumps(settings, sort_keys=True, default=str)
    if key in seen:
        return
    seen.add(key)
    try:
        look(point)
    except ValueError as error:
        raise ValueError(f"{plan.path}: point {point.index} ({point.name}): {error}") from error


def _check_data(plan: Plan, point: Point) -> None:
    config, data = point.config, point.config.data
    train = inputs.source(config, "train")
    there, size = len(train), config.train.global_batch_size
    if data.train_patients:
        subset.first_names(train, data.train_patients, config.seed)
    for other, _ in inputs.mixed_in(config):
        inputs.source(other, registry.roles(other.data.source)["train"])
    used = data.train_images or there
    # Of few patients, and of parts of a mixture, a batch may hold an image several times.
    repeats = data.train_patients or data.mixture
    if used > there or (size > used and not repeats):
        raise ValueError(
            f"config.train.global_batch_size={size} and config.data.train_images={used} do not "
            f"fit the {there} images of the training split: batch <= train_images <= split"
        )
    one = plan.judged_on(point)
    sources = Sources({one.kind: one}, config.data, config.model.vision_cfg.image_size)
    for name in plan.judging.studies:
        study = studies.create(name, **plan.judging.options.get(name, {}))
        if lacking := sources.lacks(one.kind, study):
            raise ValueError(
                f"study {name} cannot be run: {one.kind} {lacking}{studies.advice(name)}"
            )
