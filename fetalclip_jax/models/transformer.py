"""The pre-LayerNorm transformer both towers are made of."""

import math
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

# Rematerialisation by name; None keeps every activation.
REMAT_POLICIES = {
    "none": None,
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    "full": jax.checkpoint_policies.nothing_saveable,
}


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
    return jax.nn.gelu(x, approximate=False)


def attend(
    query: Float[Array, "B L H K"],
    key: Float[Array, "B L H K"],
    value: Float[Array, "B L H K"],
    *,
    causal: bool,
) -> Float[Array, "B L H K"]:
    """Softmax attention; the softmax is float32.

    Accelerators get `jax.nn.dot_product_attention`, cuDNN's fused kernel where there is one. A
    CPU's batched matrix product is several times faster with heads leading, so there the same sum
    is written out in that order.
    """
    device = jax.devices()[0]
    if device.platform != "cpu":
        kernel = "cudnn" if has_cudnn_kernel(device, query.dtype, query.shape[-1]) else "xla"
        return jax.nn.dot_product_attention(
            query, key, value, is_causal=causal, implementation=kernel
        )
    query, key, value = (x.swapaxes(1, 2) for x in (query, key, value))  # B H L K
    logits = jnp.einsum("bhqk,bhsk->bhqs", query, key, preferred_element_type=jnp.float32)
    logits *= query.shape[-1] ** -0.5
    if causal:
        length = query.shape[2]
        logits = jnp.where(jnp.tril(jnp.ones((length, length), bool)), logits, -jnp.inf)
    weights = jax.nn.softmax(logits, axis=-1).astype(value.dtype)
    return jnp.einsum("bhqs,bhsk->bhqk", weights, value).swapaxes(1, 2)  # B L H K


def has_cudnn_kernel(device: jax.Device, dtype: jnp.dtype, head_width: int) -> bool:
    """Whether cuDNN's flash attention takes these on this device.

    `jax.nn.dot_product_attention` does not choose it by itself, and fails where it does not fit.
    """
    # Other makers' cards have no such attribute, or another notation.
    major = str(getattr(device, "compute_capability", "")).split(".")[0]
    ampere_or_later = device.platform == "gpu" and major.isdigit() and int(major) >= 8
    return (
        ampere_or_later
        and dtype in (jnp.bfloat16, jnp.float16)
        and head_width <= 128
        and head_width % 8 == 0
    )


class Projection(nn.Module):
    """A linear map of the trailing axes of x, as one product of two matrices.

    `nn.DenseGeneral` contracts arrays of more axes; on a CPU the gradient of its kernel then takes
    almost twice as long.

    Attributes:
      shape_in, shape_out: the axes consumed and made; the kernel is stored as `shape_in +
        shape_out`.
      axes: logical names of the kernel's axes.
      stddev: of the kernel at initialisation.
    """

    shape_in: tuple[int, ...]
    shape_out: tuple[int, ...]
    axes: tuple[str | None, ...]
    stddev: float
    dtype: jnp.dtype
    use_bias: bool = True

    @nn.compact
    def __call__(self, x: Float[Array, "*batch_and_in"]) -> Float[Array, "*batch_and_out"]:
        batch = x.shape[: x.ndim - len(self.shape_in)]
        initialiser = logical(nn.initializers.normal(self.stddev), *self.axes)
        kernel = self.param("kernel", initialiser, self.shape_in + self.shape_out)
        rows = math.prod(self.shape_in)
        y = x.astype(self.dtype).reshape(-1, rows) @ kernel.astype(self.dtype).reshape(rows, -1)
        if self.use_bias:
            initialiser = logical(nn.initializers.zeros, *self.axes[len(self.shape_in) :])
            bias = self.param("bias", initialiser, self.shape_out)
            y += bias.astype(self.dtype).reshape(-1)
        return y.reshape(*batch, *self.shape_out)


class Attention(nn.Module):
    """Multi-head self-attention with one projection for queries, keys and values."""

    heads: int
    causal: bool
    layers: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: Float[Array, "B L D"]) -> Float[Array, "B L D"]:
        width = x.shape[-1]
        head_width = width // self.heads
        qkv = Projection(
            (width,),
            (3, self.heads, head_width),
            ("embed", None, "heads", "head_width"),
            width**-0.5,
            self.dtype,
            name="qkv",
        )(x)  # B L 3 H K
        query, key, value = qkv[:, :, 0], qkv[:, :, 1], qkv[:, :, 2]
        mixed = attend(query, key, value, causal=self.causal)
        return Projection(
            (self.heads, head_width),
            (width,),
            ("heads", "head_width", "embed"),
            (2 * width * self.layers) ** -0.5,
            self.dtype,
            name="out",
        )(mixed)  # B L D


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)). The signature is that of a scan body."""

    heads: int
    mlp_width: int
    causal: bool
    layers: int
    quick_gelu: bool
    ls_init_value: float | None
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: Float[Array, "B L D"], _: None = None):
        width = x.shape[-1]
        normed = layer_norm("ln_1")(x).astype(self.dtype)
        x = x + self._scaled(
            "ls_1",
            Attention(self.heads, self.causal, self.layers, self.dtype, name="attention")(normed),
        )
        normed = layer_norm("ln_2")(x).astype(self.dtype)
        hidden = Projection(
            (width,),
            (self.mlp_width,),
            ("embed", "mlp"),
            (2 * width) ** -0.5,
            self.dtype,
            name="mlp_in",
        )(normed)
        hidden = quick_gelu(hidden) if self.quick_gelu else exact_gelu(hidden)
        out = Projection(
            (self.mlp_width,),
            (width,),
            ("mlp", "embed"),
            (2 * width * self.layers) ** -0.5,
            self.dtype,
            name="mlp_out",
        )(hidden)
        return x + self._scaled("ls_2", out), None

    def _scaled(self, name: str, x: Float[Array, "B L D"]) -> Float[Array, "B L D"]:
        if self.ls_init_value is None:
            return x
        initialiser = logical(nn.initializers.constant(self.ls_init_value), "embed")
        return x * self.param(name, initialiser, x.shape[-1:]).astype(x.dtype)


class Transformer(nn.Module):
    """A stack of blocks whose parameters are stored stacked along a leading layer axis.

    Attributes:
      ls_init_value: see `models.presets.VisionConfig`.
      scan_layers: compile one block and loop over it, or unroll the loop. Stored parameters and
        computed function are the same; unrolled runs faster, scanned compiles faster.
      remat: a key of `REMAT_POLICIES`.
    """

    layers: int
    heads: int
    mlp_width: int
    causal: bool
    quick_gelu: bool = False
    ls_init_value: float | None = None
    scan_layers: bool = True
    remat: str = "none"
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "B L D"]) -> Float[Array, "B L D"]:
        if self.remat not in REMAT_POLICIES:
            raise ValueError(
                f"remat policy {self.remat!r} is not one of {', '.join(REMAT_POLICIES)}"
            )
        block = Block
        if self.remat != "none":
            block = nn.remat(Block, policy=REMAT_POLICIES[self.remat], prevent_cse=False)
        # scan around remat, not the reverse: that keeps the partitioning metadata.
        stack = nn.scan(
            block,
            variable_axes={"params": 0},
            split_rngs={"params": True},
            length=self.layers,
            unroll=1 if self.scan_layers else self.layers,
            metadata_params={nn.PARTITION_NAME: "layers"},
        )
        x, _ = stack(
            self.heads,
            self.mlp_width,
            self.causal,
            self.layers,
            self.quick_gelu,
            self.ls_init_value,
            self.dtype,
            name="blocks",
        )(x, None)
        return x
