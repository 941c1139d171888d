"""Stored features: what a model makes of a data set, encoded once."""

from fetalclip_jax.evaluation.features.encoding import encode, metadata_store
from fetalclip_jax.evaluation.features.store import FeatureStore

__all__ = ["FeatureStore", "encode", "metadata_store"]
