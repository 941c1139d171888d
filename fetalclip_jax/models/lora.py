"""Low-rank adapters of chosen projections (LoRA, Hu et al. 2021): W + alpha / rank * A B.

A and B are parameters of their own, under "lora" in the tree, at the place that their projection
has among the others. In training the projection adds what they make of its input
(`models.layers.Projection`), so that nothing of the size of W is made for them; `alone` adds them
to W itself, for everything that comes afterwards.

A target is named as its parameters are, without "kernel": a block has its number in the name, and
the one matrix of queries, keys and values is three targets:
`visual/transformer/blocks/3/attention/query`.
"""

import contextlib
import dataclasses
import math
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import traverse_util

from fetalclip_jax.models.layers import ADAPTERS, QKV, WHOLE, Projection

if TYPE_CHECKING:
    from fetalclip_jax.models.clip import CLIP

# Parameters below this name are stacked along the layers.
_STACK = "blocks"

Path = tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class LoRA:
    """Which projections are adapted, and how; the fields of `config.lora`.

    Attributes:
      targets: regular expressions, each of which matches the whole name of at least one target.
      rank: columns of A and rows of B.
      alpha: what A B is multiplied with, times the rank.
      seed: of A; B starts at zero, so that the first step has the features of the base.
    """

    targets: tuple[str, ...]
    rank: int
    alpha: float
    seed: int = 0

    def __post_init__(self):
        """Raises ValueError for a number out of range, or a pattern that is none."""
        if isinstance(self.targets, str) or not all(isinstance(one, str) for one in self.targets):
            raise ValueError(
                f"config.lora.targets={self.targets!r} is no tuple of patterns, as in "
                '("visual/.*/(query|value)",)'
            )
        if self.rank < 1:
            raise ValueError(
                f"config.lora.rank={self.rank} must be at least 1 (no adapters: leave "
                "config.lora.targets empty)"
            )
        if not 0 < self.alpha < math.inf:
            raise ValueError(f"config.lora.alpha={self.alpha} is not a number above 0")
        for pattern in self.targets:
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(
                    f"config.lora.targets: {pattern!r} is no regular expression ({error})"
                ) from error

    def chooses(self, name: str) -> bool:
        return any(re.fullmatch(pattern, name) for pattern in self.targets)


@contextlib.contextmanager
def recorded() -> Iterator[dict[Path, Projection]]:
    """The projections that are called in the block, by their path."""
    found: dict[Path, Projection] = {}

    def record(call, args, kwargs, context):
        if isinstance(context.module, Projection):
            found[context.module.path] = context.module
        return call(*args, **kwargs)

    with nn.intercept_methods(record):
        yield found


def create(settings: LoRA, projections: Mapping[Path, Projection], params: Any) -> dict[str, Any]:
    """The first adapters, with logical axis names: A is noise, B is zero.

    Args:
      projections: of the model, as `recorded` gives them.
      params: their parameters, with logical axis names.

    Raises:
      ValueError: a pattern that matches no projection, with the names that there are; a rank
        above a projection's sizes.
    """
    kernels = traverse_util.flatten_dict(params)
    found: dict[str, tuple[Path, str, Projection, int]] = {}
    for path, projection in projections.items():
        for part in projection.parts or (WHOLE,):
            stacked = len(kernels[*path, "kernel"].value) if _STACK in path else 0
            for name in _names(path, part, stacked):
                found[name] = (path, part, projection, stacked)
    for pattern in settings.targets:
        if not any(re.fullmatch(pattern, name) for name in found):
            raise ValueError(
                f"config.lora.targets: {pattern!r} matches no projection; there are "
                f"{', '.join(_abbreviated(found))}; a pattern has to match the whole of a name"
            )
    adapters: dict[Path, Any] = {}
    for name, (path, part, projection, stacked) in found.items():
        if settings.chooses(name) and (*path, part) not in adapters:
            box = kernels[*path, "kernel"]
            adapters[*path, part] = _adapter(settings, name, projection, box.names, stacked)
    return traverse_util.unflatten_dict(adapters)


def _adapter(settings, name, projection, names, stacked) -> dict[str, nn.LogicallyPartitioned]:
    """A and B of one target, of all layers where they are stacked."""
    shape_in = projection.shape_in
    shape_out = projection.shape_out[1:] if projection.parts else projection.shape_out
    rows, columns = math.prod(shape_in), math.prod(shape_out)
    if settings.rank > min(rows, columns):
        raise ValueError(
            f"config.lora.rank={settings.rank} is above the sizes of {name}, {rows} x {columns}; "
            f"use at most {min(rows, columns)}"
        )
    first, names = ((stacked,), names[1:]) if stacked else ((), names)
    layers = ("layers",) * len(first)
    # By name, so that no other target changes what this one starts from.
    stable = zlib.crc32(re.sub(rf"/{_STACK}/\d+/", f"/{_STACK}/", name).encode())
    key = jax.random.fold_in(jax.random.key(settings.seed), stable)
    noise = jax.random.normal(key, (*first, *shape_in, settings.rank), jnp.float32)
    zeros = jnp.zeros((*first, settings.rank, *shape_out), jnp.float32)
    axes_in, axes_out = names[: len(shape_in)], names[len(names) - len(shape_out) :]
    return {
        "a": nn.LogicallyPartitioned(noise * rows**-0.5, (*layers, *axes_in, None)),
        "b": nn.LogicallyPartitioned(zeros, (*layers, None, *axes_out)),
    }


def collections(model: "CLIP", params: Mapping[str, Any]) -> dict[str, Any]:
    """The variables of `model.apply` for parameters with or without adapters."""
    if model.lora is None:
        return {"params": params}
    towers = {name: leaf for name, leaf in params.items() if name != ADAPTERS}
    return {"params": towers, ADAPTERS: _scaled(model.lora, params[ADAPTERS])}


def alone(model: "CLIP", params: Mapping[str, Any]) -> tuple["CLIP", dict[str, Any]]:
    """The CLIP in a model that was fine-tuned: adapters merged in float32, a head left out."""
    params = {name: leaf for name, leaf in params.items() if name != "head"}
    if model.lora is not None:
        adapters = _scaled(model.lora, params.pop(ADAPTERS))
        flat = traverse_util.flatten_dict(params)
        pairs = traverse_util.flatten_dict(adapters, is_leaf=lambda _, node: "b" in node)
        for (*path, part), pair in pairs.items():
            kernel = (*path, "kernel")
            flat[kernel] = _merged(flat[kernel], **pair, part=part, stacked=_STACK in path)
        params = traverse_util.unflatten_dict(flat)
    return model.clone(lora=None, classes=0), params


def _merged(kernel, a, b, part: str, *, stacked: bool):
    """kernel + A B; of queries, keys or values alone where `part` says so."""
    first = a.shape[:1] if stacked else ()
    rank, shape_in, shape_out = a.shape[-1], a.shape[len(first) : -1], b.shape[len(first) + 1 :]
    change = jnp.matmul(
        a.reshape(*first, -1, rank), b.reshape(*first, rank, -1), precision="highest"
    )
    change = change.reshape(*first, *shape_in, *shape_out)
    if part == WHOLE:
        return kernel + change
    place = (slice(None),) * (len(first) + len(shape_in))
    return kernel.at[*place, QKV.index(part)].add(change)


def _scaled(settings: LoRA, adapters: Mapping[str, Any]) -> dict[str, Any]:
    """Adapters with alpha / rank in B, and zeros in it for layers that are no target."""
    scale = settings.alpha / settings.rank

    def scaled(path: Path, leaf):
        *place, part, name = path
        if name == "a":
            return leaf
        layers = len(leaf) if _STACK in place else 0
        chosen = [settings.chooses(one) for one in _names(place, part, layers)]
        if all(chosen):
            return leaf * scale
        factors = [scale * is_chosen for is_chosen in chosen]
        return leaf * jnp.array(factors, leaf.dtype).reshape(-1, *[1] * (leaf.ndim - 1))

    return traverse_util.path_aware_map(scaled, adapters)


def _names(path: Sequence[str], part: str, layers: int) -> list[str]:
    """The name of a target; of one in a stack of blocks that of each layer."""
    parts = list(path) if part == WHOLE else [*path[:-1], part]
    if not layers:
        return ["/".join(parts)]
    after = parts.index(_STACK) + 1
    return ["/".join([*parts[:after], str(i), *parts[after:]]) for i in range(layers)]


def _abbreviated(names: Iterable[str]) -> list[str]:
    """Names with N in the place of a block's number, each once."""
    return list(dict.fromkeys(re.sub(rf"/{_STACK}/\d+/", f"/{_STACK}/N/", one) for one in names))
