"""Softmax attention, in the way that is fastest on the platform."""

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float

# XLA's CPU products of many small matrices fall to half their speed where each is larger: measured
# from 54,000 to 83,000 numbers, by shape.
_LOGITS_PER_PRODUCT = 40_000


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
    platform, capability = _compiled_for()
    if platform != "cpu":
        if has_cudnn_kernel(platform, capability, query.dtype, query.shape[-1]):
            return attend_at_even_length(query, key, value, causal=causal, implementation="cudnn")
        return jax.nn.dot_product_attention(
            query, key, value, is_causal=causal, implementation="xla"
        )
    groups = -(-(query.shape[1] ** 2) // _LOGITS_PER_PRODUCT)
    queries = jnp.array_split(query, groups, axis=1)
    masks = jnp.array_split(causal_mask(query), groups, axis=1) if causal else [None] * groups
    mixed = [
        attend_written_out(part, key, value, mask)
        for part, mask in zip(queries, masks, strict=True)
    ]
    return jnp.concatenate(mixed, axis=1)


def _compiled_for() -> tuple[str, str]:
    """Platform and compute capability of the devices that a program is being compiled for.

    Those of the mesh that `parallel.sharding.within` names, which need not be of this machine; else
    this machine's own.
    """
    device, named = jax.devices()[0], jax.sharding.get_abstract_mesh().abstract_device
    if named is not None and named.platform != device.platform:
        return named.platform, ""
    return device.platform, str(getattr(device, "compute_capability", ""))


def attend_at_even_length(
    query: Float[Array, "B L H K"],
    key: Float[Array, "B L H K"],
    value: Float[Array, "B L H K"],
    *,
    causal: bool,
    implementation: str,
) -> Float[Array, "B L H K"]:
    """`jax.nn.dot_product_attention`, an odd number of tokens filled up by one that nobody sees.

    A class token beside its patches makes the number odd, and the backward pass of cuDNN's kernel
    is refused for it (by JAX 0.11, with and without a bias; later ones only with).
    """
    batch, length = query.shape[:2]
    if length % 2 == 0:
        return jax.nn.dot_product_attention(
            query, key, value, is_causal=causal, implementation=implementation
        )
    widths = ((0, 0), (0, 1), (0, 0), (0, 0))
    # Behind a causal mask the last token is seen by itself alone.
    lengths = None if causal else jnp.full(batch, length, jnp.int32)
    mixed = jax.nn.dot_product_attention(
        *(jnp.pad(x, widths) for x in (query, key, value)),
        is_causal=causal,
        query_seq_lengths=lengths,
        key_value_seq_lengths=lengths,
        implementation=implementation,
    )
    return mixed[:, :length]


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


def has_cudnn_kernel(platform: str, capability: str, dtype: DTypeLike, head_width: int) -> bool:
    """Whether cuDNN's flash attention takes these on such a device.

    `jax.nn.dot_product_attention` does not choose it by itself, and fails where it does not fit.

    Args:
      platform: "gpu" or another.
      capability: NVIDIA's compute capability, such as "8.0"; other makers have another notation, or
        none.
    """
    major = capability.split(".")[0]
    ampere_or_later = platform == "gpu" and major.isdigit() and int(major) >= 8
    return (
        ampere_or_later
        and jnp.dtype(dtype) in (jnp.bfloat16, jnp.float16)
        and head_width <= 128
        and head_width % 8 == 0
    )
