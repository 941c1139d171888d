"""Tiny models with weights that anyone can draw again: what the golden files were computed from."""

from collections.abc import Mapping

import numpy as np

_VISION = {"image_size": 32, "patch_size": 8, "width": 64, "layers": 2, "head_width": 16}
_TEXT = {"context_length": 12, "vocab_size": 64, "width": 32, "heads": 2, "layers": 2}
# Every kind of tower that can be imported; fields that differ from the plain one.
MODELS: dict[str, dict] = {
    "plain": {},
    "quick_gelu": {"quick_gelu": True},
    "layer_scale": {"vision_cfg": {"ls_init_value": 0.5}, "text_cfg": {"ls_init_value": 0.5}},
    "average_pool": {"vision_cfg": {"pool_type": "avg"}},
    "sigmoid": {"init_logit_bias": -10.0},
    "wide_heads": {
        "vision_cfg": {"head_width": 32, "mlp_ratio": 2.0},
        "text_cfg": {"mlp_ratio": 3.0},
    },
}
_BATCH = 3


def fields(name: str) -> dict:
    """One of `MODELS` as the fields of an open_clip model JSON."""
    changes = MODELS[name]
    return {
        "embed_dim": 24,
        "vision_cfg": _VISION | changes.get("vision_cfg", {}),
        "text_cfg": _TEXT | changes.get("text_cfg", {}),
        "quick_gelu": changes.get("quick_gelu", False),
        "init_logit_bias": changes.get("init_logit_bias"),
    }


def weights(shapes: Mapping[str, tuple[int, ...]], seed: int = 0) -> dict[str, np.ndarray]:
    """float32 tensors by name, far from the zeros and ones that would hide a mistake."""
    # RandomState's streams are frozen; those of default_rng may change between versions.
    rng = np.random.RandomState(seed)
    drawn = {}
    for name in sorted(shapes):
        shape = shapes[name]
        noise = rng.standard_normal(shape)
        if name == "logit_scale":
            value = np.full(shape, 2.0)
        elif name == "logit_bias":
            value = np.full(shape, -3.0)
        elif "embedding" in name or "conv1" in name:
            # So small that the first LayerNorm's eps is a good part of the variance.
            value = 0.004 * noise
        elif len(shape) > 1:
            value = noise * np.prod(shape[1:]) ** -0.5
        else:
            scales = name.endswith((".gamma", "weight"))  # LayerScale and LayerNorm
            value = 0.2 * noise + (1.0 if scales else 0.0)
        drawn[name] = np.asarray(value, np.float32)
    return drawn


def inputs(model: Mapping, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Images NHWC and int64 token ids, with padding after the end of text."""
    rng = np.random.RandomState(seed)
    size, text = model["vision_cfg"]["image_size"], model["text_cfg"]
    images = rng.standard_normal((_BATCH, size, size, 3)).astype(np.float32)
    tokens = np.zeros((_BATCH, text["context_length"]), np.int64)
    for row, length in enumerate(rng.randint(4, text["context_length"], _BATCH)):
        tokens[row, :length] = rng.randint(1, text["vocab_size"] - 2, length)
        tokens[row, length - 1] = text["vocab_size"] - 1
    return images, tokens


def probe_direction(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """A fixed direction: one inner product with it stands for a whole gradient."""
    seed = sum(map(ord, name)) % 2**31
    return np.random.RandomState(seed).standard_normal(shape)
