"""Tensor names and layouts of open_clip's CLIP (OpenAI's are the same)."""

from fetalclip_jax.models.presets import CLIPConfig
from fetalclip_jax.weights.blocks import BlockNames, blocks
from fetalclip_jax.weights.layout import Piece, norm, whole

_BLOCK = BlockNames(
    ln_1="ln_1.",
    qkv=("attn.in_proj_",) * 3,
    out="attn.out_proj.",
    ln_2="ln_2.",
    mlp_in="mlp.c_fc.",
    mlp_out="mlp.c_proj.",
    scales=("ls_1.gamma", "ls_2.gamma"),
)


def pieces(config: CLIPConfig) -> list[Piece]:
    """Where every number of a model lies in an open_clip file, in the file's usual order.

    Raises:
      ValueError: a field of `config` that open_clip has no counterpart for.
    """
    check_plain(config)
    vision, text, joint = config.vision_cfg, config.text_cfg, config.embed_dim
    size = vision.patch_size
    return [
        whole(
            "positional_embedding",
            ("text", "positional_embedding"),
            (text.context_length, text.width),
        ),
        whole("text_projection", ("text", "projection"), (text.width, joint)),
        whole("logit_scale", ("logit_scale",), ()),
        *([] if config.init_logit_bias is None else [whole("logit_bias", ("logit_bias",), ())]),
        whole("visual.class_embedding", ("visual", "class_embedding"), (vision.width,)),
        whole(
            "visual.positional_embedding",
            ("visual", "positional_embedding"),
            (vision.tokens, vision.width),
        ),
        whole("visual.proj", ("visual", "projection"), (vision.width, joint)),
        Piece(
            "visual.conv1.weight",
            ("visual", "patch_embedding", "kernel"),
            (size, size, 3, vision.width),
            ((3,), (2,), (0,), (1,)),
        ),
        *norm("visual.ln_pre.", ("visual", "ln_pre"), vision.width),
        *blocks("visual.transformer.resblocks", "visual", vision, _BLOCK),
        *norm("visual.ln_post.", ("visual", "ln_post"), vision.width),
        *blocks("transformer.resblocks", "text", text, _BLOCK),
        whole("token_embedding.weight", ("text", "token_embedding"), (text.vocab_size, text.width)),
        *norm("ln_final.", ("text", "ln_final"), text.width),
    ]


def check_plain(config: CLIPConfig) -> None:
    """Refuses a model that only exists here.

    Raises:
      ValueError: names the field.
    """
    vision = config.vision_cfg
    for name, value, plain in (("stem", vision.stem, "patch"), ("pool_type", vision.pool_type, "")):
        if (value != plain) if plain else value == "grid":
            raise ValueError(
                f"vision_cfg.{name}={value!r} has no counterpart in open_clip or transformers; "
                "only plain Vision Transformers (stem 'patch', pool_type 'tok' or 'avg') can be "
                "imported or exported"
            )
