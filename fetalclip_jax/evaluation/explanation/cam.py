"""Class activation maps of the image tower: where an image is similar to a prompt.

Any block of the transformer can be asked. Its output for the patches is a grid of tokens, whose
channels are weighed by what they do for the similarity: by its gradient (Grad-CAM, HiResCAM), or by
showing the model the image through each channel (Score-CAM).
"""

import functools
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Sharding
from jaxtyping import Array, Float, Int, UInt8
from tqdm import tqdm

from fetalclip_jax.evaluation.statistics.finite import require_finite
from fetalclip_jax.models.clip import CLIP, unit_length
from fetalclip_jax.models.preprocess import normalise
from fetalclip_jax.models.presets import VisionConfig

METHODS = ("hires_cam", "score_cam", "grad_cam")


def choose_block(config: VisionConfig, block: int = 0) -> int:
    """The number of a block whose patches can be asked, the first being 1.

    Args:
      config: of the image tower.
      block: the one that is wanted; 0 for the last whose patches the feature depends on.

    Raises:
      ValueError: no block, or the last one of a tower that reads its class token alone.
    """
    reads_patches = config.global_average_pool or config.pool_type != "tok"
    last = config.layers if reads_patches else config.layers - 1
    if block == config.layers > last:
        raise ValueError(
            f"block={block} is the last of {config.layers}, of which this model reads the class "
            f"token alone: the patches there change no similarity; use a block from 1 to {last}"
        )
    if not 0 <= block <= last or last == 0:
        raise ValueError(
            f"block={block} is no block whose patches can be asked; this model has 1 to {last}, "
            "and 0 stands for the last of them"
        )
    return block or last


def target(
    classes: Float[np.ndarray, "c d"], at: int, against_others: bool
) -> Float[np.ndarray, "d"]:
    """What the direction of an image's feature is multiplied with.

    Args:
      classes: embeddings of length one.
      at: the class that is looked for.
      against_others: less the mean of the other classes, for much of any prompt is common to all.

    Raises:
      ValueError: a class that is set against others, and there is no other.
    """
    if not against_others:
        return classes[at]
    if len(classes) < 2:
        raise ValueError(
            "the prompts have one class and nothing to set it against; add classes, or look for "
            "it alone"
        )
    return classes[at] - np.delete(classes, at, axis=0).mean(axis=0)


def heat_maps(
    method: str,
    model,
    pixels: UInt8[np.ndarray, "n s s 3"],
    targets: Float[np.ndarray, "n d"],
    block: int,
    *,
    channels: int = 0,
    batch_size: int = 16,
    progress: bool = False,
) -> Float[np.ndarray, "n g g"]:
    """The map of one of `METHODS`; `channels` is for Score-CAM alone.

    Raises:
      ValueError: an unknown method, or as `grad_cam` and `score_cam`.
    """
    working = {"batch_size": batch_size, "progress": progress}
    if method == "score_cam":
        return score_cam(model, pixels, targets, block, channels=channels, **working)
    if method not in METHODS:
        raise ValueError(f"method={method!r} is not one of {', '.join(METHODS)}")
    return grad_cam(model, pixels, targets, block, by_patch=method == "hires_cam", **working)


def grad_cam(
    model,
    pixels: UInt8[np.ndarray, "n s s 3"],
    targets: Float[np.ndarray, "n d"],
    block: int,
    *,
    by_patch: bool = False,
    batch_size: int = 16,
    progress: bool = False,
) -> Float[np.ndarray, "n g g"]:
    """Grad-CAM (Selvaraju et al. 2017, equations 1 and 2), with patches in place of pixels.

    The weight of a channel is the gradient of the similarity by its values, averaged over the
    patches; the map is what is positive in the weighted sum of channels. It is in no unit.

    With `by_patch` every patch keeps its own gradient, as in HiResCAM (Draelos & Carin 2020,
    equation 3): where a feature is read from each place with weights of its own (pool_type "grid"),
    the average over places says little. A LayerNorm undoes the length of a token, so that the
    product of a token with its own gradient is about 0 whatever it shows; what is multiplied is
    how a patch differs from the mean of the patches of the image.

    Args:
      model: a loaded `fetalclip_jax.model.Model`.
      pixels: images of the model's size.
      targets: what the direction of each image's feature is multiplied with, such as an embedding
        of a class less those of others.
      block: the number of a block, see `choose_block`.
      by_patch: no average of gradients.
      batch_size: images per call of the image tower.
      progress: show a progress bar.

    Raises:
      ValueError: `block` cannot be asked, a model of several test-time views, or what comes out
        is not finite.
    """
    block = _checked(model, block)
    program = _gradients(model.module.clone(remat="full"), block, by_patch, model.whole)
    found = []
    name = "HiResCAM" if by_patch else "Grad-CAM"
    with tqdm(total=len(pixels), desc=name, unit=" images", disable=not progress) as bar:
        for start in range(0, len(pixels), batch_size):
            chosen = slice(start, start + batch_size)
            count = len(pixels[chosen])
            batch = filled(pixels[chosen], batch_size), filled(targets[chosen], batch_size)
            found.append(np.asarray(program(model.params, *map(model.place, batch)))[:count])
            bar.update(count)
    return _finite(np.concatenate(found))


def score_cam(
    model,
    pixels: UInt8[np.ndarray, "n s s 3"],
    targets: Float[np.ndarray, "n d"],
    block: int,
    *,
    channels: int = 0,
    batch_size: int = 64,
    progress: bool = False,
) -> Float[np.ndarray, "n g g"]:
    """Score-CAM (Wang et al. 2020, algorithm 1), with patches in place of pixels.

    Each channel, stretched over the image and scaled to 0..1, hides what it is low on: the image is
    darkened towards black. The weights of the channels are the softmax of the model's logits
    (logit scale x similarity) for what is left of the image; the map is what is positive in the
    weighted sum of the channels. (That of black, which the algorithm subtracts, is the same for
    all channels.)

    Args:
      model, pixels, targets, block, progress: as `grad_cam`.
      channels: how many are shown, those that vary most over the patches of the image; 0 shows all.
        Each takes one call of the tower for one image.
      batch_size: darkened images per call of the image tower.

    Raises:
      ValueError: `block` cannot be asked, a model of several test-time views, or what comes out
        is not finite.
    """
    block = _checked(model, block)
    if channels < 0:
        raise ValueError(f"channels={channels}: how many are shown, or 0 for all")
    scored = _darkened_scores(model.module, model.whole)
    width = model.config.vision_cfg.width
    shown = min(channels, width) if channels else width
    found = []
    total = len(pixels) * shown
    with tqdm(total=total, desc="score-cam", unit=" masks", disable=not progress) as bar:
        # A few images together, so that their masks fill whole batches.
        together = max(1, -(-batch_size // shown))
        for start in range(0, len(pixels), together):
            image, target = pixels[start : start + together], targets[start : start + together]
            tokens = model.encode_patches(filled(image, together), (block,))[: len(image), 0]
            maps = _strongest(tokens, shown)  # i k g g
            scores = []
            for at in _chunks(len(image) * shown, batch_size):
                batch = (
                    image[at // shown],
                    target[at // shown],
                    maps[at // shown, at % shown],
                )
                batch = [model.place(filled(one, batch_size)) for one in batch]
                scores.append(np.asarray(scored(model.params, *batch))[: len(at)])
                bar.update(len(at))
            scores = np.concatenate(scores).reshape(len(image), shown)
            found.append(weighted_channels(maps, scores * model.logit_scale))
    return _finite(np.concatenate(found))


def weighted_channels(
    maps: Float[np.ndarray, "i k g g"], logits: Float[np.ndarray, "i k"]
) -> Float[np.ndarray, "i g g"]:
    """What is positive in the sum of channels, weighted by the softmax of their logits."""
    exponent = np.exp(logits - logits.max(axis=1, keepdims=True))
    weights = exponent / exponent.sum(axis=1, keepdims=True)
    return np.maximum(np.einsum("ik,ikgh->igh", weights, maps), 0).astype(np.float32)


def upsample(
    heat: Float[Array, "n g g"] | Float[np.ndarray, "n g g"], size: int
) -> Float[Array, "n s s"]:
    """Stretched over the pixels: linear between the centres of patches, as they are beyond."""
    return jax.image.resize(heat, (len(heat), size, size), "linear", antialias=False)


def _checked(model, block: int) -> int:
    model.check_one_view("an activation map")
    return choose_block(model.config.vision_cfg, block)


@functools.lru_cache(maxsize=4)
def _gradients(module: CLIP, block: int, by_patch: bool, whole: Sharding):
    """(params, pixels, targets) -> the map of every image."""

    def program(params, pixels: UInt8[Array, "b s s 3"], targets: Float[Array, "b d"]):
        images = normalise(pixels)
        vision = module.config.vision_cfg
        at_zero = jnp.zeros((len(images), vision.tokens, vision.width), jnp.float32)

        def similarity(offset):
            features, (tokens,) = module.apply(
                {"params": params},
                images,
                taps=(block,),
                offsets={block: offset},
                method=CLIP.encode_image,
            )
            # No image of a batch sees another: the gradient of the sum is that of each.
            return jnp.sum(unit_length(features) * targets), tokens.astype(jnp.float32)

        gradient, tokens = jax.grad(similarity, has_aux=True)(at_zero)
        gradient, tokens = gradient[:, 1:], tokens[:, 1:]  # b n d
        if by_patch:
            tokens = tokens - tokens.mean(axis=1, keepdims=True)
        else:
            gradient = gradient.mean(axis=1, keepdims=True)
        return _grid(jax.nn.relu((tokens * gradient).sum(axis=-1)))

    return jax.jit(program, out_shardings=whole)


@functools.lru_cache(maxsize=4)
def _darkened_scores(module: CLIP, whole: Sharding):
    """(params, pixels, targets, maps) -> similarity of each image, seen through its map."""

    def program(
        params,
        pixels: UInt8[Array, "b s s 3"],
        targets: Float[Array, "b d"],
        maps: Float[Array, "b g g"],
    ):
        masks = upsample(maps, pixels.shape[1])
        low, high = (extreme(masks, axis=(1, 2), keepdims=True) for extreme in (jnp.min, jnp.max))
        # A channel that is the same everywhere shows nothing.
        masks = (masks - low) / jnp.where(high > low, high - low, 1)
        seen = normalise(pixels.astype(jnp.float32) * masks[..., None])
        features = module.apply({"params": params}, seen, method=CLIP.encode_image)
        return jnp.sum(unit_length(features) * targets, axis=-1)

    return jax.jit(program, out_shardings=whole)


def _grid(values: Float[Array, "b n"]) -> Float[Array, "b g g"]:
    side = round(values.shape[1] ** 0.5)
    return values.reshape(-1, side, side)


def _strongest(tokens: Float[np.ndarray, "i g g d"], count: int) -> Float[np.ndarray, "i k g g"]:
    """The channels that vary most over the patches of each image, as maps; equal ones by number."""
    order = np.argsort(-tokens.var(axis=(1, 2)), axis=1, kind="stable")[:, :count]  # i k
    chosen = np.take_along_axis(tokens, order[:, None, None], axis=3)  # i g g k
    return np.ascontiguousarray(np.moveaxis(chosen, 3, 1))


def _chunks(count: int, size: int) -> Iterator[Int[np.ndarray, "k"]]:
    return (np.arange(start, min(start + size, count)) for start in range(0, count, size))


def filled(rows: np.ndarray, size: int) -> np.ndarray:
    """As many rows as a program is compiled for; what is added repeats the last."""
    return np.pad(rows, [(0, size - len(rows))] + [(0, 0)] * (rows.ndim - 1), mode="edge")


def _finite(heat: Float[np.ndarray, "n g g"]) -> Float[np.ndarray, "n g g"]:
    require_finite("the activation maps", heat)
    return heat
