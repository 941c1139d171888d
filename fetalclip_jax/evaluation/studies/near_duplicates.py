"""Near-duplicates: images that look alike to the model and pixel by pixel.

Both have to agree. Features alone put images together that show the same, pixels alone images that
are bright in the same places. Features are compared by the cosine of what tells them from the mean
feature of all, 16 x 16 thumbnails by their correlation. A near-duplicate in another split is a
leak; frames of one scan are often near-duplicates, and no harm in one split.
"""

import dataclasses
import types
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fetalclip_jax.evaluation.features.store import FeatureStore
from fetalclip_jax.evaluation.groups import group_columns
from fetalclip_jax.evaluation.pictures import Picture
from fetalclip_jax.evaluation.result import Baseline, Predictions, Result
from fetalclip_jax.evaluation.sheets import contact_sheet
from fetalclip_jax.evaluation.statistics import measure, near_pairs
from fetalclip_jax.evaluation.statistics.bootstrap import Bootstrap
from fetalclip_jax.evaluation.statistics.finite import require_finite
from fetalclip_jax.evaluation.statistics.measure import Measured
from fetalclip_jax.evaluation.studies.joined import JUDGED, joined
from fetalclip_jax.evaluation.studies.settings import Settings, resolve
from fetalclip_jax.evaluation.study import Need

LISTED, SHOWN = 100, 12
# Labels that a pair may disagree on, as the table calls them, and their columns.
_LABELS = {"plane": "plane", "brain_plane": "brain_plane", "finding": "label"}


@dataclasses.dataclass(frozen=True)
class NearDuplicatesSettings(Settings):
    """Options of the search.

    Attributes:
      roles: splits that are searched together, see `datasets.protocol.SourceFacts.roles`;
        "validation" where its images are no others' as well.
      least_cosine: of features, from which on two images are alike to the model.
      least_correlation: of thumbnails, from which on their pixels are.
    """

    roles: tuple[str, ...] = ("fit", "validation", "test")
    least_cosine: float = 0.9
    least_correlation: float = 0.95

    def __post_init__(self):
        super().__post_init__()
        unknown = sorted(set(self.roles) - set(JUDGED))
        if unknown or not self.roles or len(set(self.roles)) < len(self.roles):
            raise ValueError(f"roles={self.roles} must be different ones of {', '.join(JUDGED)}")
        if not (-1 < self.least_cosine <= 1 and -1 < self.least_correlation <= 1):
            raise ValueError(
                f"least_cosine={self.least_cosine:g} and least_correlation="
                f"{self.least_correlation:g} must lie between -1 and 1"
            )


class NearDuplicates:
    """Pairs of images that nearly agree, those across splits and patients first."""

    settings_type = NearDuplicatesSettings

    name = "near_duplicates"
    scores: Mapping[str, bool] = types.MappingProxyType({})

    def __init__(self, **options):
        protocols = {"default": {}, "paper": {"resample_by": "image"}}
        self.settings = resolve(self.name, self.settings_type, protocols, options)
        self.needs = tuple(
            Need(f"{JUDGED[role]}{kind}", role, level=level, optional=role == "validation")
            for role in self.settings.roles
            for kind, level in (("", "feature"), ("_images", "images"))
        )

    def run(self, stores: Mapping[str, FeatureStore], model) -> Result:
        """Searches the clean images of all roles together; see `evaluation.study.Study`."""
        settings = self.settings
        store, split = joined(stores, _searched(settings.roles, stores), model)
        if len(store) < 2:
            raise ValueError("near_duplicates: there is one image only; a pair takes two")
        require_finite("the image features", store.image_features, store.columns["example_id"])
        patients = store.columns["patient_id"]
        known = patients != ""
        found = near_pairs.search(
            near_pairs.centred(store.image_features),
            near_pairs.centred_thumbnails(store.raw_pixels),
            np.where(known, np.unique(patients, return_inverse=True)[1], -1),
            np.unique(split, return_inverse=True)[1],
            settings.least_cosine,
            settings.least_correlation,
        )
        predictions = _predictions(store, split, found)
        bootstrap = Bootstrap(
            store.bootstrap_groups(settings.resample_by), settings.resamples, settings.seed
        )
        pairs = _pairs(predictions)
        return Result(
            study=self.name,
            metrics=bootstrap.estimates(self.measures(predictions)),
            protocol=settings.to_json(),
            baselines=_baselines(found, predictions, bootstrap),
            details={
                "tells_of": "the data",
                "count": len(store),
                "patients": len(np.unique(store.patients())),
                "images": {name: int((split == name).sum()) for name in np.unique(split)},
                "pairs": found.pairs,
                "pairs_across_splits": found.pairs_across_splits,
                "pairs_across_patients": found.pairs_across_patients if known.any() else None,
                "list": pairs[:LISTED],
                "listed": min(len(pairs), LISTED),
                "list_holds": "each image with its closest near-duplicate, those across splits and "
                "patients first",
                "resample_by": settings.resample_by,
                "resampled": "images, their near-duplicates fixed",
            },
            predictions=predictions,
            pictures=_pictures(stores, pairs),
        )

    @staticmethod
    def measures(predictions: Predictions) -> dict[str, Measured]:
        """See `evaluation.study.Study`."""
        extra, rows = predictions.extra, np.arange(len(predictions.example_id))
        found = {"near_duplicate_share": Measured(measure.mean(extra["near_duplicates"] > 0), rows)}
        across, known = {}, np.flatnonzero(predictions.patient_id != "")
        if len(known):
            across["across_patients"] = known
        if len(np.unique(extra["split"])) > 1:
            across["across_splits"] = rows
        for name, judged in across.items():
            share = measure.mean(extra[f"near_duplicates_{name}"][judged] > 0)
            found[f"near_duplicate_share_{name}"] = Measured(share, judged)
        return found


def _searched(roles: Sequence[str], stores: Mapping[str, FeatureStore]) -> list[str]:
    """The roles that there are; in many data sets the validation images are among others."""
    ids = {r: stores[JUDGED[r]].columns["example_id"] for r in roles if JUDGED[r] in stores}
    others = [own for role, own in ids.items() if role != "validation"]
    if "validation" in ids and others and np.isin(ids["validation"], np.concatenate(others)).all():
        del ids["validation"]
    return list(ids)


def _predictions(store: FeatureStore, split: np.ndarray, found: near_pairs.Found) -> Predictions:
    ids = store.columns["example_id"]
    has, partner = found.partner >= 0, np.maximum(found.partner, 0)

    def of_partner(values):
        return np.where(has, values[partner], "")

    extra = {
        "split": split,
        "near_duplicates": found.count,
        "near_duplicates_across_splits": found.across_splits,
        "near_duplicates_across_patients": found.across_patients,
        "cosine": np.round(found.cosine.astype(np.float64), 4),
        "correlation": np.round(found.correlation.astype(np.float64), 4),
        "partner_patient": of_partner(store.columns["patient_id"]),
        "partner_split": of_partner(split),
    }
    for name, column in _LABELS.items():
        values = store.columns[column]
        if (values != "").any():
            extra |= {name: values, f"partner_{name}": of_partner(values)}
    return Predictions(
        example_id=ids,
        patient_id=store.columns["patient_id"],
        label=np.full(len(ids), ""),
        prediction=of_partner(ids),
        extra=extra,
        groups=group_columns(store),
    )


def _baselines(
    found: near_pairs.Found, predictions: Predictions, bootstrap: Bootstrap
) -> dict[str, Baseline]:
    """What one of both would have found alone, of every metric."""
    measured = NearDuplicates.measures(predictions)
    return {
        f"{kind}_alone{way}": Baseline(
            name,
            bootstrap.select(rows).estimate(measure.mean(alone[rows, column])),
            f"by {kind} alone",
        )
        for kind, alone in (("features", found.by_features), ("pixels", found.by_pixels))
        for column, way in enumerate(("", "_across_splits", "_across_patients"))
        if (name := f"near_duplicate_share{way}") in measured
        for rows in [measured[name].rows]
    }


def _pairs(predictions: Predictions) -> list[dict[str, Any]]:
    """Each image with its closest near-duplicate, no pair twice, the worst first."""
    found = {}
    for row in predictions.rows():
        if not row["prediction"]:
            continue
        same_split = row["split"] == row["partner_split"]
        known = row["patient_id"] != "" and row["partner_patient"] != ""
        labels = [name for name in _LABELS if name in row]
        pair = {
            "first": row["example_id"],
            "second": row["prediction"],
            "cosine": row["cosine"],
            "correlation": row["correlation"],
            "splits": row["split"] if same_split else f"{row['split']}, {row['partner_split']}",
            "same_split": same_split,
            "same_patient": row["patient_id"] == row["partner_patient"] if known else None,
            "labels_differ": [name for name in labels if row[name] != row[f"partner_{name}"]],
        }
        found.setdefault(frozenset((pair["first"], pair["second"])), pair)
    return sorted(
        found.values(),
        key=lambda pair: (
            pair["same_split"],
            pair["same_patient"] is not False,
            -pair["cosine"] - pair["correlation"],
        ),
    )


def _pictures(stores: Mapping[str, Any], pairs: list[dict[str, Any]]) -> list[Picture]:
    by_id = {
        name: store
        for key, store in stores.items()
        if key.endswith("_images")
        for name in store.places
    }
    shown = [
        [by_id[name].image(name) for name in (pair["first"], pair["second"])]
        for pair in pairs[:SHOWN]
        if pair["first"] in by_id and pair["second"] in by_id
    ]
    if not shown:
        return []
    caption = (
        "Pairs that nearly agree, numbered as in the table; those across splits, then across "
        "patients, come first."
    )
    return [Picture("pairs", contact_sheet(shown, 3), caption, "Pairs of images side by side")]
