"""What training carries from step to step, and how it is born on a mesh."""

from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from fetalclip_jax.models import lora
from fetalclip_jax.models.clip import CLIP
from fetalclip_jax.parallel import sharding


@flax.struct.dataclass
class TrainState:
    """A tree: in the place of its arrays there may be their shapes or their shardings.

    Attributes:
      step: updates done, int32 [].
      params: float32 parameters.
      ema: their exponential moving average, or None where none is kept.
      opt_state: the optimiser's state.
    """

    step: Any
    params: Any
    ema: Any
    opt_state: Any


def initial_params(model: CLIP, key: jax.Array) -> Any:
    """Parameters with their logical axis names still attached, adapters among them.

    Raises:
      ValueError: adapters that the model has no place for.
    """
    vision, text = model.config.vision_cfg, model.config.text_cfg
    images = jnp.zeros((1, vision.image_size, vision.image_size, 3), jnp.float32)
    tokens = jnp.zeros((1, text.context_length), jnp.int32)
    if model.lora is None:
        return model.init(key, images, tokens)["params"]
    with lora.recorded() as projections:
        params = model.init(key, images, tokens)["params"]
    return params | {lora.ADAPTERS: lora.create(model.lora, projections, params)}


def abstract_state(
    model: CLIP,
    optimizer: optax.GradientTransformation,
    mesh: Mesh,
    seed: int,
    *,
    with_ema: bool = False,
) -> tuple[TrainState, TrainState]:
    """Shapes and shardings of a state, without making one.

    Args:
      with_ema: the state keeps averaged parameters too.

    Returns:
      A state of `jax.ShapeDtypeStruct` that carry their shardings, and a state of shardings.
    """
    boxed = jax.eval_shape(lambda: _boxed_state(model, optimizer, jax.random.key(seed), with_ema))
    shardings = sharding.tree_shardings(boxed, mesh)
    abstract = jax.tree.map(
        lambda leaf, where: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where),
        nn.meta.unbox(boxed),
        shardings,
    )
    return abstract, shardings


def create_state(
    model: CLIP,
    optimizer: optax.GradientTransformation,
    mesh: Mesh,
    seed: int,
    *,
    with_ema: bool = False,
) -> TrainState:
    """Initialises directly into the target shardings: no device ever holds the whole state."""
    _, shardings = abstract_state(model, optimizer, mesh, seed, with_ema=with_ema)

    def make(key):
        return nn.meta.unbox(_boxed_state(model, optimizer, key, with_ema))

    return jax.jit(make, out_shardings=shardings)(jax.random.key(seed))


def _boxed_state(model, optimizer, key, with_ema) -> TrainState:
    params = initial_params(model, key)
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        ema=jax.tree.map(jnp.copy, params) if with_ema else None,
        opt_state=jax.tree.map(_filled, optimizer.init(params), is_leaf=_is_box),
    )


def _is_box(node: Any) -> bool:
    return isinstance(node, nn.meta.AxisMetadata)


def _filled(node: Any) -> Any:
    """A box with axis names; but what a mask left of it, where there is nothing in it."""
    return node.unbox() if _is_box(node) and not jax.tree.leaves(node) else node
