"""A model ready for use: parameters, tokenizer and preprocessing behind four methods."""

import functools
import hashlib
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from fetalclip_jax import tokenizers
from fetalclip_jax.config import load_config
from fetalclip_jax.data import image as images
from fetalclip_jax.experiment import build_model, new_tokenizer
from fetalclip_jax.models import presets
from fetalclip_jax.models.clip import CLIP
from fetalclip_jax.parallel import mesh as meshes
from fetalclip_jax.parallel import sharding
from fetalclip_jax.training import checkpoint, state

CLIP_VOCAB_SIZE = 49408

# Texts are cut to their longest, rounded up to a multiple of this: few compiled lengths.
_LENGTH_STEP = 8


class Bundle:
    """A CLIP with its tokenizer and preprocessing.

    Attributes:
      config: the towers (`models.presets.CLIPConfig`).
      params: float32 parameters.
      tokenizer: ids as the text tower knows them.
      fingerprint: changes when any parameter or the vocabulary does.
    """

    def __init__(self, model: CLIP, params: Any, tokenizer: tokenizers.Tokenizer):
        self.config = model.config
        self._mesh = meshes.make_mesh()
        self.params = jax.device_put(params, sharding.replicated(self._mesh))
        self.tokenizer = tokenizer
        self._encode_image = jax.jit(functools.partial(_apply, model, CLIP.encode_image))
        self._encode_text = jax.jit(functools.partial(_apply, model, CLIP.encode_text))

    def preprocess(self, image) -> Float[np.ndarray, "H W 3"]:
        """A PIL image, path or uint8 array as the image tower sees it (see `data.image`)."""
        return images.preprocess(image, self.config.vision_cfg.image_size)

    def tokenize(self, texts: Sequence[str]) -> Int[np.ndarray, "n context"]:
        return self.tokenizer(texts)

    def encode_image(self, batch: Float[Array, "n H W 3"]) -> Float[np.ndarray, "n embed_dim"]:
        """Projected features, not normalised. Compiles once for every n."""
        return np.asarray(self._encode_image(self.params, self._place(batch)))

    def encode_text(self, tokens: Int[Array, "n context"]) -> Float[np.ndarray, "n embed_dim"]:
        """Projected features, not normalised. Compiles once for every n and length class."""
        tokens = np.asarray(tokens)
        longest = int(tokens.argmax(axis=1).max()) + 1
        length = min(-(-longest // _LENGTH_STEP) * _LENGTH_STEP, tokens.shape[1])
        return np.asarray(self._encode_text(self.params, self._place(tokens[:, :length])))

    def _place(self, batch: np.ndarray) -> jax.Array:
        """Splits a batch over the devices where their number divides it."""
        mesh = self._mesh
        divides = len(batch) % mesh.size == 0
        where = sharding.batch_sharding(mesh) if divides else sharding.replicated(mesh)
        return jax.device_put(batch, where)

    @property
    def logit_scale(self) -> float:
        """The temperature's inverse, already exponentiated."""
        return float(jnp.exp(self.params["logit_scale"]))

    @functools.cached_property
    def fingerprint(self) -> str:
        digest = hashlib.sha256(self.tokenizer.fingerprint.encode())
        for path, leaf in jax.tree_util.tree_leaves_with_path(self.params):
            digest.update(jax.tree_util.keystr(path).encode())
            digest.update(np.ascontiguousarray(leaf))
        return digest.hexdigest()[:16]


def _apply(model: CLIP, method, params, inputs):
    return model.apply({"params": params}, inputs, method=method)


def load(path: str | pathlib.Path, config: Mapping | str | None = None) -> Bundle:
    """Opens the latest checkpoint of a run, or initialises a preset at random.

    Args:
      path: the workdir of a run, or the name of a preset (see `models.presets.PRESETS`).
      config: for a preset only: the fields of an open_clip model JSON, or a preset name, in place
        of the preset's own.

    Raises:
      ValueError: `path` is neither; or a run is given together with `config`.
    """
    workdir = pathlib.Path(path)
    if workdir.is_dir():
        if config is not None:
            raise ValueError(f"{workdir} carries its own configuration; leave config out")
        return _load_run(workdir)
    if str(path) not in presets.PRESETS:
        raise ValueError(
            f"{path} is neither the folder of a trained run nor a preset; presets: "
            f"{', '.join(presets.PRESETS)}"
        )
    if config is None:
        resolved = presets.get(str(path))
    elif isinstance(config, str):
        resolved = presets.get(config)
    else:
        resolved = presets.CLIPConfig.from_dict(config)
    model = CLIP(resolved)
    params = nn.meta.unbox(jax.jit(lambda: state.initial_params(model, jax.random.key(0)))())
    # CLIP's own vocabulary where the model has room for it, as the published models do.
    kind = "clip_bpe" if resolved.text_cfg.vocab_size >= CLIP_VOCAB_SIZE else "sentencepiece"
    return Bundle(model, params, new_tokenizer(kind, resolved.text_cfg))


def _load_run(workdir: pathlib.Path) -> Bundle:
    config = load_config(workdir / "config.json")
    model = build_model(config)
    boxed = jax.eval_shape(lambda: state.initial_params(model, jax.random.key(0)))
    # Encoding needs no optimiser state; each device holds the parameters whole.
    where = sharding.replicated(meshes.make_mesh())
    abstract = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where),
        nn.meta.unbox(boxed),
    )
    params = checkpoint.restore_params(workdir, abstract)
    return Bundle(model, params, tokenizers.load(workdir / "tokenizer"))
