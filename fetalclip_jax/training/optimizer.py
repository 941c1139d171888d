"""AdamW, and its learning rate over the steps of a run."""

import math
from typing import Any

import jax
import optax
from ml_collections import ConfigDict

# What has one axis in each layer is not pulled towards zero, as in open_clip: biases, norms,
# LayerScales, the class token and the logit scale.
_NOT_DECAYED = ("bias", "scale", "ls_1", "ls_2", "class_embedding", "logit_scale")

_SCHEDULES = ("cosine", "constant")


def decay_mask(params: Any) -> Any:
    """True at every parameter that weight decay applies to; goes by the parameter's name."""

    def decays(path, _):
        # Below the name there may be the box that holds the logical axes.
        names = [key.key for key in path if isinstance(key, jax.tree_util.DictKey)]
        return names[-1] not in _NOT_DECAYED

    return jax.tree_util.tree_map_with_path(decays, params)


def _check_numbers(config: ConfigDict) -> None:
    """Raises ValueError for a number with which nothing, or nothing sensible, would be learned."""
    positive, share, not_negative = "above 0", "from 0 to below 1", "0 or above"
    holds = {
        positive: lambda value: 0 < value < math.inf,
        share: lambda value: 0 <= value < 1,
        not_negative: lambda value: 0 <= value < math.inf,
    }
    for name, rule in {
        "learning_rate": positive,
        "warmup_steps": not_negative,
        "cooldown_steps": not_negative,
        "beta1": share,
        "beta2": share,
        "eps": positive,
        "weight_decay": not_negative,
    }.items():
        if not holds[rule](config[name]):
            raise ValueError(f"config.optimizer.{name}={config[name]} is not a number {rule}")
    if not config.clip_norm > 0:
        raise ValueError(
            f"config.optimizer.clip_norm={config.clip_norm} would leave nothing of the gradients; "
            "use a number above 0, or inf for no clipping"
        )


def learning_rate_schedule(config: ConfigDict, steps: int) -> optax.Schedule:
    """Zero to `config.learning_rate` over `config.warmup_steps`, then as `config.schedule` says.

    "cosine" falls to zero at `steps`. "constant" stays, but for the last `config.cooldown_steps`
    steps, over which it falls to zero linearly.

    Raises:
      ValueError: a number out of range, an unknown schedule, or a warm-up and a cool-down as long
        as the run.
    """
    _check_numbers(config)
    if config.schedule not in _SCHEDULES:
        raise ValueError(
            f"config.optimizer.schedule={config.schedule!r} is not one of {', '.join(_SCHEDULES)}"
        )
    if config.warmup_steps >= steps:
        raise ValueError(
            f"config.optimizer.warmup_steps={config.warmup_steps} is not below "
            f"config.train.steps={steps}; shorten the warm-up"
        )
    if config.schedule == "cosine":
        if config.cooldown_steps:
            raise ValueError(
                f"config.optimizer.cooldown_steps={config.cooldown_steps} is of the constant "
                "schedule; set it to 0, or config.optimizer.schedule to constant"
            )
        return optax.warmup_cosine_decay_schedule(
            0.0, config.learning_rate, config.warmup_steps, decay_steps=steps, end_value=0.0
        )
    plateau_end = steps - config.cooldown_steps
    if config.warmup_steps > plateau_end:
        raise ValueError(
            f"config.optimizer.warmup_steps={config.warmup_steps} and "
            f"cooldown_steps={config.cooldown_steps} are more than "
            f"config.train.steps={steps}; shorten one of them"
        )
    rate = config.learning_rate
    parts = [
        optax.linear_schedule(0.0, rate, max(config.warmup_steps, 1)),
        optax.constant_schedule(rate),
        optax.linear_schedule(rate, 0.0, max(config.cooldown_steps, 1)),
    ]
    return optax.join_schedules(parts, [config.warmup_steps, plateau_end])


def make_optimizer(config: ConfigDict, steps: int) -> optax.GradientTransformation:
    """Clips the global gradient norm, then AdamW.

    Raises:
      ValueError: as `learning_rate_schedule`.
    """
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
