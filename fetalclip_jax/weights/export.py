"""Parameters as files that open_clip and Hugging Face transformers load."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from flax import traverse_util

from fetalclip_jax import storage
from fetalclip_jax.models.preprocess import CLIP_MEAN, CLIP_STD
from fetalclip_jax.models.presets import CLIPConfig
from fetalclip_jax.run import write_json
from fetalclip_jax.weights import description, files, safetensors_file, transformers_clip

STYLES = ("open_clip", "transformers")


def export(
    folder: storage.Path, params: Mapping[str, Any], config: CLIPConfig, style: str = "open_clip"
) -> storage.Path:
    """Writes weights and configuration into `folder`, which is made if needed.

    Args:
      folder: gets `open_clip_model.safetensors` and `open_clip_config.json`, or
        `model.safetensors`, `config.json` and `preprocessor_config.json`.
      params: as `CLIP.init` makes them; their data types are kept, but the logit scale and bias
        are written as float32.
      config: the model.
      style: "open_clip" or "transformers".

    Returns:
      The path of the weights.

    Raises:
      ValueError: a model that the other library has no counterpart for; parameters that are NaN or
        infinite; files that are there.
    """
    if style not in STYLES:
        raise ValueError(f"style={style!r} is not one of {', '.join(STYLES)}")
    if config.vision_cfg.global_average_pool:
        raise ValueError(
            "vision_cfg.global_average_pool=True: current open_clip and transformers have no mean "
            "of all tokens; the model cannot be exported"
        )
    # Before anything is written: a model that cannot be exported leaves no folder behind.
    tensors = to_tensors(params, config, style)
    for name in tensors.keys() & {"logit_scale", "logit_bias"}:
        tensors[name] = tensors[name].astype(np.float32)
    _check_finite(folder, tensors)
    weights, model_json = {
        "open_clip": (files.OPEN_CLIP_WEIGHTS[0], description.OPEN_CLIP),
        "transformers": (files.TRANSFORMERS_WEIGHTS[0], description.TRANSFORMERS),
    }[style]
    for name in (weights, model_json, description.PREPROCESSOR):
        if (folder / name).exists():
            raise ValueError(f"{folder / name} is there already; choose another folder")
    folder.mkdir(parents=True, exist_ok=True)
    safetensors_file.save(folder / weights, tensors)
    if style == "open_clip":
        write_json(folder / model_json, _open_clip_json(config))
    else:
        dtype = str(tensors["visual_projection.weight"].dtype)
        write_json(folder / model_json, transformers_clip.config_json(config, dtype))
        write_json(folder / description.PREPROCESSOR, _preprocessor_json(config))
    return folder / weights


def to_tensors(params: Mapping[str, Any], config: CLIPConfig, style: str) -> dict[str, np.ndarray]:
    """The tensors of a file of `style`, by name.

    Raises:
      ValueError: a model that the other library has no counterpart for.
    """
    tensors: dict[str, np.ndarray] = {}
    leaf_path, leaf = None, None
    flat = traverse_util.flatten_dict(dict(params))
    for piece in sorted(files.pieces(style, config), key=lambda piece: piece.path):
        if piece.path != leaf_path:  # one parameter at a time on the host
            leaf_path, leaf = piece.path, np.asarray(flat[piece.path])
        tensor = tensors.get(piece.name)
        if tensor is None:
            tensor = tensors[piece.name] = np.empty(piece.file_shape, leaf.dtype)
        part = piece.to_tensor(leaf[(*piece.place(), ...)])
        if piece.rows is None:
            tensor[...] = part
        else:
            tensor[piece.row : piece.row + len(part)] = part
    return tensors


def _check_finite(folder: storage.Path, tensors: Mapping[str, np.ndarray]) -> None:
    bad = {name: np.count_nonzero(~np.isfinite(tensor)) for name, tensor in tensors.items()}
    bad = {name: count for name, count in bad.items() if count}
    if bad:
        name = next(iter(bad))
        raise ValueError(
            f"{folder}: {sum(bad.values())} values in {len(bad)} tensors are NaN or infinite as "
            f"{tensors[name].dtype}, the first in {name}; nothing was written: export in a wider "
            "data type, or a model of an earlier step"
        )


def _open_clip_json(config: CLIPConfig) -> dict[str, Any]:
    """What open_clip reads: only fields it knows, and of those only what is not its default."""
    vision, text = config.vision_cfg, config.text_cfg
    vision_fields = {
        "image_size": vision.image_size,
        "layers": vision.layers,
        "width": vision.width,
        "head_width": vision.head_width,
        "mlp_ratio": vision.mlp_ratio,
        "patch_size": vision.patch_size,
    }
    text_fields = {
        "context_length": text.context_length,
        "vocab_size": text.vocab_size,
        "width": text.width,
        "heads": text.heads,
        "layers": text.layers,
        "mlp_ratio": text.mlp_ratio,
    }
    for name, value, usual in (
        ("pool_type", vision.pool_type, "tok"),
        ("ls_init_value", vision.ls_init_value, None),
        ("patch_dropout", vision.patch_dropout, 0.0),
    ):
        if value != usual:
            vision_fields[name] = value
    if text.ls_init_value is not None:
        text_fields["ls_init_value"] = text.ls_init_value
    model = {
        "embed_dim": config.embed_dim,
        "vision_cfg": vision_fields,
        "text_cfg": text_fields,
    }
    if config.quick_gelu:
        model["quick_gelu"] = True
    if config.init_logit_bias is not None:
        model["init_logit_bias"] = config.init_logit_bias
    return {
        "model_cfg": model,
        "preprocess_cfg": {
            "mean": CLIP_MEAN.tolist(),
            "std": CLIP_STD.tolist(),
            "interpolation": "bicubic",
            "resize_mode": "longest",  # pads to a square, in black
            "fill_color": 0,
        },
    }


def _preprocessor_json(config: CLIPConfig) -> dict[str, Any]:
    size = config.vision_cfg.image_size
    return {
        "image_processor_type": "CLIPImageProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"shortest_edge": size},
        "resample": 3,
        "do_center_crop": True,
        "crop_size": {"height": size, "width": size},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": CLIP_MEAN.tolist(),
        "image_std": CLIP_STD.tolist(),
    }
