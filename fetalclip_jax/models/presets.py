"""Model configurations: the fields of an open_clip model JSON, and named presets."""

import dataclasses
import math
from collections.abc import Mapping
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
    """

    image_size: int = 224
    patch_size: int = 16
    width: int = 768
    layers: int = 12
    head_width: int = 64
    mlp_ratio: float = 4.0
    stem: str = "patch"
    pool_type: str = "tok"

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
    mlp_ratio: float = 4.0
    number_ids: tuple[tuple[int, int], ...] = ()

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
    """

    embed_dim: int = 512
    vision_cfg: VisionConfig = dataclasses.field(default_factory=VisionConfig)
    text_cfg: TextConfig = dataclasses.field(default_factory=TextConfig)
    quick_gelu: bool = False
    init_logit_scale: float = math.log(1 / 0.07)

    def __post_init__(self):
        vision, text = self.vision_cfg, self.text_cfg
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

        Raises:
          ValueError: a field this model does not have; it would change the function computed.
        """
        return _build(cls, dict(fields), "")

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


_NESTED = {"vision_cfg": VisionConfig, "text_cfg": TextConfig}


def _build(cls, fields: dict[str, Any], prefix: str):
    known = {f.name for f in dataclasses.fields(cls)}
    for name in fields:
        if name not in known:
            raise ValueError(
                f"model config: field {prefix}{name}={fields[name]!r} is not supported; "
                f"supported here: {', '.join(sorted(known))}"
            )
    values = {
        name: _build(_NESTED[name], dict(value), f"{name}.") if name in _NESTED else value
        for name, value in fields.items()
    }
    return cls(**values)


def _small(vision: VisionConfig, text_layers: int) -> CLIPConfig:
    """A from-scratch model for the phantom and for laptops, with a vocabulary of its own."""
    return CLIPConfig(
        embed_dim=192,
        vision_cfg=vision,
        text_cfg=TextConfig(
            context_length=44,
            vocab_size=1024,
            width=128,
            heads=2,
            layers=text_layers,
            number_ids=((3, 300), (303, 90), (393, 10)),  # tokenizers.sentencepiece.NUMBERS
        ),
        quick_gelu=True,  # the erf of the exact one takes a tenth of a small model's time on a CPU
        # In so short a run the scale hardly moves, and 1 / 0.07 is too low to tell ages apart.
        init_logit_scale=math.log(30.0),
    )


_SMALL_VISION = {"image_size": 96, "patch_size": 16, "stem": "conv", "pool_type": "grid"}

PRESETS: dict[str, CLIPConfig] = {
    "ViT-Mi-16-96-conv": _small(VisionConfig(width=128, layers=2, **_SMALL_VISION), 2),
    "ViT-Ti-16-96-conv": _small(VisionConfig(width=192, layers=3, **_SMALL_VISION), 3),
    # The usual CLIP sizes.
    "ViT-B-32": CLIPConfig(embed_dim=512, vision_cfg=VisionConfig(patch_size=32)),
    "ViT-B-16": CLIPConfig(embed_dim=512),
    "ViT-L-14": CLIPConfig(
        embed_dim=768,
        vision_cfg=VisionConfig(patch_size=14, width=1024, layers=24),
        text_cfg=TextConfig(width=768, heads=12),
    ),
    # FetalCLIP: ViT-L/14 with a context of 117 tokens, 427,647,233 parameters.
    "FetalCLIP": CLIPConfig(
        embed_dim=768,
        vision_cfg=VisionConfig(patch_size=14, width=1024, layers=24),
        text_cfg=TextConfig(context_length=117, width=768, heads=12),
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
