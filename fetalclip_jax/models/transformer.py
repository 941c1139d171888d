"""The pre-LayerNorm transformer both towers are made of."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from fetalclip_jax.models.attention import attend, attend_written_out, causal_mask
from fetalclip_jax.models.layers import (
    QKV,
    Projection,
    exact_gelu,
    layer_norm,
    logical,
    quick_gelu,
)

# Picks tokens: from [B L D] to [B Q D], whatever D is.
Choice = Callable[[Array], Array]

# Rematerialisation by name; None keeps every activation.
REMAT_POLICIES = {
    "none": None,
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    "full": jax.checkpoint_policies.nothing_saveable,
}


class Attention(nn.Module):
    """Multi-head self-attention with one projection for queries, keys and values."""

    heads: int
    causal: bool
    layers: int
    dtype: DTypeLike

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
            parts=QKV,
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
    ls_init_value: float | int | None
    dtype: DTypeLike

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

    Whatever else a block may hold, write or draw is treated so too: variables of any collection
    are stacked along the layers, and each layer has random numbers of its own.

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
    ls_init_value: float | int | None = None
    scan_layers: bool = True
    remat: str = "none"
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B L D"],
        choose: Choice | None = None,
        taps: Sequence[int] = (),
        offsets: Mapping[int, Float[Array, "B L D"]] | None = None,
    ) -> Float[Array, "B Q D"] | tuple[Float[Array, "B Q D"], tuple[Float[Array, "B L D"], ...]]:
        """Transforms all tokens; where only some are wanted, the last block leaves out the rest.

        It leaves out none where it is tapped or a collection is mutable: what blocks write is of
        one shape, and all of it has a gradient.

        Args:
          choose: picks along axis 1, alike from arrays of any last axis; None keeps all tokens.
          taps: numbers of blocks, the first being 1, whose outputs are returned too.
          offsets: what is added to the outputs of blocks, by their numbers, before they are
            returned and before the next block sees them: a gradient with respect to an offset of 0
            is one with respect to the output.

        Returns:
          The tokens; with `taps` a pair of them and the outputs of these blocks, in their order.

        Raises:
          ValueError: an unknown `remat`; a tap or an offset of no block.
        """
        if self.remat not in REMAT_POLICIES:
            raise ValueError(
                f"remat policy {self.remat!r} is not one of {', '.join(REMAT_POLICIES)}"
            )
        for name, blocks in (("taps", taps), ("offsets", offsets or {})):
            if not all(1 <= one <= self.layers for one in blocks):
                raise ValueError(
                    f"{name}={tuple(blocks)}: the blocks are numbered 1 to {self.layers}"
                )
        block = Block(
            *(self.heads, self.mlp_width, self.causal, self.layers),
            *(self.quick_gelu, self.ls_init_value, self.dtype),
            name="blocks",
        )
        places = {one: place for place, one in enumerate(sorted({*taps, *(offsets or {})}))}
        # The last place is for the outputs that nobody asked for.
        outputs = jnp.zeros((len(places) + 1, *x.shape), x.dtype) if taps else None
        added = _stacked(offsets, places, x) if offsets else None
        slots = jnp.array([places.get(i + 1, len(places)) for i in range(self.layers)])
        unroll = 1 if self.scan_layers or self.is_initializing() else self.layers
        layer = self._layer(looped=unroll == 1)

        def step(block, carry, slot):
            x, outputs, added = carry
            x = layer(block, x)
            if added is not None:
                x = x + jax.lax.dynamic_index_in_dim(added, slot, 0, keepdims=False)
            if outputs is not None:
                outputs = jax.lax.dynamic_update_index_in_dim(outputs, x, slot, 0)
            return (x, outputs, added), None

        if choose is None or self.layers in places or self.scope.mutable:
            stack = loop(step, self.layers, unroll, variable_axes={True: 0})
            (x, outputs, _), _ = stack(block, (x, outputs, added), slots)
            x = x if choose is None else choose(x)
        else:
            x, outputs, _ = all_but_last(step, slots, unroll)(block, (x, outputs, added))
            last = of_stack(lambda block, x: block(x, choose), lambda leaf: leaf[-1])
            x = last(block, x)
        return (x, tuple(outputs[places[tap]] for tap in taps)) if taps else x

    def _layer(self, looped: bool) -> Callable[[Block, Array], Array]:
        def layer(block, x):
            return block(x)

        # Initialisation has no gradient to save memory for.
        if self.remat == "none" or self.is_initializing():
            return layer
        # Outside of a loop XLA finds that what is computed again is known, and keeps it instead.
        return nn.remat(layer, policy=REMAT_POLICIES[self.remat], prevent_cse=not looped)


def _stacked(
    offsets: Mapping[int, Float[Array, "B L D"]], places: Mapping[int, int], x: Float[Array, "..."]
) -> Float[Array, "places B L D"]:
    """The offset of each place, and 0 in the last place, that of all other blocks."""
    none = jnp.zeros_like(x)
    return jnp.stack([offsets.get(one, none).astype(x.dtype) for one in places] + [none])


def loop(step: Callable, length: int, unroll: int, **variables: Any) -> Callable:
    """`step(block, carry, x) -> (carry, None)` for each layer; `variables` as `nn.scan` has it."""
    return nn.scan(
        step,
        split_rngs={True: True},
        length=length,
        unroll=unroll,
        metadata_params={nn.PARTITION_NAME: "layers"},
        **variables,
    )


def of_stack(function: Callable, part: Callable[[Array], Array]) -> Callable:
    """`function(block, ...)` where the block has `part` of each stacked variable."""
    return nn.map_variables(
        function, True, lambda variables: jax.tree.map(part, nn.meta.unbox(variables))
    )


def all_but_last(step: Callable, slots: Int[Array, "layers"], unroll: int) -> Callable:
    """`(block, carry) -> carry`: `step` for each layer but the last, given its slot.

    A loop over the stack without its last layer copies it first. The gradient needs that, or would
    add up one whole stack for every layer; without a gradient each layer is read where it lies. Can
    be differentiated in reverse mode only. What a block writes would have no gradient.
    """
    count = len(slots) - 1

    def indexed_step(block, carry, at):
        index, slot = at
        part = functools.partial(jax.lax.dynamic_index_in_dim, index=index, keepdims=False)
        return of_stack(step, part)(block, carry, slot)

    def in_place(block, carry):
        stack = loop(indexed_step, count, unroll, variable_broadcast=True)
        return stack(block, carry, (jnp.arange(count), slots[:count]))[0]

    def copied(block, carry):
        stack = loop(step, count, unroll, variable_axes={True: 0})
        return of_stack(stack, lambda leaf: leaf[:-1])(block, carry, slots[:count])[0]

    return nn.custom_vjp(
        in_place,
        forward_fn=lambda block, carry: nn.vjp(copied, block, carry, vjp_variables=True),
        backward_fn=lambda back, gradient: back(gradient),
        grad_vars=True,
    )
