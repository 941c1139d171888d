"""Images as a table: features, class scores, and ages where a pixel spacing is known."""

import csv
import dataclasses
import io
from collections.abc import Mapping, Sequence

import numpy as np

from fetalclip_jax import run, storage
from fetalclip_jax.data.example import Example
from fetalclip_jax.datasets.protocol import Source
from fetalclip_jax.evaluation import age, class_features
from fetalclip_jax.evaluation.features import FeatureStore
from fetalclip_jax.evaluation.studies.age import similarity


@dataclasses.dataclass(frozen=True)
class WithSpacing:
    """A source whose images all have one pixel spacing, in place of what it says itself.

    Attributes:
      source: what is read.
      pixel_spacing_mm: millimetres per pixel of the images as they are.
    """

    source: Source
    pixel_spacing_mm: float

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Example:
        example = self.source[index]
        return dataclasses.replace(example, pixel_spacing_mm=self.pixel_spacing_mm)


@dataclasses.dataclass(frozen=True)
class Table:
    """A row per image.

    Attributes:
      columns: text and numbers by name, [n] each, in the order they are written; an age is "" where
        no spacing is known.
      without_age: rows without an age.
    """

    columns: dict[str, np.ndarray]
    without_age: int


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
        and a column of 100 x cosine for every class, "<set>.<class>".
      templates: age prompts; None leaves ages out.
      with_features: whether the projected features are columns too, `feature_0` and on.
      progress: show progress bars.

    Raises:
      ValueError: prompts that tell no class apart.
    """
    columns = {"image": store.columns["example_id"]}
    for name, texts in prompts.items():
        classes = class_features.embed_classes(model, texts)
        scores = np.asarray(class_features.similarity(store.image_features, classes), np.float64)
        columns[name] = np.array(list(texts))[scores.argmax(1)]
        columns |= {f"{name}.{one}": np.round(scores[:, i], 4) for i, one in enumerate(texts)}
    without_age = 0
    if templates is not None:
        spacing_mm = store.columns["resized_spacing_mm"]
        known = np.isfinite(spacing_mm)
        days = np.full(len(store), "", object)
        if known.any():
            scores = similarity(store.select(known), model, templates, progress=progress)
            days[known] = age.days_from_similarity(scores)
        without_age = int((~known).sum())
        shown = np.where(known, np.round(spacing_mm, 4).astype(object), "")
        columns |= {"ga_days": days, "resized_spacing_mm": shown}
    if with_features:
        columns |= {f"feature_{i}": one for i, one in enumerate(store.image_features.T)}
    return Table(columns, without_age)


def write_csv(path: storage.Path, columns: Mapping[str, np.ndarray]) -> None:
    """Writes columns of one length as a table, whole or not at all."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*(column.tolist() for column in columns.values()), strict=True))
    run.write_text(path, text.getvalue())
