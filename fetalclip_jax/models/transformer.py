"""The pre-LayerNorm transformer both towers are made of."""

import functools
import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

# Picks tokens: from [B L D] to [B Q D], whatever D is.
Choice = Callable[[Array], Array]

# XLA's CPU products of many small matrices fall to half their speed where each is larger: measured
# from 54,000 to 83,000 numbers, by shape.
_LOGITS_PER_PRODUCT = 40_000

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
    # jax.nn.gelu takes erfc, three times as slow on a CPU.
    return 0.5 * x * (1 + jax.lax.erf(x * math.sqrt(0.5)))


def attend(
    query: Float[Array, "B L H K"],
    key: Float[Array, "B L H K"],
    value: Float[Array, "B L H K"],
    *,
    causal: bool,
) -> Float[Array, "B L H K"]:
    """Softmax attention of all tokens to all, or to those before them; the softmax is float32.

    Accelerators get `jax.nn.dot_product_attention`, cuDNN's fused kernel where there is one; a CPU
    is faster with `attend_written_out`, some queries at a time.
    """
    device = jax.devices()[0]
    if device.platform != "cpu":
        kernel = "cudnn" if has_cudnn_kernel(device, query.dtype, query.shape[-1]) else "xla"
        return jax.nn.dot_product_attention(
            query, key, value, is_causal=causal, implementation=kernel
        )
    groups = -(-(query.shape[1] ** 2) // _LOGITS_PER_PRODUCT)
    queries = jnp.array_split(query, groups, axis=1)
    masks = jnp.array_split(causal_mask(query), groups, axis=1) if causal else [None] * groups
    mixed = [
        attend_written_out(part, key, value, mask)
        for part, mask in zip(queries, masks, strict=True)
    ]
    return jnp.concatenate(mixed, axis=1)


def causal_mask(x: Float[Array, "B L ..."]) -> Bool[Array, "B L L"]:
    """For each token, which tokens it sees: those up to itself."""
    batch, length = x.shape[:2]
    return jnp.broadcast_to(jnp.tril(jnp.ones((length, length), bool)), (batch, length, length))


def attend_written_out(
    query: Float[Array, "B Q H K"],
    key: Float[Array, "B L H K"],
    value: Float[Array, "B L H K"],
    mask: Bool[Array, "B Q L"] | None,
) -> Float[Array, "B Q H K"]:
    """Softmax attention of chosen tokens, in the order of products that a CPU is fastest with.

    Heads lead, and the softmax's denominator is divided by last, where the array is small.
    """
    query, key, value = (x.swapaxes(1, 2) for x in (query, key, value))  # B H L K
    query *= query.shape[-1] ** -0.5
    logits = jnp.einsum("bhqk,bhlk->bhql", query, key, preferred_element_type=jnp.float32)
    if mask is not None:
        logits = jnp.where(mask[:, None], logits, -jnp.inf)
    weights = jnp.exp(logits - jax.lax.stop_gradient(logits.max(axis=-1, keepdims=True)))
    mixed = jnp.einsum(
        "bhql,bhlk->bhqk",
        weights.astype(value.dtype),
        value,
        preferred_element_type=jnp.float32,
    )
    mixed /= weights.sum(axis=-1, keepdims=True)
    return mixed.astype(value.dtype).swapaxes(1, 2)  # B Q H K


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
    def __call__(
        self, x: Float[Array, "*batch_and_in"], part: slice = slice(None)
    ) -> Float[Array, "*batch_and_out"]:
        """Makes the whole of `shape_out`, or `part` of its first axis."""
        batch = x.shape[: x.ndim - len(self.shape_in)]
        initialiser = logical(nn.initializers.normal(self.stddev), *self.axes)
        kernel = self.param("kernel", initialiser, self.shape_in + self.shape_out)
        rows = math.prod(self.shape_in)
        kernel = kernel.astype(self.dtype).reshape(rows, *self.shape_out)[:, part]
        y = x.astype(self.dtype).reshape(-1, rows) @ kernel.reshape(rows, -1)
        if self.use_bias:
            initialiser = logical(nn.initializers.zeros, *self.axes[len(self.shape_in) :])
            bias = self.param("bias", initialiser, self.shape_out)
            y += bias.astype(self.dtype)[part].reshape(-1)
        return y.reshape(*batch, *kernel.shape[1:])


class Attention(nn.Module):
    """Multi-head self-attention with one projection for queries, keys and values."""

    heads: int
    causal: bool
    layers: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(
        self, x: Float[Array, "B L D"], choose: Choice | None = None
    ) -> Float[Array, "B Q D"]:
        width = x.shape[-1]
        head_width = width // self.heads
        qkv = Projection(
            (width,),
            (3, self.heads, head_width),
            ("embed", None, "heads", "head_width"),
            width**-0.5,
            self.dtype,
            name="qkv",
        )
        if choose is None:
            query, key, value = jnp.moveaxis(qkv(x), 2, 0)  # B L H K each
            mixed = attend(query, key, value, causal=self.causal)
        else:
            query = qkv(choose(x), slice(0, 1))[:, :, 0]  # B Q H K
            key, value = jnp.moveaxis(qkv(x, slice(1, 3)), 2, 0)  # B L H K each
            mask = choose(causal_mask(x)) if self.causal else None  # B Q L
            mixed = attend_written_out(query, key, value, mask)
        return Projection(
            (self.heads, head_width),
            (width,),
            ("heads", "head_width", "embed"),
            (2 * width * self.layers) ** -0.5,
            self.dtype,
            name="out",
        )(mixed)


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)), for all tokens or those that are chosen."""

    heads: int
    mlp_width: int
    causal: bool
    layers: int
    quick_gelu: bool
    ls_init_value: float | None
    dtype: jnp.dtype

    @nn.compact
    def __call__(
        self, x: Float[Array, "B L D"], choose: Choice | None = None
    ) -> Float[Array, "B Q D"]:
        width = x.shape[-1]
        attention = Attention(self.heads, self.causal, self.layers, self.dtype, name="attention")
        mixed = attention(layer_norm("ln_1")(x).astype(self.dtype), choose)
        x = (x if choose is None else choose(x)) + self._scaled("ls_1", mixed)
        hidden = Projection(
            (width,),
            (self.mlp_width,),
            ("embed", "mlp"),
            (2 * width) ** -0.5,
            self.dtype,
            name="mlp_in",
        )(layer_norm("ln_2")(x).astype(self.dtype))
        hidden = quick_gelu(hidden) if self.quick_gelu else exact_gelu(hidden)
        out = Projection(
            (self.mlp_width,),
            (width,),
            ("mlp", "embed"),
            (2 * width * self.layers) ** -0.5,
            self.dtype,
            name="mlp_out",
        )(hidden)
        return x + self._scaled("ls_2", out)

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
        computed function are the same; small models run faster unrolled, scanned ones compile
        faster.
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
    def __call__(
        self, x: Float[Array, "B L D"], choose: Choice | None = None
    ) -> Float[Array, "B Q D"]:
        """Transforms all tokens; where only some are wanted, the last block leaves out the rest.

        Args:
          choose: picks along axis 1, alike from arrays of any last axis; None keeps all tokens.

        Raises:
          ValueError: an unknown `remat`.
        """
        if self.remat not in REMAT_POLICIES:
            raise ValueError(
                f"remat policy {self.remat!r} is not one of {', '.join(REMAT_POLICIES)}"
            )
        settings = (
            *(self.heads, self.mlp_width, self.causal, self.layers),
            *(self.quick_gelu, self.ls_init_value, self.dtype),
        )
        if self.is_initializing():
            stack = nn.scan(
                lambda block, x, _: (block(x), None),
                variable_axes={"params": 0},
                split_rngs={"params": True},
                length=self.layers,
                metadata_params={nn.PARTITION_NAME: "layers"},
            )
            x, _ = stack(Block(*settings, name="blocks"), x, None)
            return x if choose is None else choose(x)

        block = Block(*settings, parent=None)

        def layer(x, params):
            return block.apply({"params": params}, x)

        if self.remat != "none":
            layer = jax.checkpoint(layer, policy=REMAT_POLICIES[self.remat], prevent_cse=False)
        blocks = nn.meta.unbox(self.variables["params"]["blocks"])
        unroll = 1 if self.scan_layers else self.layers
        if choose is None:
            return jax.lax.scan(lambda x, p: (layer(x, p), None), x, blocks, unroll=unroll)[0]
        x = all_but_last(layer, blocks, x, unroll)
        return block.apply({"params": jax.tree.map(lambda leaf: leaf[-1], blocks)}, x, choose)


def all_but_last(layer: Callable, blocks: Any, x: Array, unroll: int) -> Array:
    """`layer(x, block)` for each of the stacked blocks but the last.

    A loop over `blocks[:-1]` copies them all first. Its gradient needs that, or would add up one
    whole stack for every layer; without a gradient each layer is read where it lies. Can be
    differentiated in reverse mode only.
    """

    @jax.custom_vjp
    def run(blocks, x):
        def body(x, index):
            at = functools.partial(jax.lax.dynamic_index_in_dim, index=index, keepdims=False)
            return layer(x, jax.tree.map(at, blocks)), None

        count = jax.tree.leaves(blocks)[0].shape[0] - 1
        return jax.lax.scan(body, x, jnp.arange(count), unroll=unroll)[0]

    def copied(blocks, x):
        first = jax.tree.map(lambda leaf: leaf[:-1], blocks)
        return jax.lax.scan(lambda x, p: (layer(x, p), None), x, first, unroll=unroll)[0]

    run.defvjp(functools.partial(jax.vjp, copied), lambda back, gradient: back(gradient))
    return run(blocks, x)
