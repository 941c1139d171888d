"""Activation maps against slow and obvious ones."""

import dataclasses
import functools
import types

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fetalclip_jax.evaluation.explanation import cam
from fetalclip_jax.models.clip import CLIP
from fetalclip_jax.models.preprocess import CLIP_MEAN, CLIP_STD, normalise
from tests.tiny import TINY

SIZE, GRID, WIDTH = 16, 2, 32
POOLS = ("tok", "grid")


@pytest.fixture(scope="module")
def models():
    """A tiny model by how it reads its patches."""

    def make(pool):
        vision = dataclasses.replace(TINY.vision_cfg, pool_type=pool)
        config = dataclasses.replace(TINY, vision_cfg=vision)
        module = CLIP(config)
        shapes = jnp.zeros((1, SIZE, SIZE, 3)), jnp.zeros((1, 10), jnp.int32)
        params = jax.jit(lambda: nn.meta.unbox(module.init(jax.random.key(3), *shapes)))()

        def encode_patches(pixels, taps):
            tokens = tapped(module, params["params"], normalise(pixels), taps[0], None)[1][0]
            return np.asarray(tokens)[:, 1:].reshape(len(pixels), 1, GRID, GRID, WIDTH)

        return types.SimpleNamespace(
            config=config,
            module=module,
            params=params["params"],
            encode_patches=encode_patches,
            whole=jax.sharding.SingleDeviceSharding(jax.devices()[0]),
            place=jnp.asarray,
            logit_scale=20.0,
            check_one_view=lambda what: None,
        )

    return {pool: make(pool) for pool in POOLS}


@pytest.fixture(scope="module")
def pixels():
    return np.random.default_rng(0).integers(0, 256, (3, SIZE, SIZE, 3), np.uint8)


@pytest.fixture(scope="module")
def targets():
    return np.random.default_rng(1).normal(size=(3, 12)).astype(np.float32)


@functools.partial(jax.jit, static_argnums=(0, 3))
def tapped(module, params, images, block, offset):
    return module.apply(
        {"params": params},
        images,
        taps=(block,),
        offsets=None if offset is None else {block: offset},
        method=CLIP.encode_image,
    )


def similarities(model, images, targets, block, offset=None):
    """Of each image, and its tokens at a block, to which something may be added."""
    features, (tokens,) = tapped(model.module, model.params, images, block, offset)
    features = np.asarray(features, np.float64)
    return (features / np.linalg.norm(features, axis=1, keepdims=True) * targets).sum(1), tokens


def gradients(model, image, target, block, step=0.1):
    """The gradient by each patch and channel from two values beside it, and the tokens."""
    count = GRID * GRID * WIDTH
    moved = np.zeros((2 * count, 1 + GRID * GRID, WIDTH), np.float32)
    for i in range(count):
        moved[i, 1 + i // WIDTH, i % WIDTH] = step
        moved[count + i, 1 + i // WIDTH, i % WIDTH] = -step
    images = np.repeat(np.asarray(normalise(image[None])), 2 * count, axis=0)
    values, tokens = similarities(model, images, target, block, moved)
    slope = (values[:count] - values[count:]) / (2 * step)
    tokens = np.asarray(tokens)[0] - moved[0]
    return slope.reshape(-1, WIDTH), tokens[1:]


@pytest.mark.parametrize(("pool", "block"), [("tok", 2), ("grid", 3)])
def test_maps_of_gradients_are_those_of_finite_differences(models, pixels, targets, pool, block):
    model = models[pool]
    plain = cam.grad_cam(model, pixels, targets, block, batch_size=2)
    by_patch = cam.grad_cam(model, pixels, targets, block, by_patch=True, batch_size=2)
    assert plain.shape == by_patch.shape == (3, GRID, GRID)
    for i in range(3):
        slope, tokens = gradients(model, pixels[i], targets[i], block)
        weights = slope.mean(0)
        expected = [max(0.0, float(token @ weights)) for token in tokens]
        largest = np.abs(tokens @ weights).max()
        np.testing.assert_allclose(plain[i].ravel(), expected, atol=0.02 * largest)
        different = tokens - tokens.mean(0)
        own = [float(one @ its) for one, its in zip(different, slope, strict=True)]
        expected = np.maximum(own, 0)
        np.testing.assert_allclose(by_patch[i].ravel(), expected, atol=0.02 * np.abs(own).max())
    assert (plain > 0).any()
    assert (by_patch > 0).any()


def stretched(grid, size):
    """Linear between the centres of squares, as the nearest beyond; one pixel at a time."""
    side = len(grid)
    found = np.zeros((size, size))
    for row in range(size):
        for column in range(size):
            value = 0.0
            y, x = ((place + 0.5) * side / size - 0.5 for place in (row, column))
            for i in range(side):
                for j in range(side):
                    near = min(max(y, 0), side - 1), min(max(x, 0), side - 1)
                    share = max(0, 1 - abs(near[0] - i)) * max(0, 1 - abs(near[1] - j))
                    value += share * grid[i, j]
            found[row, column] = value
    return found


def test_maps_are_stretched_linearly():
    grids = np.random.default_rng(2).normal(size=(2, 3, 3)).astype(np.float32)
    found = cam.upsample(grids, 12)
    for grid, one in zip(grids, found, strict=True):
        np.testing.assert_allclose(one, stretched(grid, 12), atol=1e-5)


@pytest.mark.parametrize("channels", [0, 5])
def test_score_cam_is_what_one_mask_at_a_time_gives(models, pixels, targets, channels):
    model, block = models["grid"], 2
    found = cam.score_cam(model, pixels, targets, block, channels=channels, batch_size=7)
    _, tokens = similarities(model, np.asarray(normalise(pixels)), targets, block)
    for i in range(3):
        maps = np.asarray(tokens)[i, 1:].T.reshape(WIDTH, GRID, GRID)
        if channels:
            maps = sorted(maps, key=lambda one: -one.var())[:channels]
        scores = []
        for one in maps:
            mask = stretched(one, SIZE)
            mask = (mask - mask.min()) / (mask.max() - mask.min())
            seen = (pixels[i] * mask[..., None] / 255 - CLIP_MEAN) / CLIP_STD
            seen = np.float32(seen)[None]
            scores.append(similarities(model, seen, targets[i], block)[0][0])
        weights = np.exp(20.0 * np.array(scores))
        weights /= weights.sum()
        expected = sum(weight * one for weight, one in zip(weights, maps, strict=True))
        np.testing.assert_allclose(found[i], np.maximum(expected, 0), rtol=2e-3, atol=2e-4)
    assert (found > 0).any()


def test_a_channel_that_is_the_same_everywhere_shows_black():
    logits, maps = np.array([[0.0, np.log(3)]]), np.zeros((1, 2, 2, 2))
    maps[0, 0], maps[0, 1, 0, 0] = 1.0, -2.0
    # Weights 1/4 and 3/4: 0.25 everywhere, less 1.5 in a corner.
    found = cam.weighted_channels(maps, logits)
    np.testing.assert_allclose(found, [[[0, 0.25], [0.25, 0.25]]])


def test_a_constant_channel_is_no_division_by_zero(models, pixels, targets):
    model = models["tok"]
    scored = cam._darkened_scores(model.module, model.whole)
    level = np.full((3, GRID, GRID), 7.0, np.float32)
    black = np.zeros_like(pixels)
    ramp = np.arange(GRID * GRID, dtype=np.float32).reshape(GRID, GRID)[None].repeat(3, 0)
    np.testing.assert_allclose(
        scored(model.params, pixels, targets, level),
        scored(model.params, black, targets, ramp),
        rtol=1e-5,
    )


def test_the_block_is_one_whose_patches_are_read(models):
    by_class, by_patch = (models[pool].config.vision_cfg for pool in POOLS)
    assert [cam.choose_block(by_class, block) for block in (0, 1, 2)] == [2, 1, 2]
    assert [cam.choose_block(by_patch, block) for block in (0, 1, 3)] == [3, 1, 3]
    averaged = dataclasses.replace(by_class, global_average_pool=True)
    assert cam.choose_block(averaged) == 3
    with pytest.raises(ValueError, match="block=3 is the last of 3, of which this model reads"):
        cam.choose_block(by_class, 3)
    for block in (4, -1):
        with pytest.raises(ValueError, match=f"block={block} is no block whose .* has 1 to 3"):
            cam.choose_block(by_patch, block)
    with pytest.raises(ValueError, match="block=0 is no block"):
        cam.choose_block(dataclasses.replace(by_class, layers=1))


def test_what_is_not_finite_is_no_map(models, pixels, targets):
    model = types.SimpleNamespace(**vars(models["grid"]))
    model.params = jax.tree.map(lambda leaf: leaf * jnp.nan, model.params)
    for method in cam.METHODS:
        with pytest.raises(ValueError, match="the activation maps: 3 of 3 are not finite"):
            cam.heat_maps(method, model, pixels, targets, 2, batch_size=2)
    with pytest.raises(ValueError, match="method='cam' is not one of hires_cam, score_cam"):
        cam.heat_maps("cam", model, pixels, targets, 1)
    with pytest.raises(ValueError, match="channels=-1"):
        cam.score_cam(model, pixels, targets, 1, channels=-1)
