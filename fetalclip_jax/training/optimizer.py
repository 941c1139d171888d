"""AdamW with a linear warm-up, and a table that says what is trained, how fast and with decay."""

import math
from typing import Any

import numpy as np
import optax
from ml_collections import ConfigDict

from fetalclip_jax.models.clip import CLIP
from fetalclip_jax.training import parameter_table

_SCHEDULES = ("cosine", "constant")


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


def left_as_it_is(model: CLIP) -> str:
    """What of a model is not trained unless a row of `learning_rate_factors` matches it.

    Beside adapters, the parameters that they adapt; beside a classifier's head, all that it does
    not read: weight decay would shrink it.

    Returns:
      A pattern of names; "" for nothing.
    """
    patterns = []
    if model.lora is not None:
        patterns.append("(?!lora/|head/).*")
    if model.classes:
        patterns.append("(lora/)?text/.*|logit_scale|logit_bias")
    return "|".join(patterns)


def make_optimizer(config: ConfigDict, steps: int, held: str = "") -> optax.GradientTransformation:
    """Clips the global gradient norm, then AdamW, with the factors of the two tables.

    Args:
      config: `config.optimizer`.
      held: pattern of parameters that are not trained where no row says otherwise, as
        `left_as_it_is` gives it.

    `init` raises ValueError for a row of `config.learning_rate_factors` or
    `config.weight_decay_factors` that decides over no parameter.

    Raises:
      ValueError: as `learning_rate_schedule`; a table that is not one.
    """
    rates = parameter_table.read(config, "learning_rate_factors", held)
    decays = parameter_table.read(config, "weight_decay_factors")
    inner = optax.chain(
        optax.clip_by_global_norm(config.clip_norm),
        optax.chain(
            optax.scale_by_adam(b1=config.beta1, b2=config.beta2, eps=config.eps),
            _add_decayed(decays, config.weight_decay),
            _scale(rates),
            optax.scale_by_learning_rate(learning_rate_schedule(config, steps)),
        ),
    )
    if rates.rows or held:  # what is not trained has no moments
        inner = optax.partition(
            {"trained": inner, "held": optax.set_to_zero()},
            lambda params: rates.map(lambda f, _: "trained" if np.any(f) else "held", params),
        )

    def init(params):
        rates.check(params)
        decays.check(params)
        return inner.init(params)

    return optax.GradientTransformation(init, inner.update)


def trained(config: ConfigDict, params: Any, held: str = "") -> Any:
    """For each parameter, whether any of it is trained: a learning rate factor above 0."""
    rates = parameter_table.read(config, "learning_rate_factors", held)
    return rates.map(lambda factor, _: bool(np.any(factor)), params)


def _add_decayed(decays: parameter_table.Table, rate: float) -> optax.GradientTransformation:
    """Adds to each update its parameter, times `rate` and its factor."""

    def add(factor, update, param):
        return update + rate * factor * param if np.any(factor) else update

    return optax.stateless(lambda updates, params: decays.map(add, updates, params))


def _scale(rates: parameter_table.Table) -> optax.GradientTransformation:
    def scale(factor, update):
        return update if np.all(factor == 1) else update * factor

    return optax.stateless(lambda updates, _: rates.map(scale, updates))
