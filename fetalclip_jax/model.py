"""A model ready for use: parameters, tokenizer and preprocessing behind four methods."""

import copy
import functools
import hashlib
import json
import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, UInt8
from ml_collections import ConfigDict

from fetalclip_jax import storage, tokenizers
from fetalclip_jax.config import default_config, save_config
from fetalclip_jax.models import preprocess as images
from fetalclip_jax.models import presets, test_time
from fetalclip_jax.models.clip import CLIP
from fetalclip_jax.parallel import mesh as meshes
from fetalclip_jax.parallel import sharding
from fetalclip_jax.run import Run, whole_folder
from fetalclip_jax.tokenizers.clip_bpe import ClipBPETokenizer
from fetalclip_jax.tokenizers.protocol import check_texts
from fetalclip_jax.training import checkpoint, saved, state
from fetalclip_jax.weights import export, files, opening
from fetalclip_jax.weights import params as weights

# Texts are cut to their longest, rounded up to a multiple of this: few compiled lengths.
_LENGTH_STEP = 8

# Normalised pixels end at about 2.2; what lies far beyond was never normalised.
_LARGEST_PIXEL = 5.0


class Model:
    """A CLIP with its tokenizer and preprocessing.

    In a job of several processes all make the same calls with the same whole arguments; their
    devices share the work, and each process gets the whole answer.

    Attributes:
      config: the towers (`models.presets.CLIPConfig`).
      params: parameters, float32 unless others were asked for or came with the file.
      tokenizer: ids as the text tower knows them.
      module: the Flax module of these parameters, for programs of their own (gradients, blocks).
      fingerprint: changes when any parameter, the vocabulary or the function computed does.
      data: `config.data` of the run that trained it; None for other weights.
      test_time_views: views of an image that its feature is the mean of; see `models.test_time`.
    """

    def __init__(
        self,
        model: CLIP,
        params: Any,
        tokenizer: tokenizers.Tokenizer,
        data: ConfigDict | None = None,
    ):
        """Puts parameters on all devices.

        Raises:
          ValueError: a tokenizer of another vocabulary or context length than the model.
        """
        tokenizers.check_fits(tokenizer, model.config.text_cfg)
        self.config = model.config
        self.module = model
        self._dtype = model.dtype
        self._mesh = meshes.make_mesh()
        self.params = sharding.place(params, self.whole)
        self.tokenizer = tokenizer
        self.data = data
        self._average_views(1)
        jit = functools.partial(jax.jit, out_shardings=self.whole)
        self._encode_text = jit(functools.partial(_texts, model))
        self._encode_patches = jit(functools.partial(_patches, model), static_argnames="taps")

    def with_params(self, params: Any) -> "Model":
        """The same model of other parameters; what was compiled for this one serves it too."""
        other = copy.copy(self)
        other.params = jax.device_put(params, self.whole)
        other.__dict__.pop("fingerprint", None)  # that of these parameters
        return other

    def with_test_time_views(self, views: int) -> "Model":
        """The same parameters; an image's feature is the mean of those of some views of it.

        Args:
          views: 1 for images as they are, or an even number: turned by up to 8 degrees, half of
            them mirrored. Encoding takes as many times as long.

        Raises:
          ValueError: another number.
        """
        test_time.check(views)
        other = copy.copy(self)
        other._average_views(views)
        other.__dict__.pop("fingerprint", None)  # that of another function
        return other

    def _average_views(self, views: int) -> None:
        self.test_time_views = views
        jit = functools.partial(jax.jit, out_shardings=self.whole)
        self._encode_image = jit(functools.partial(_images, self.module, views))
        self._encode_pixels = jit(functools.partial(_pixels, self.module, views))

    def preprocess(self, image) -> Float[np.ndarray, "H W 3"]:
        """A PIL image, path or uint8 array as the image tower sees it (see `models.preprocess`)."""
        return images.preprocess(image, self.config.vision_cfg.image_size)

    def tokenize(self, texts: Sequence[str]) -> Int[np.ndarray, "n context"]:
        """Token ids; a text that is longer than the context is cut.

        Raises:
          ValueError: no list of strings.
        Warns:
          UserWarning: texts were cut; how many, and the first of them.
        """
        texts = check_texts(texts)
        tokens = self.tokenizer(texts)
        # Only rows that are full to the end can have been cut.
        full = np.flatnonzero(tokens[:, -1] == self.tokenizer.eot_id)
        room = self.tokenizer.context_length - 2
        cut = [texts[i] for i in full if len(self.tokenizer.encode([texts[i]])[0]) > room]
        if cut:
            warnings.warn(
                f"{len(cut)} of {len(texts)} texts are longer than the model's "
                f"{self.tokenizer.context_length} tokens and were cut, first: {cut[0][:80]!r}",
                stacklevel=2,
            )
        return tokens

    def encode_image(
        self, batch: Float[Array, "n H W 3"] | Float[np.ndarray, "n H W 3"]
    ) -> Float[np.ndarray, "n embed_dim"]:
        """Projected features, not normalised. Compiles once for every n.

        Raises:
          ValueError: no array of `preprocess`ed images, or features that are not finite.
        """
        batch = self._checked_images(batch)
        return _finite(self._encode_image(self.params, self.place(batch)), "images")

    def encode_pixels(
        self, batch: UInt8[np.ndarray, "n H W"] | UInt8[np.ndarray, "n H W 3"]
    ) -> Float[np.ndarray, "n embed_dim"]:
        """`encode_image` of uint8 pixels of the model's size, normalised on the device.

        Raises:
          ValueError: features that are not finite.
        """
        return _finite(self._encode_pixels(self.params, self.place(batch)), "images")

    def encode_patches(
        self,
        batch: UInt8[np.ndarray, "n H W"] | UInt8[np.ndarray, "n H W 3"],
        taps: Sequence[int],
    ) -> Float[np.ndarray, "n taps g g d"]:
        """What blocks of the image tower make of each patch, the class token left out.

        Args:
          batch: pixels of the model's size, normalised on the device.
          taps: numbers of transformer blocks, the first being 1; one may occur twice.

        Raises:
          ValueError: a tap that is no block, outputs that are not finite, or a model of several
            test-time views.
        """
        self.check_one_view("a patch")
        found = self._encode_patches(self.params, self.place(batch), taps=tuple(taps))
        flat = _finite(found.reshape(len(batch), -1), "images")
        return flat.reshape(found.shape)

    def encode_text(
        self, tokens: Int[Array, "n context"] | Int[np.ndarray, "n context"]
    ) -> Float[np.ndarray, "n embed_dim"]:
        """Projected features, not normalised. Compiles once for every n and length class.

        Raises:
          ValueError: no rows of ids, ids that the model does not know, or features that are not
            finite.
        """
        tokens = np.asarray(tokens)
        if tokens.ndim != 2 or tokens.shape[0] == 0 or tokens.dtype.kind not in "iu":
            raise ValueError(
                f"tokens are {tokens.dtype} {list(tokens.shape)}; pass what `tokenize` gives, "
                "int32 [n, context] of at least one text"
            )
        known = self.config.text_cfg.vocab_size
        if tokens.size and not (tokens.min() >= 0 and tokens.max() < known):
            raise ValueError(
                f"token ids run from {tokens.min()} to {tokens.max()}, the model knows 0 to "
                f"{known - 1}; use the tokenizer that belongs to it"
            )
        longest = int(tokens.argmax(axis=1).max()) + 1
        length = min(-(-longest // _LENGTH_STEP) * _LENGTH_STEP, tokens.shape[1])
        features = self._encode_text(self.params, self.place(tokens[:, :length]))
        return _finite(features, "texts")

    def check_one_view(self, what: str) -> None:
        """Raises ValueError where a feature is the mean of several views: `what` is of one."""
        if self.test_time_views > 1:
            raise ValueError(
                f"{what} is of one view of an image, and a feature of this model the mean of "
                f"{self.test_time_views}; open it with test_time_views=1"
            )

    def _checked_images(self, batch):
        size = self.config.vision_cfg.image_size
        wanted = f"pass float32 [n, {size}, {size}, 3] as `preprocess` makes them"
        if not isinstance(batch, (np.ndarray, jax.Array)):
            batch = np.asarray(batch)
        if not jnp.issubdtype(batch.dtype, jnp.floating) or batch.ndim != 4 or not len(batch):
            raise ValueError(f"images are {batch.dtype} {list(batch.shape)}; {wanted}")
        low, high = float(batch.min()), float(batch.max())
        if not (low >= -_LARGEST_PIXEL and high <= _LARGEST_PIXEL):
            raise ValueError(
                f"pixels run from {low:g} to {high:g}, normalised ones from about -1.8 to 2.2; "
                f"{wanted}"
            )
        return batch

    def save(self, workdir: str | storage.Path) -> None:
        """Writes the model as a run: every program here opens it, training can start from it.

        Raises:
          ValueError: `workdir` holds a run already.
        """
        run = Run(workdir)
        if run.config.exists() or run.checkpoints.exists():
            raise ValueError(f"{run.workdir} holds a run already; choose another folder")
        config = default_config()
        with config.unlocked():
            config.model = self.config.to_dict()
        config.data.source = ""  # not known: it was not trained here
        bpe = isinstance(self.tokenizer, ClipBPETokenizer)
        config.tokenizer.kind = "clip_bpe" if bpe else "sentencepiece"
        save_config(config, run.config)
        with whole_folder(run.tokenizer, tokenizers.FILE_NAME) as folder:
            self.tokenizer.save(folder)
        checkpoint.save_params(run.workdir, self.params)

    def export(self, folder: str | storage.Path, style: str = "open_clip") -> storage.Path:
        """Writes weights and configuration for "open_clip" or "transformers".

        A vocabulary that is not CLIP's own is written too, as `tokenizer/`.

        Raises:
          ValueError: a model without a counterpart there, or files that are there already.
        """
        folder = storage.path(folder)
        if (folder / "tokenizer").exists():
            raise ValueError(f"{folder / 'tokenizer'} is there already; choose another folder")
        path = export.export(folder, self.params, self.config, style)
        if not isinstance(self.tokenizer, ClipBPETokenizer):
            self.tokenizer.save(folder / "tokenizer")
        return path

    def place(self, batch: np.ndarray) -> jax.Array:
        """Splits a batch over the devices where their number divides it."""
        mesh = self._mesh
        divides = len(batch) % mesh.size == 0
        where = sharding.batch_sharding(mesh) if divides else sharding.replicated(mesh)
        return sharding.place(batch, where)

    @property
    def whole(self) -> jax.sharding.Sharding:
        """Of results that each process gets, whichever devices made them."""
        return sharding.replicated(self._mesh)

    @property
    def logit_scale(self) -> float:
        """The temperature's inverse, already exponentiated."""
        return float(jnp.exp(self.params["logit_scale"].astype(jnp.float32)))

    @property
    def logit_bias(self) -> float:
        """What is added to scaled similarities; 0 of models trained by the softmax loss."""
        return float(self.params.get("logit_bias", 0.0))

    @functools.cached_property
    def fingerprint(self) -> str:
        digest = hashlib.sha256(self.tokenizer.fingerprint.encode())
        # The same parameters are another function under another activation, pooling or precision.
        function = [self.config.to_dict(), jnp.dtype(self._dtype).name]
        if self.test_time_views > 1:
            function += [self.test_time_views, test_time.LARGEST_DEGREES]
        digest.update(json.dumps(function, sort_keys=True).encode())
        for path, leaf in jax.tree_util.tree_leaves_with_path(self.params):
            digest.update(jax.tree_util.keystr(path).encode())
            digest.update(np.ascontiguousarray(leaf))
        return digest.hexdigest()[:16]


def _images(model: CLIP, views: int, params, images):
    encode = functools.partial(model.apply, {"params": params}, method=CLIP.encode_image)
    return test_time.mean_of_views(encode, images, views)


def _pixels(model: CLIP, views: int, params, pixels):
    return _images(model, views, params, images.normalise(pixels))


def _texts(model: CLIP, params, tokens):
    return model.apply({"params": params}, tokens, method=CLIP.encode_text)


def _patches(model: CLIP, params, pixels, *, taps):
    _, outputs = model.apply(
        {"params": params}, images.normalise(pixels), taps, method=CLIP.encode_image
    )
    tokens = jnp.stack([one[:, 1:] for one in outputs], axis=1).astype(jnp.float32)
    side = math.isqrt(tokens.shape[2])
    return tokens.reshape(*tokens.shape[:2], side, side, -1)  # B taps G G W


def _finite(features: jax.Array, what: str) -> np.ndarray:
    """The features on the host; refuses what would otherwise look like an answer."""
    features = np.asarray(features)
    bad = ~np.isfinite(features).all(axis=1)
    if bad.any():
        raise ValueError(
            f"the features of {bad.sum()} of {len(bad)} {what} are nan or infinite, first that of "
            f"number {bad.argmax()}: the parameters are not finite or overflow the compute type"
        )
    return features


def load(
    path: str | storage.Path,
    config: presets.CLIPConfig | Mapping | str | storage.Path | None = None,
    *,
    tokenizer: str | storage.Path | None = None,
    dtype: str | None = None,
    param_dtype: str | None = None,
    resize_positions: bool = False,
    test_time_views: int = 1,
) -> Model:
    """Opens a trained run, the weights of another library, or a preset with random parameters.

    Args:
      path: the workdir of a run, for its newest checkpoint, or `WORKDIR/checkpoints/STEP` for
        another, or `WORKDIR/checkpoints/best` for the one judged best in validation; a `.pt` or
        `.safetensors` file with open_clip's or transformers' names; a folder of either library;
        or the name of a preset (`models.presets.PRESETS`).
      config: the model, for files that do not say it: a preset's name, the path of an open_clip
        model JSON, or its fields.
      tokenizer: a folder that a tokenizer was saved to, or a SentencePiece `.model` file; None for
        the one beside the weights, else CLIP's own vocabulary.
      dtype: what matrix products compute in, "float32" or "bfloat16"; None for that of the run,
        float32 elsewhere.
      param_dtype: what parameters are kept in, all but the logit scale and bias, which are then
        float32; None for what the file holds.
      resize_positions: fit the positional embeddings to the image size and context length of
        `config`, as open_clip does, where the file has others.
      test_time_views: see `Model.with_test_time_views`.

    Raises:
      ValueError: none of these; a `config` for a path that carries its own; tensors that do not
        fit the model, all listed; a tokenizer of another vocabulary.
    """
    test_time.check(test_time_views)  # before a large file is read
    opened = _open(
        storage.path(path), config, tokenizer, dtype, param_dtype, resize_positions=resize_positions
    )
    return opened.with_test_time_views(test_time_views)


def _open(path, config, tokenizer, dtype, param_dtype, *, resize_positions) -> Model:
    run = saved.find(path)
    if run is not None or not (path.exists() or path.suffix):
        if run is not None:
            for name, value in (("config", config), ("tokenizer", tokenizer)):
                if value is not None:
                    raise ValueError(f"{run.workdir} carries its own {name}; leave {name} out")
        if resize_positions:
            raise ValueError(f"{path} is no file of weights; leave resize_positions out")
        if run is not None:
            return _load_run(run, dtype, param_dtype)
        return _random(str(path), config, tokenizer, dtype, param_dtype)
    file = files.open_weights(path)
    resolved = opening.resolve(file, config)
    if resize_positions:
        file = weights.with_resized_positions(file, resolved)
    model = CLIP(resolved, dtype=_dtype("dtype", dtype) or jnp.float32)
    where = sharding.replicated(meshes.make_mesh())
    params = weights.read_params(file, resolved, where, _dtype("param_dtype", param_dtype))
    return Model(model, params, opening.tokenizer(path, resolved, tokenizer))


def _random(name: str, config, tokenizer, dtype, param_dtype) -> Model:
    if name not in presets.PRESETS:
        raise ValueError(
            f"{name} is neither a trained run, nor a file or folder of weights, nor a preset; "
            f"presets: {', '.join(presets.PRESETS)}"
        )
    resolved = files.resolve_config(name if config is None else config)
    model = CLIP(resolved, dtype=_dtype("dtype", dtype) or jnp.float32)
    params = nn.meta.unbox(jax.jit(lambda: state.initial_params(model, jax.random.key(0)))())
    params = _cast(params, param_dtype, name)
    if tokenizer is not None:
        return Model(model, params, opening.tokenizer(storage.path(name), resolved, tokenizer))
    # CLIP's own vocabulary where the model has room for it, as the published models do.
    has_room = resolved.text_cfg.vocab_size >= opening.CLIP_VOCAB_SIZE
    kind = "clip_bpe" if has_room else "sentencepiece"
    return Model(model, params, tokenizers.new(kind, resolved.text_cfg))


def _load_run(run: saved.Saved, dtype, param_dtype) -> Model:
    # Encoding needs no optimiser state; each device holds the parameters whole.
    model, params, _ = run.read(meshes.make_mesh())
    if dtype is not None:
        model = model.clone(dtype=_dtype("dtype", dtype))
    # Cast afterwards: what overflows a data type is no sign of a damaged checkpoint.
    params = _cast(params, param_dtype, str(run.workdir))
    return Model(model, params, run.tokenizer, run.config.data)


def _cast(params: dict[str, Any], param_dtype: str | None, name: str) -> dict[str, Any]:
    """Parameters in another data type; logit scale and bias stay float32, as from a file.

    Raises:
      ValueError: a number that the data type cannot hold.
    """
    kept = _dtype("param_dtype", param_dtype)
    if kept is None:
        return params
    cast = jax.tree.map(lambda leaf: leaf.astype(kept), params)
    for path, leaf in jax.tree_util.tree_leaves_with_path(cast):
        if not bool(jnp.isfinite(leaf).all()):
            raise ValueError(
                f"{name}: {jax.tree_util.keystr(path)} holds numbers beyond {param_dtype}, whose "
                f"largest is {float(jnp.finfo(kept).max):g}; keep float32 or bfloat16"
            )
    return cast | {name: params[name] for name in ("logit_scale", "logit_bias") if name in params}


def _dtype(name: str, value: str | None):
    known = {None: None, "float32": jnp.float32, "bfloat16": jnp.bfloat16, "float16": jnp.float16}
    if value not in known:
        raise ValueError(f"{name}={value!r} is not one of float32, bfloat16, float16")
    return known[value]
