"""Images as a table: features, class scores, and ages where a pixel spacing is known."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from fetalclip_jax.evaluation import age
from fetalclip_jax.evaluation.features import FeatureStore
from fetalclip_jax.evaluation.studies import zero_shot


@dataclasses.dataclass(frozen=True)
class Table:
    """Columns of equal length by name, in the order they are written.

    Attributes:
      columns: text and numbers, [n] each; an age is "" where no spacing is known.
      without_age: rows without an age.
    """

    columns: dict[str, np.ndarray]
    without_age: int

    def rows(self) -> list[dict[str, object]]:
        names = list(self.columns)
        values = (column.tolist() for column in self.columns.values())
        return [dict(zip(names, row, strict=True)) for row in zip(*values, strict=True)]


def table(
    store: FeatureStore,
    model,
    prompts: Mapping[str, Mapping[str, Sequence[str]]],
    *,
    templates: Sequence[str] | None = None,
    with_features: bool = True,
    progress: bool = True,
) -> Table:
    """What a model says of every image of a store.

    Args:
      store: clean images, encoded by `model`.
      model: the loaded model.
      prompts: name of a set -> {class: [prompts]}; each gives a column of answers under its name
        and a column of 100 x cosine for every class.
      templates: age prompts; None leaves ages out.
      with_features: whether the projected features are columns too, `feature_0` and on.
      progress: show progress bars.

    Raises:
      ValueError: prompts that no class can be told apart by, or features that are not finite.
    """
    columns = {"image": store.columns["example_id"]}
    for name, texts in prompts.items():
        classes = list(texts)
        scores = zero_shot.scores(store.image_features, model, texts)
        columns[name] = np.array(classes)[scores.argmax(1)]
        columns |= {
            f"{name}.{one}": np.round(scores[:, i].astype(float), 4)
            for i, one in enumerate(classes)
        }
    without_age = 0
    if templates is not None:
        days, without_age = _ages(store, model, templates, progress)
        columns |= {"ga_days": days, "resized_spacing_mm": store.columns["resized_spacing_mm"]}
    if with_features:
        columns |= {f"feature_{i}": one for i, one in enumerate(store.image_features.T)}
    return Table(columns, without_age)


def _ages(store, model, templates, progress):
    known = np.isfinite(store.columns["resized_spacing_mm"])
    days = np.full(len(store), "", object)
    if known.any():
        scores = age.similarity(store.select(known), model, templates, progress=progress)
        days[known] = age.days_from_similarity(scores)
    return days, int((~known).sum())
