"""The columns of a data set alone; no image is read."""

from fetalclip_jax.evaluation.features.encoding import metadata_store
from fetalclip_jax.evaluation.features.levels import Working
from fetalclip_jax.evaluation.features.store import FeatureStore

KEPT = False
load = FeatureStore.load


def encode(model, source, need, working: Working) -> FeatureStore:
    """See `features.levels`."""
    del model, need
    return metadata_store(source, working.fingerprint)
