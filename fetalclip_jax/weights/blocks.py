"""The transformer blocks of a tower, under the names of a file format."""

import dataclasses

from fetalclip_jax.models.presets import TextConfig, VisionConfig
from fetalclip_jax.weights.layout import Piece, norm, transposed, whole


@dataclasses.dataclass(frozen=True)
class BlockNames:
    """What a format calls the parts of a block, up to where "weight" and "bias" begin.

    Attributes:
      ln_1, out, ln_2, mlp_in, mlp_out: as in `models.transformer.Block`.
      qkv: queries, keys and values; thrice the same name where they are the thirds of one tensor.
      scales: both LayerScales, whole names.
    """

    ln_1: str
    qkv: tuple[str, str, str]
    out: str
    ln_2: str
    mlp_in: str
    mlp_out: str
    scales: tuple[str, str] = ("", "")


def blocks(
    prefix: str, tower: str, config: VisionConfig | TextConfig, names: BlockNames
) -> list[Piece]:
    """Every layer of the tower `tower` ("visual" or "text"); layer i is called `prefix`.i."""
    return [
        piece
        for layer in range(config.layers)
        for piece in _block(f"{prefix}.{layer}.", tower, config, names, layer)
    ]


def _block(prefix: str, tower: str, config, names: BlockNames, layer: int) -> list[Piece]:
    width, heads, at = config.width, config.heads, (layer,)
    head_width, hidden = width // heads, int(width * config.mlp_ratio)
    path = (tower, "transformer", "blocks")
    qkv, out = (*path, "attention", "qkv"), (*path, "attention", "out")
    found = norm(prefix + names.ln_1, (*path, "ln_1"), width, at)
    joint = len(set(names.qkv)) == 1
    for part, name in enumerate(names.qkv):
        rows = {"row": part * width, "rows": 3 * width} if joint else {}
        kernel = (width, heads, head_width)
        found += [
            Piece(
                f"{prefix}{name}weight",
                (*qkv, "kernel"),
                kernel,
                ((1, 2), (0,)),
                at,
                select=(1, part),
                **rows,
            ),
            Piece(
                f"{prefix}{name}bias",
                (*qkv, "bias"),
                kernel[1:],
                ((0, 1),),
                at,
                select=(0, part),
                **rows,
            ),
        ]
    found += [
        Piece(
            f"{prefix}{names.out}weight",
            (*out, "kernel"),
            (heads, head_width, width),
            ((2,), (0, 1)),
            at,
        ),
        whole(f"{prefix}{names.out}bias", (*out, "bias"), (width,), at),
        *norm(prefix + names.ln_2, (*path, "ln_2"), width, at),
        *_linear(prefix + names.mlp_in, (*path, "mlp_in"), (width, hidden), at),
        *_linear(prefix + names.mlp_out, (*path, "mlp_out"), (hidden, width), at),
    ]
    if config.ls_init_value is not None:
        found += [
            whole(prefix + name, (*path, scale), (width,), at)
            for name, scale in zip(names.scales, ("ls_1", "ls_2"), strict=True)
        ]
    return found


def _linear(name: str, path: tuple[str, ...], shape: tuple[int, int], at) -> list[Piece]:
    return [
        transposed(f"{name}weight", (*path, "kernel"), shape, at),
        whole(f"{name}bias", (*path, "bias"), shape[1:], at),
    ]
