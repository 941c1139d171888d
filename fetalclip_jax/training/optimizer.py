"""AdamW with a linear warm-up and a cosine decay to zero."""

from typing import Any

import jax
import optax
from ml_collections import ConfigDict

# What has one axis in each layer is not pulled towards zero, as in open_clip: biases, norms,
# LayerScales, the class token and the logit scale.
_NOT_DECAYED = ("bias", "scale", "ls_1", "ls_2", "class_embedding", "logit_scale")


def decay_mask(params: Any) -> Any:
    """True at every parameter that weight decay applies to; goes by the parameter's name."""

    def decays(path, _):
        # Below the name there may be the box that holds the logical axes.
        names = [key.key for key in path if isinstance(key, jax.tree_util.DictKey)]
        return names[-1] not in _NOT_DECAYED

    return jax.tree_util.tree_map_with_path(decays, params)


def learning_rate_schedule(config: ConfigDict, steps: int) -> optax.Schedule:
    """Zero to `config.learning_rate` over `config.warmup_steps`, then a cosine to zero at `steps`.

    Raises:
      ValueError: a warm-up as long as the run.
    """
    if config.warmup_steps >= steps:
        raise ValueError(
            f"config.optimizer.warmup_steps={config.warmup_steps} is not below "
            f"config.train.steps={steps}; shorten the warm-up"
        )
    return optax.warmup_cosine_decay_schedule(
        0.0, config.learning_rate, config.warmup_steps, decay_steps=steps, end_value=0.0
    )


def make_optimizer(config: ConfigDict, steps: int) -> optax.GradientTransformation:
    """Clips the global gradient norm, then AdamW."""
    return optax.chain(
        optax.clip_by_global_norm(config.clip_norm),
        optax.adamw(
            learning_rate_schedule(config, steps),
            b1=config.beta1,
            b2=config.beta2,
            eps=config.eps,
            weight_decay=config.weight_decay,
            mask=decay_mask,
        ),
    )
