"""Stores of several splits as one, for studies of a data set as a whole."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from fetalclip_jax.evaluation.features.store import FeatureStore

# Role -> what a study calls its store: not "fit", for nothing is learnt that others are judged by.
JUDGED = {"fit": "pool", "test": "judged", "validation": "validation", "all": "all"}


def joined(
    stores: Mapping[str, FeatureStore], roles: Sequence[str], model
) -> tuple[FeatureStore, np.ndarray]:
    """The clean images of several roles, and the role of each.

    Args:
      stores: under the names of `JUDGED`.

    Raises:
      ValueError: a store of another model, or an image in two of the roles.
    """
    parts = []
    for role in roles:
        stores[JUDGED[role]].check_model(model.fingerprint)
        parts.append(stores[JUDGED[role]].clean())
    shared = set.intersection(*(set(part.columns) for part in parts))
    whole = dataclasses.replace(
        parts[0],
        image_features=np.concatenate([part.image_features for part in parts]),
        raw_pixels=np.concatenate([part.raw_pixels for part in parts]),
        copy=np.concatenate([part.copy for part in parts]),
        columns={
            name: np.concatenate([part.columns[name] for part in parts])
            for name in parts[0].columns
            if name in shared
        },
        left_out=tuple(pair for part in parts for pair in part.left_out),
    )
    ids, times = np.unique(whole.columns["example_id"], return_counts=True)
    if times.max() > 1:
        raise ValueError(
            f"{(times > 1).sum()} images are in two of the roles {', '.join(roles)}, first "
            f"{str(ids[times > 1][0])!r}: it would be its own near-duplicate; leave one role out"
        )
    return whole, np.repeat(np.array(roles), [len(part) for part in parts])
