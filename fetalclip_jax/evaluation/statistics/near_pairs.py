"""Pairs of images that nearly agree, by features and by thumbnails; no matrix of all pairs."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, UInt8

# So many images' similarities to all others are held at a time.
_BLOCK = 256


@dataclasses.dataclass(frozen=True)
class Found:
    """What a search found, by image.

    Attributes:
      partner: the closest near-duplicate, those across splits, then across patients, first; -1 for
        an image without any.
      cosine, correlation: of the image and its partner; 0 where there is none.
      count, across_splits, across_patients: near-duplicates of each image; across patients where
        both are known.
      by_features, by_pixels: whether one of both alone would have found any: at all, across splits,
        across patients.
    """

    partner: Int[np.ndarray, "n"]
    cosine: Float[np.ndarray, "n"]
    correlation: Float[np.ndarray, "n"]
    count: Int[np.ndarray, "n"]
    across_splits: Int[np.ndarray, "n"]
    across_patients: Int[np.ndarray, "n"]
    by_features: Bool[np.ndarray, "n 3"]
    by_pixels: Bool[np.ndarray, "n 3"]

    @property
    def pairs(self) -> int:
        return int(self.count.sum()) // 2

    @property
    def pairs_across_splits(self) -> int:
        return int(self.across_splits.sum()) // 2

    @property
    def pairs_across_patients(self) -> int:
        return int(self.across_patients.sum()) // 2


def search(
    features: Float[np.ndarray, "n d"],
    thumbnails: Float[np.ndarray, "n p"],
    patients: Int[np.ndarray, "n"],
    splits: Int[np.ndarray, "n"],
    least_cosine: float,
    least_correlation: float,
    *,
    block_size: int = _BLOCK,
) -> Found:
    """Compares every image with every other, a block of images at a time.

    Args:
      features, thumbnails: of length one each.
      patients, splits: of each image, as numbers; -1 for a patient that is not known.
      block_size: images whose similarities to all others are held at a time.
    """
    count, size = len(features), min(block_size, len(features))
    owners = jnp.asarray(patients, jnp.int32), jnp.asarray(splits, jnp.int32)
    everything = jnp.asarray(features), jnp.asarray(thumbnails), *owners
    least = np.float32(least_cosine), np.float32(least_correlation)
    blocks: list[np.ndarray] = [np.empty(0)] * 8
    for start in range(0, count, size):
        # The last block starts earlier: one shape, one program.
        start = min(start, count - size)
        found = _search(np.int32(start), *everything, *least, size)
        for place, values in enumerate(found):
            if not len(blocks[place]):
                blocks[place] = np.empty((count, *values.shape[1:]), values.dtype)
            blocks[place][start : start + size] = values
    return Found(*blocks)


def centred(features: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n d"]:
    """What tells each feature from the mean of all, at length one.

    Features of a model lie in a narrow cone (Liang et al. 2022): by their plain cosines, all images
    of some models are alike.
    """
    unit = _unit(np.asarray(features, np.float64))
    return _unit(unit - unit.mean(0)).astype(np.float32)


def centred_thumbnails(pixels: UInt8[np.ndarray, "n p"]) -> Float[np.ndarray, "n p"]:
    """Each pixel less the mean of its image, at length one: products are correlations."""
    exact = pixels.astype(np.float64)
    return _unit(exact - exact.mean(1, keepdims=True)).astype(np.float32)


def _unit(values: np.ndarray) -> np.ndarray:
    # What is blank, or no different from the mean, is like nothing.
    length = np.linalg.norm(values, axis=1, keepdims=True)
    return np.where(length > 1e-9, values / np.maximum(length, 1e-9), 0.0)


@functools.partial(jax.jit, static_argnames="size")
def _search(
    start: Int[Array, ""],
    features: Float[Array, "n d"],
    thumbnails: Float[Array, "n p"],
    patients: Int[Array, "n"],
    splits: Int[Array, "n"],
    least_cosine: Float[Array, ""],
    least_correlation: Float[Array, ""],
    size: int,
) -> tuple[Array, ...]:
    def block(values):
        return jax.lax.dynamic_slice_in_dim(values, start, size)

    exact = jax.lax.Precision.HIGHEST
    cosine = jnp.einsum("bd,nd->bn", block(features), features, precision=exact)
    correlation = jnp.einsum("bp,np->bn", block(thumbnails), thumbnails, precision=exact)
    other = (start + jnp.arange(size))[:, None] != jnp.arange(len(features))
    by_features, by_pixels = (
        (cosine >= least_cosine) & other,
        (correlation >= least_correlation) & other,
    )
    alike = by_features & by_pixels
    other_split = block(splits)[:, None] != splits
    owner = block(patients)[:, None]
    other_patient = (owner != patients) & (owner >= 0) & (patients >= 0)
    # Both similarities add up to 2 at most: the bonuses decide first.
    nearness = cosine + correlation + 8.0 * other_split + 4.0 * other_patient
    partner = jnp.where(alike, nearness, -jnp.inf).argmax(1)
    any_alike = alike.any(1)

    def of_partner(values):
        own = jnp.take_along_axis(values, partner[:, None], 1)[:, 0]
        return jnp.where(any_alike, own, 0.0)

    def each_way(found):
        ways = found, found & other_split, found & other_patient
        return jnp.stack([one.any(1) for one in ways], 1)

    return (
        jnp.where(any_alike, partner, -1),
        of_partner(cosine),
        of_partner(correlation),
        alike.sum(1),
        (alike & other_split).sum(1),
        (alike & other_patient).sum(1),
        each_way(by_features),
        each_way(by_pixels),
    )
