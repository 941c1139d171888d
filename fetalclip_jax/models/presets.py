"""Model configurations: the fields of an open_clip model JSON, and named presets."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any


@dataclasses.dataclass(frozen=True)
class VisionConfig:
    """The image tower, a Vision Transformer.

    Attributes:
      image_size: pixels per side of the square input.
      patch_size: pixels per side of a patch; divides `image_size`.
      width: channels.
      layers: transformer blocks.
      head_width: channels per attention head; divides `width`.
      mlp_ratio: hidden channels of the MLP over `width`.
      stem: "patch" projects every patch on its own, as CLIP does; "conv" is a small
        convolutional network with the same grid of tokens, which learns from far fewer images
        (Xiao et al. 2021, "Early Convolutions Help Transformers See Better") but has no open_clip
        counterpart.
      pool_type: what the feature is read from: "tok", the class token, "avg", the mean of the
        patches, or "grid", a few channels of each patch at its own place. The last has no
        open_clip counterpart; positions and sizes are read from it in a fraction of the steps.
      global_average_pool: the mean of all tokens, class token included, normalised after pooling,
        in place of what `pool_type` says (open_clip before 2.22).
      ls_init_value: first value of a learned scale on each block's two outputs (LayerScale,
        Touvron et al. 2021); None for blocks without.
      patch_dropout: share of the patches left out at random in each training step (Li et al. 2022,
        "Scaling Language-Image Pre-training via Masking"); evaluation sees all.
    """

    image_size: int = 224
    patch_size: int = 16
    width: int = 768
    layers: int = 12
    head_width: int = 64
    mlp_ratio: float | int = 4.0
    stem: str = "patch"
    pool_type: str = "tok"
    global_average_pool: bool = False
    ls_init_value: float | int | None = None
    patch_dropout: float | int = 0.0

    @property
    def heads(self) -> int:
        return self.width // self.head_width

    @property
    def tokens(self) -> int:
        """Patches plus the class token."""
        return (self.image_size // self.patch_size) ** 2 + 1


@dataclasses.dataclass(frozen=True)
class TextConfig:
    """The text tower, a causal transformer pooled at the end-of-text token.

    Attributes:
      ls_init_value: as of the image tower.
      number_ids: (first id, count) of every run of ids that stand for numbers in rising order.
        Their embeddings start out as smooth functions of the number, so that what is learned of
        one age holds for the ages beside it; from noise, each number would have to be learned by
        itself. An initialisation only: the function computed is that of any CLIP.
    """

    context_length: int = 77
    vocab_size: int = 49408
    width: int = 512
    heads: int = 8
    layers: int = 12
    mlp_ratio: float | int = 4.0
    ls_init_value: float | int | None = None
    number_ids: Sequence[Sequence[int]] = ()

    def __post_init__(self):
        # JSON has lists only; a configuration is hashed.
        object.__setattr__(self, "number_ids", tuple(tuple(run) for run in self.number_ids))


@dataclasses.dataclass(frozen=True)
class CLIPConfig:
    """Both towers and the space they share.

    Attributes:
      embed_dim: dimension of the shared space.
      quick_gelu: x * sigmoid(1.702 x) instead of the exact GELU (OpenAI's first weights).
      init_logit_scale: logarithm of the logit scale that training starts from.
      init_logit_bias: what training starts from of the number that the sigmoid loss adds to every
        logit (Zhai et al. 2023, "Sigmoid Loss for Language Image Pre-Training": -10, beside a
        scale of log 10); None for a model without, as of the softmax loss.
    """

    embed_dim: int = 512
    vision_cfg: VisionConfig = dataclasses.field(default_factory=VisionConfig)
    text_cfg: TextConfig = dataclasses.field(default_factory=TextConfig)
    quick_gelu: bool = False
    init_logit_scale: float | int = math.log(1 / 0.07)
    init_logit_bias: float | int | None = None

    def __post_init__(self):
        vision, text = self.vision_cfg, self.text_cfg
        _check_counts("", vars(self))
        _check_counts("vision_cfg.", vars(vision))
        _check_counts("text_cfg.", vars(text))
        _check_logit_numbers(vars(self))
        if vision.pool_type not in ("tok", "avg", "grid"):
            raise ValueError(
                f"vision_cfg.pool_type={vision.pool_type!r} is not one of tok, avg, grid"
            )
        if vision.stem not in ("patch", "conv"):
            raise ValueError(f"vision_cfg.stem={vision.stem!r} is not one of patch, conv")
        if vision.stem == "conv" and vision.patch_size != 16:
            raise ValueError(
                f"vision_cfg.patch_size={vision.patch_size}: the conv stem halves the image four "
                "times, so it makes patches of 16 pixels; set patch_size to 16"
            )
        if vision.patch_dropout and vision.pool_type == "grid":
            raise ValueError(
                f"vision_cfg.patch_dropout={vision.patch_dropout}: pool_type 'grid' reads every "
                "patch at its place; set patch_dropout to 0"
            )
        if not 0 <= vision.patch_dropout < 1:
            raise ValueError(
                f"vision_cfg.patch_dropout={vision.patch_dropout}; use a share from 0 to below 1"
            )
        for name, value, divisor_name, divisor in (
            ("vision_cfg.image_size", vision.image_size, "patch_size", vision.patch_size),
            ("vision_cfg.width", vision.width, "head_width", vision.head_width),
            ("text_cfg.width", text.width, "heads", text.heads),
        ):
            if value % divisor:
                raise ValueError(
                    f"{name}={value} is not a multiple of {divisor_name}={divisor}; change either"
                )

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> "CLIPConfig":
        """Reads the mapping of an open_clip model JSON.

        Fields of other kinds of tower are accepted where they are at the value that leaves them
        out.

        Raises:
          ValueError: a field this model does not have, which would change the function computed.
        """
        return _build(cls, dict(fields), "")

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


_COUNTS = {
    "": ("embed_dim",),
    "vision_cfg.": ("image_size", "patch_size", "width", "layers", "head_width"),
    "text_cfg.": ("context_length", "vocab_size", "width", "layers", "heads"),
}


def _check_counts(prefix: str, fields: Mapping[str, Any]) -> None:
    for name in _COUNTS[prefix]:
        value = fields.get(name, 1)
        if type(value) is not int or value < 1:
            raise ValueError(
                f"{prefix}{name}={value!r} is not a positive whole number; only plain Vision "
                "Transformers of square images and patches are supported"
            )


def _check_logit_numbers(fields: Mapping[str, Any]) -> None:
    for name, absent in (("init_logit_scale", 0.0), ("init_logit_bias", None)):
        value = fields.get(name, absent)
        if value is None and absent is None:
            continue
        if not (isinstance(value, (int, float)) and math.isfinite(value)):
            raise ValueError(f"{name}={value!r} is not a finite number")


_NESTED = {"vision_cfg": VisionConfig, "text_cfg": TextConfig}


# Fields of open_clip that this model does not have, and the values that leave its function alone;
# None: any value, for it says how outputs are handed over or is only read beside another field.
_NEUTRAL: dict[str, tuple | None] = {
    "custom_text": None,
    "cast_dtype": None,
    "output_dict": None,
    "nonscalar_logit_scale": None,  # the scale's shape in the file, [1] or []
    "multimodal_cfg": (None, {}),
    "vision_cfg.attentional_pool": (False, None),
    "vision_cfg.attn_pooler_queries": None,
    "vision_cfg.attn_pooler_heads": None,
    "vision_cfg.no_ln_pre": (False,),
    "vision_cfg.pos_embed_type": ("learnable",),
    "vision_cfg.final_ln_after_pool": (False,),
    "vision_cfg.input_patchnorm": (False,),
    "vision_cfg.output_tokens": None,
    "vision_cfg.act_kwargs": (None, {}),
    "vision_cfg.norm_kwargs": (None, {}),
    "vision_cfg.timm_model_name": (None, ""),
    "text_cfg.hf_model_name": (None, ""),
    "text_cfg.hf_tokenizer_name": (None, ""),
    "text_cfg.tokenizer_kwargs": (None, {}),
    "text_cfg.embed_cls": (False,),
    "text_cfg.pad_id": None,
    "text_cfg.no_causal_mask": (False,),
    "text_cfg.final_ln_after_pool": (False,),
    "text_cfg.pool_type": ("argmax",),
    "text_cfg.proj_bias": (False,),
    "text_cfg.proj_type": ("linear",),
    "text_cfg.output_tokens": None,
    "text_cfg.act_kwargs": (None, {}),
    "text_cfg.norm_kwargs": (None, {}),
    "text_cfg.eos_id": None,
    "text_cfg.tokenizer_mode": (None,),
    **{
        f"{tower}.{name}": values
        for tower in ("vision_cfg", "text_cfg")
        for name, values in {
            "block_type": (None, "default"),
            "qk_norm": (False,),
            "scaled_cosine_attn": (False,),
            "scale_heads": (False,),
            "scale_attn_inner": (False,),
            "scale_attn": (False,),
            "scale_fc": (False,),
        }.items()
    },
    # Read only beside a timm or Hugging Face model, which is refused.
    **dict.fromkeys(
        f"vision_cfg.timm_{name}"
        for name in ("model_pretrained", "pool", "proj", "proj_bias", "drop", "drop_path")
    ),
    **dict.fromkeys(
        f"text_cfg.hf_{name}" for name in ("model_pretrained", "proj_type", "pooler_type")
    ),
}


def _build(cls, fields: dict[str, Any], prefix: str):
    known = {f.name for f in dataclasses.fields(cls)}
    values = {}
    for name, value in fields.items():
        full = prefix + name
        if name in _NESTED:
            if not isinstance(value, Mapping):
                raise ValueError(f"model config: {full}={value!r} is not a mapping of fields")
            values[name] = _build(_NESTED[name], dict(value), f"{name}.")
        elif name in known:
            square = full == "vision_cfg.image_size" and isinstance(value, (list, tuple))
            if square and len(set(value)) == 1:
                value = value[0]
            values[name] = value
        elif full not in _NEUTRAL or not (_NEUTRAL[full] is None or value in _NEUTRAL[full]):
            raise ValueError(
                f"model config: field {full}={value!r} is not supported and would change the "
                f"model; supported here: {', '.join(sorted(known))}"
            )
    _check_counts(prefix, values)  # JSON may hold anything
    _check_logit_numbers(values)
    return cls(**values)


def _small(vision: VisionConfig, text_layers: int, text_width: int = 128) -> CLIPConfig:
    """A from-scratch model for the phantom and for laptops, with a vocabulary of its own."""
    return CLIPConfig(
        embed_dim=192,
        vision_cfg=vision,
        text_cfg=TextConfig(
            context_length=44,
            vocab_size=1024,
            width=text_width,
            heads=text_width // 64,
            layers=text_layers,
            number_ids=((3, 300), (303, 90), (393, 10)),  # tokenizers.sentencepiece.NUMBERS
        ),
        quick_gelu=True,  # the erf of the exact one takes a tenth of a small model's time on a CPU
        # In so short a run the scale hardly moves, and 1 / 0.07 is too low to tell ages apart.
        init_logit_scale=math.log(30.0),
    )


_B_32 = CLIPConfig(embed_dim=512, vision_cfg=VisionConfig(patch_size=32))
_B_16 = CLIPConfig(embed_dim=512)
_L_14 = CLIPConfig(
    embed_dim=768,
    vision_cfg=VisionConfig(patch_size=14, width=1024, layers=24),
    text_cfg=TextConfig(width=768, heads=12),
)
_L_14_336 = dataclasses.replace(
    _L_14, vision_cfg=dataclasses.replace(_L_14.vision_cfg, image_size=336)
)
_CONV_STEM = {"patch_size": 16, "stem": "conv", "pool_type": "grid"}
_SMALL_VISION = {"image_size": 96, **_CONV_STEM}

PRESETS: dict[str, CLIPConfig] = {
    "ViT-Mi-16-96-conv": _small(VisionConfig(width=128, layers=2, **_SMALL_VISION), 2),
    "ViT-Ti-16-96-conv": _small(VisionConfig(width=192, layers=3, **_SMALL_VISION), 3),
    "ViT-S-16-160-conv": _small(
        VisionConfig(image_size=160, width=384, layers=6, **_CONV_STEM), 4, text_width=256
    ),
    # The usual CLIP sizes, under open_clip's names.
    "ViT-B-32": _B_32,
    "ViT-B-32-quickgelu": dataclasses.replace(_B_32, quick_gelu=True),
    "ViT-B-16": _B_16,
    "ViT-B-16-quickgelu": dataclasses.replace(_B_16, quick_gelu=True),
    "ViT-L-14": _L_14,
    "ViT-L-14-quickgelu": dataclasses.replace(_L_14, quick_gelu=True),
    "ViT-L-14-336": _L_14_336,
    "ViT-L-14-336-quickgelu": dataclasses.replace(_L_14_336, quick_gelu=True),
    # FetalCLIP: ViT-L/14 with a context of 117 tokens, 427,647,233 parameters.
    "FetalCLIP": dataclasses.replace(
        _L_14, text_cfg=dataclasses.replace(_L_14.text_cfg, context_length=117)
    ),
}


def get(name: str) -> CLIPConfig:
    """Looks a preset up by name.

    Raises:
      ValueError: for an unknown name; lists the known ones.
    """
    if name not in PRESETS:
        raise ValueError(f"unknown model preset {name!r}; known: {', '.join(PRESETS)}")
    return PRESETS[name]
