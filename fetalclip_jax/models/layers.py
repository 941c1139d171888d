"""What blocks and towers are made of: projections, normalisation, activations."""

import math
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from fetalclip_jax.parallel.sharding import by_example

# The collection of low-rank adapters, and the name of one of a whole kernel, see `models.lora`.
ADAPTERS, WHOLE = "lora", "kernel"
# The first axis of what attention's first projection makes.
QKV = ("query", "key", "value")


def logical(initialiser: Callable, *axes: str | None) -> Callable:
    """Names the axes of a parameter; `parallel.sharding` maps the names to the mesh."""
    return nn.with_logical_partitioning(initialiser, axes)


def layer_norm(name: str) -> nn.LayerNorm:
    """LayerNorm in float32, eps 1e-5 (open_clip's; flax's default of 1e-6 differs)."""
    return nn.LayerNorm(
        epsilon=1e-5,
        dtype=jnp.float32,
        scale_init=logical(nn.initializers.ones, "embed"),
        bias_init=logical(nn.initializers.zeros, "embed"),
        name=name,
    )


def quick_gelu(x: Float[Array, "..."]) -> Float[Array, "..."]:
    return x * jax.nn.sigmoid(1.702 * x)


def exact_gelu(x: Float[Array, "..."]) -> Float[Array, "..."]:
    # jax.nn.gelu takes erfc, three times as slow on a CPU.
    return 0.5 * x * (1 + jax.lax.erf(x * math.sqrt(0.5)))


class Projection(nn.Module):
    """A linear map of the trailing axes of x, as one product of two matrices.

    `nn.DenseGeneral` contracts arrays of more axes; on a CPU the gradient of its kernel then takes
    almost twice as long.

    Attributes:
      shape_in, shape_out: the axes consumed and made; the kernel is stored as `shape_in +
        shape_out`.
      axes: logical names of the kernel's axes.
      stddev: of the kernel at initialisation.
      parts: names along the first axis of `shape_out`, where each has an adapter of its own.
    """

    shape_in: tuple[int, ...]
    shape_out: tuple[int, ...]
    axes: tuple[str | None, ...]
    stddev: float
    dtype: DTypeLike
    use_bias: bool = True
    parts: tuple[str, ...] = ()

    @nn.compact
    def __call__(
        self, x: Float[Array, "*batch_and_in"], part: slice = slice(None)
    ) -> Float[Array, "*batch_and_out"]:
        """Makes the whole of `shape_out`, or `part` of its first axis."""
        batch = x.shape[: x.ndim - len(self.shape_in)]
        initialiser = logical(nn.initializers.normal(self.stddev), *self.axes)
        kernel = self.param("kernel", initialiser, self.shape_in + self.shape_out)
        rows = math.prod(self.shape_in)
        kernel = kernel.astype(self.dtype).reshape(rows, *self.shape_out)[:, part]
        x = x.astype(self.dtype).reshape(-1, rows)
        y = x @ kernel.reshape(rows, -1)
        adapted = [self._adapted(x, name) for name in self.parts[part] or (WHOLE,)]
        if any(change is not None for change in adapted):
            size = y.shape[-1] // len(adapted)
            none = jnp.zeros((len(x), size), self.dtype)
            y += jnp.concatenate([none if one is None else one for one in adapted], axis=-1)
        if self.use_bias:
            initialiser = logical(nn.initializers.zeros, *self.axes[len(self.shape_in) :])
            bias = self.param("bias", initialiser, self.shape_out)
            y += bias.astype(self.dtype)[part].reshape(-1)
        return by_example(y.reshape(*batch, *kernel.shape[1:]))  # B ...

    def _adapted(self, x: Float[Array, "n rows"], name: str) -> Float[Array, "n columns"] | None:
        """What an adapter of that name adds to its part of the output, where there is one."""
        if not self.has_variable(ADAPTERS, name):
            return None
        adapter = self.get_variable(ADAPTERS, name)
        a, b = (adapter[factor].astype(self.dtype) for factor in ("a", "b"))
        return x @ a.reshape(x.shape[-1], -1) @ b.reshape(b.shape[0], -1)
