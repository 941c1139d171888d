"""What may change between a run and its continuation, and why the rest may not."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from fetalclip_jax.config import build_model, flatten, trained_on

Changes = Mapping[str, tuple[Any, Any]]  # dotted name -> (there, now)

# They choose machines and habits, not results.
_FREE_FIELDS = (
    "compute.remat",
    "compute.scan_layers",
    "data.loader_workers",
    "data.max_bad_share",
    "data.root",
    "data.workers",
    "loss.block_size",
    "loss.exchange",
    "train.checkpoint_every",
    "train.keep_best",
    "train.keep_checkpoints",
    "train.log_every",
    "train.max_skipped_steps",
    "train.micro_batches",
    "train.stall_seconds",
    "train.studies",
    "train.study_every",
    "train.wandb_project",
)
_FREE_PREFIXES = ("mesh.",)

# What no permission makes continuable, with the reason.
_BOUND = {
    "captions.seed": "the vocabulary was made from it",
    "data.": "the position in the data is one among those examples",
    "init_": "the run has started already",
    "lora.": "the optimiser keeps state of what was trained",
    "optimizer.learning_rate_factors": "the optimiser keeps state of what was trained",
    "seed": "it decides the order of the data",
    "tokenizer.": "the model has learned the ids of that vocabulary",
    "train.global_batch_size": "the position in the data counts batches of that size",
}


@dataclasses.dataclass(frozen=True)
class Continuation:
    """How a run goes on.

    Attributes:
      changes: settings that differ from those of the run and are accepted.
      newest: the newest checkpoint that can be continued from; None where that is the latest.
    """

    changes: Changes = dataclasses.field(default_factory=dict)
    newest: int | None = None


def plateau_end(settings: Mapping[str, Any]) -> int | None:
    """The step up to which more steps, or fewer, would have been the same run.

    Args:
      settings: of `config.flatten`.

    Returns:
      Where the cool-down of a constant learning rate begins; None for a schedule whose every value
      depends on its length.
    """
    if settings["optimizer.schedule"] != "constant":
        return None
    return settings["train.steps"] - settings["optimizer.cooldown_steps"]


def differences(there: ConfigDict, now: ConfigDict) -> dict[str, tuple[Any, Any]]:
    """The fields that matter to results and are not the same, by dotted name."""
    old, new = flatten(there), flatten(now)
    return {
        name: (old.get(name), new.get(name))
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name) and not _is_free(name, there, now)
    }


def _is_free(name: str, there: ConfigDict, now: ConfigDict) -> bool:
    if name == "data.mixture":  # whose folders may be moved, as data.root may
        shares = [[(kind, share) for kind, _, share in one.data.mixture] for one in (there, now)]
        return shares[0] == shares[1]
    # The options of data sets that neither run reads stand in every configuration.
    unread = name.startswith("data.") and name.count(".") > 1
    unread = unread and name.split(".")[1] not in trained_on(there.data) | trained_on(now.data)
    return unread or name in _FREE_FIELDS or name.startswith(_FREE_PREFIXES)


def decide(
    workdir: Any,
    there: ConfigDict,
    now: ConfigDict,
    steps: Sequence[int],
    *,
    allow_config_change: bool = False,
) -> Continuation:
    """How a run with checkpoints at `steps` goes on under the settings `now`.

    Raises:
      ValueError: it does not; lists the settings that differ, and says what can be done.
    """
    changes = differences(there, now)
    if not changes:
        return Continuation()
    plateau = _common_plateau(there, now, changes)
    if plateau is not None:
        # Where both plans were still the same one.
        usable = [step for step in steps if step <= plateau]
        if usable:
            return Continuation(changes, None if usable[-1] == steps[-1] else usable[-1])
        if not allow_config_change:
            raise ValueError(
                f"{workdir} cannot go on with {_listed(changes)}: the two plans part at step "
                f"{plateau}, where the learning rate begins to fall, and the oldest checkpoint "
                f"kept is of step {steps[0]}; use its settings, or {_start_from_it(workdir)}"
            )
    if not allow_config_change:
        raise ValueError(_refusal(workdir, changes, there.train.steps, steps[-1]))
    if reasons := _reasons(there, now, changes):
        raise ValueError(
            f"{workdir} cannot go on with {_listed({name: changes[name] for name in reasons})}, "
            f"whatever is allowed: {'; '.join(dict.fromkeys(reasons.values()))}; use its "
            f"settings, or {_start_from_it(workdir)}"
        )
    return Continuation(changes)


def _common_plateau(there: ConfigDict, now: ConfigDict, changes: Changes) -> int | None:
    """Up to where two runs that differ in the length of their schedules are the same."""
    if not changes.keys() <= {"train.steps", "optimizer.cooldown_steps"}:
        return None
    ends = [plateau_end(flatten(config)) for config in (there, now)]
    return None if None in ends else min(ends)


def _reasons(there: ConfigDict, now: ConfigDict, changes: Changes) -> dict[str, str]:
    """Field -> why it cannot change."""
    reasons = {
        name: reason
        for name in changes
        for bound, reason in _BOUND.items()
        if name == bound or (bound.endswith((".", "_")) and name.startswith(bound))
    }
    model = [name for name in changes if name.startswith(("model.", "loss."))]
    if model and _parameter_shapes(there) != _parameter_shapes(now):
        reasons |= dict.fromkeys(model, "its parameters have other names or shapes")
    return reasons


def _parameter_shapes(config: ConfigDict) -> Any:
    # Imported here: writing a run's files needs no JAX.
    import flax.linen as nn
    import jax
    import jax.numpy as jnp

    model = build_model(config)
    vision, text = model.config.vision_cfg, model.config.text_cfg
    images = jax.ShapeDtypeStruct((1, vision.image_size, vision.image_size, 3), jnp.float32)
    tokens = jax.ShapeDtypeStruct((1, text.context_length), jnp.int32)
    shapes = nn.meta.unbox(jax.eval_shape(model.init, jax.random.key(0), images, tokens))
    return jax.tree.map(lambda leaf: leaf.shape, shapes)


def _refusal(workdir, changes: Changes, planned: int, latest_step: int) -> str:
    if changes.keys() == {"train.steps"}:
        asked = changes["train.steps"][1]
        if latest_step >= planned:
            return (
                f"{workdir} has finished its {planned} steps, with the learning rate at zero: "
                f"config.train.steps={asked} would be another schedule from the start, not its "
                f"continuation; {_start_from_it(workdir)}"
            )
        return (
            f"{workdir} has a schedule of {planned} steps and is at step {latest_step}: "
            f"config.train.steps={asked} would be another schedule from the start; go on with "
            f"config.train.steps={planned}, or {_start_from_it(workdir)}"
        )
    return (
        f"{workdir} holds another experiment ({_listed(changes)}); use its settings to continue "
        "it, or another --workdir, or --allow-config-change to go on from here with these"
    )


def _listed(changes: Changes) -> str:
    return "; ".join(f"{name}: {old!r} there, {new!r} now" for name, (old, new) in changes.items())


def _start_from_it(workdir) -> str:
    return f"train from its parameters with --config.init_from={workdir} and another --workdir"
