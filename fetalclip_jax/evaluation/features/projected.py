"""One projected vector of each image and copy."""

from fetalclip_jax.evaluation.features.encoding import encode as _encode
from fetalclip_jax.evaluation.features.levels import Working
from fetalclip_jax.evaluation.features.store import FeatureStore

KEPT = True
load = FeatureStore.load


def encode(model, source, need, working: Working) -> FeatureStore:
    """See `features.levels` and `features.encoding.encode`, which says what it raises."""
    return _encode(
        model,
        source,
        transform=need.transform,
        copies=need.copies,
        only=need.only,
        batch_size=working.batch_size,
        workers=working.workers,
        seed=working.seed,
        fingerprint=working.fingerprint,
        progress=working.progress,
    )
