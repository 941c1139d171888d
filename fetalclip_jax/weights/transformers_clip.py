"""Tensor names, layouts and configuration of a `CLIPModel` folder of Hugging Face transformers."""

import math
from collections.abc import Mapping
from typing import Any

from fetalclip_jax.models.presets import CLIPConfig, TextConfig, VisionConfig
from fetalclip_jax.weights.blocks import BlockNames, blocks
from fetalclip_jax.weights.layout import Piece, norm, transposed, whole
from fetalclip_jax.weights.open_clip import check_plain

# Buffers that older versions wrote: 0, 1, 2, ... for every position.
IGNORED = ("vision_model.embeddings.position_ids", "text_model.embeddings.position_ids")

_BLOCK = BlockNames(
    ln_1="layer_norm1.",
    qkv=("self_attn.q_proj.", "self_attn.k_proj.", "self_attn.v_proj."),
    out="self_attn.out_proj.",
    ln_2="layer_norm2.",
    mlp_in="mlp.fc1.",
    mlp_out="mlp.fc2.",
)
_ACTIVATIONS = {"gelu": False, "quick_gelu": True}


def pieces(config: CLIPConfig) -> list[Piece]:
    """Where every number of a model lies in a `CLIPModel`'s state.

    Raises:
      ValueError: a field of `config` that a `CLIPModel` has no counterpart for.
    """
    check_exportable(config)
    vision, text, joint = config.vision_cfg, config.text_cfg, config.embed_dim
    size = vision.patch_size
    images, texts = "vision_model.embeddings", "text_model.embeddings"
    return [
        whole("logit_scale", ("logit_scale",), ()),
        whole(
            f"{texts}.token_embedding.weight",
            ("text", "token_embedding"),
            (text.vocab_size, text.width),
        ),
        whole(
            f"{texts}.position_embedding.weight",
            ("text", "positional_embedding"),
            (text.context_length, text.width),
        ),
        *blocks("text_model.encoder.layers", "text", text, _BLOCK),
        *norm("text_model.final_layer_norm.", ("text", "ln_final"), text.width),
        whole(f"{images}.class_embedding", ("visual", "class_embedding"), (vision.width,)),
        Piece(
            f"{images}.patch_embedding.weight",
            ("visual", "patch_embedding", "kernel"),
            (size, size, 3, vision.width),
            ((3,), (2,), (0,), (1,)),
        ),
        whole(
            f"{images}.position_embedding.weight",
            ("visual", "positional_embedding"),
            (vision.tokens, vision.width),
        ),
        # The misspelling is the format's.
        *norm("vision_model.pre_layrnorm.", ("visual", "ln_pre"), vision.width),
        *blocks("vision_model.encoder.layers", "visual", vision, _BLOCK),
        *norm("vision_model.post_layernorm.", ("visual", "ln_post"), vision.width),
        transposed("visual_projection.weight", ("visual", "projection"), (vision.width, joint)),
        transposed("text_projection.weight", ("text", "projection"), (text.width, joint)),
    ]


def check_exportable(config: CLIPConfig) -> None:
    """Refuses a model that a `CLIPModel` cannot be.

    Raises:
      ValueError: names the field.
    """
    check_plain(config)
    vision, text = config.vision_cfg, config.text_cfg
    for name, value, plain in (
        ("vision_cfg.pool_type", vision.pool_type, "tok"),
        ("vision_cfg.global_average_pool", vision.global_average_pool, False),
        ("vision_cfg.ls_init_value", vision.ls_init_value, None),
        ("text_cfg.ls_init_value", text.ls_init_value, None),
        ("init_logit_bias", config.init_logit_bias, None),
    ):
        if value != plain:
            raise ValueError(
                f"{name}={value!r} has no counterpart in transformers' CLIPModel; export to "
                "open_clip instead"
            )


def model_config(fields: Mapping[str, Any]) -> CLIPConfig:
    """Our configuration of the model that a `config.json` describes.

    Raises:
      ValueError: another kind of model, or a field this model does not have.
    """
    if fields.get("model_type") != "clip":
        raise ValueError(f"model_type is {fields.get('model_type')!r}, expected 'clip'")
    for name in ("vision_config_dict", "text_config_dict"):
        if fields.get(name):
            raise ValueError(
                f"{name} overrides fields of {name.removesuffix('_dict')}; load it with "
                "transformers and save_pretrained it again"
            )
    vision, text = dict(fields.get("vision_config") or {}), dict(fields.get("text_config") or {})
    largest = text.get("vocab_size", 49408) - 1
    # 2 is the format's old default, which transformers takes for the largest id.
    if text.get("eos_token_id", 2) not in (2, largest):
        raise ValueError(
            f"text_config.eos_token_id={text['eos_token_id']!r} is not the largest id, {largest}, "
            "where this model reads the text"
        )
    for name, tower in (("vision_config", vision), ("text_config", text)):
        if tower.get("layer_norm_eps", 1e-5) != 1e-5:
            raise ValueError(f"{name}.layer_norm_eps={tower['layer_norm_eps']!r}, expected 1e-05")
        if tower.get("hidden_act", "quick_gelu") not in _ACTIVATIONS:
            raise ValueError(
                f"{name}.hidden_act={tower['hidden_act']!r} is not one of {list(_ACTIVATIONS)}"
            )
    activations = {tower.get("hidden_act", "quick_gelu") for tower in (vision, text)}
    if len(activations) > 1:
        raise ValueError("the towers have different values of hidden_act; this model has one")
    if vision.get("num_channels", 3) != 3:
        raise ValueError(f"vision_config.num_channels={vision['num_channels']!r}, expected 3")
    # What a field that is left out means, by the format's definition.
    width, hidden = vision.get("hidden_size", 768), vision.get("intermediate_size", 3072)
    text_width, text_hidden = text.get("hidden_size", 512), text.get("intermediate_size", 2048)
    return CLIPConfig(
        embed_dim=fields.get("projection_dim", 512),
        vision_cfg=VisionConfig(
            image_size=vision.get("image_size", 224),
            patch_size=vision.get("patch_size", 32),
            width=width,
            layers=vision.get("num_hidden_layers", 12),
            head_width=width // vision.get("num_attention_heads", 12),
            mlp_ratio=_ratio(hidden, width),
        ),
        text_cfg=TextConfig(
            context_length=text.get("max_position_embeddings", 77),
            vocab_size=text.get("vocab_size", 49408),
            width=text_width,
            heads=text.get("num_attention_heads", 8),
            layers=text.get("num_hidden_layers", 12),
            mlp_ratio=_ratio(text_hidden, text_width),
        ),
        quick_gelu=_ACTIVATIONS[activations.pop()],
        init_logit_scale=fields.get("logit_scale_init_value", 2.6592),
    )


def _ratio(hidden: int, width: int) -> float:
    """The ratio whose product with `width`, rounded down, is `hidden`."""
    ratio = hidden / width
    return ratio if int(width * ratio) == hidden else math.nextafter(ratio, math.inf)


def config_json(config: CLIPConfig, dtype: str) -> dict[str, Any]:
    """The `config.json` that makes transformers build the same function."""
    vision, text = config.vision_cfg, config.text_cfg
    shared = {
        "hidden_act": "quick_gelu" if config.quick_gelu else "gelu",
        "layer_norm_eps": 1e-5,
        "projection_dim": config.embed_dim,
        "attention_dropout": 0.0,
    }
    return {
        "architectures": ["CLIPModel"],
        "model_type": "clip",
        "projection_dim": config.embed_dim,
        "logit_scale_init_value": config.init_logit_scale,
        "dtype": dtype,
        "vision_config": {
            "model_type": "clip_vision_model",
            "image_size": vision.image_size,
            "patch_size": vision.patch_size,
            "num_channels": 3,
            "hidden_size": vision.width,
            "intermediate_size": int(vision.width * vision.mlp_ratio),
            "num_attention_heads": vision.heads,
            "num_hidden_layers": vision.layers,
            **shared,
        },
        "text_config": {
            "model_type": "clip_text_model",
            "max_position_embeddings": text.context_length,
            "vocab_size": text.vocab_size,
            "hidden_size": text.width,
            "intermediate_size": int(text.width * text.mlp_ratio),
            "num_attention_heads": text.heads,
            "num_hidden_layers": text.layers,
            # transformers reads the text where this id first stands; the largest id here as there.
            "bos_token_id": text.vocab_size - 2,
            "eos_token_id": text.vocab_size - 1,
            "pad_token_id": 0,
            **shared,
        },
    }
