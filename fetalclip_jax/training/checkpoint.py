"""Every Orbax call of the project: save and restore a training run, or its parameters alone."""

import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from fetalclip_jax.run import Run, is_lead
from fetalclip_jax.training import integrity
from fetalclip_jax.training.state import TrainState


class Checkpointer:
    """Checkpoints of one run under `<workdir>/checkpoints/<step>/`.

    Parameters, their average, optimiser state and data position are separate items of one atomic
    checkpoint: training restores all of them together, everything else the parameters alone.
    """

    def __init__(self, workdir: pathlib.Path, keep: int = 2):
        self._folder = Run(workdir).checkpoints.absolute()
        self._manager = ocp.CheckpointManager(
            self._folder,
            options=ocp.CheckpointManagerOptions(
                max_to_keep=keep,
                create=True,
                async_options=ocp.AsyncOptions(post_finalization_callback=self._record),
            ),
            item_names=("params", "ema", "optimizer", "data", "progress"),
        )

    def latest_step(self) -> int | None:
        return self._manager.latest_step()

    def save(self, state: TrainState, progress: dict[str, Any]) -> None:
        """Writes in the background; `progress` is small JSON, such as the seconds trained."""
        ema = {} if state.ema is None else {"ema": ocp.args.StandardSave(state.ema)}
        self._manager.save(
            int(state.step),
            args=ocp.args.Composite(
                params=ocp.args.StandardSave(state.params),
                optimizer=ocp.args.StandardSave({"step": state.step, "state": state.opt_state}),
                data=ocp.args.JsonSave({"step": int(state.step)}),
                progress=ocp.args.JsonSave(progress),
                **ema,
            ),
        )

    def restore(self, abstract: TrainState) -> tuple[TrainState, dict[str, Any]]:
        """The latest readable state in the shardings of `abstract`, and what `save` was told.

        Damaged checkpoints after it are said on the terminal and renamed, so that the steps they
        were of can be saved again.

        Raises:
          ValueError: none can be read, or the parameters have other names or shapes.
        """
        damaged: dict[int, str] = {}
        for step in sorted(self._manager.all_steps(), reverse=True):
            if found := integrity.damage(self._folder / str(step)):
                damaged[step] = found
                continue
            _check_fits(self._folder / str(step) / "params", abstract.params)
            try:
                restored = self._restore(step, abstract)
            except Exception as error:  # of Orbax, TensorStore or json, by what is damaged
                damaged[step] = _reason(error)
            else:
                self._set_aside(damaged)
                return restored
        raise ValueError(_none_readable(self._folder, damaged))

    def _restore(self, step, abstract) -> tuple[TrainState, dict[str, Any]]:
        ema = {} if abstract.ema is None else {"ema": ocp.args.StandardRestore(abstract.ema)}
        restored = self._manager.restore(
            step,
            args=ocp.args.Composite(
                params=ocp.args.StandardRestore(abstract.params),
                optimizer=ocp.args.StandardRestore(
                    {"step": abstract.step, "state": abstract.opt_state}
                ),
                data=ocp.args.JsonRestore(),
                progress=ocp.args.JsonRestore(),
                **ema,
            ),
        )
        optimizer = restored["optimizer"]
        state = TrainState(
            step=optimizer["step"],
            params=restored["params"],
            ema=restored["ema"] if ema else None,
            opt_state=optimizer["state"],
        )
        _check_finite(state)
        return state, restored["progress"]

    def _set_aside(self, damaged: dict[int, str]) -> None:
        for step, reason in damaged.items():
            folder = self._folder / str(step)
            aside = _unused(folder.with_name(f"{step}.damaged"))
            print(f"{folder} is damaged ({reason}); renamed to {aside.name}", flush=True)
            if is_lead():
                folder.rename(aside)
        if damaged:
            self._manager.reload()

    def _record(self) -> None:
        """Notes what was written; called when all of it is, before the folder gets its name."""
        for path in self._folder.iterdir():
            aside = ".damaged" in path.name
            if path.is_dir() and not aside and not integrity.is_recorded(path):
                integrity.record(path)

    def close(self) -> None:
        """Waits for pending writes."""
        self._manager.wait_until_finished()
        self._manager.close()


def latest_step(workdir: pathlib.Path) -> int | None:
    """The newest finished checkpoint of a run, or None."""
    return max(Run(workdir).steps(), default=None)


def save_params(workdir: pathlib.Path, params: Any) -> None:
    """Writes parameters that came from elsewhere as the checkpoint of step 0."""
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(Run(workdir).checkpoints.absolute() / "0" / "params", params)


def restore_params(workdir: pathlib.Path, abstract_params: Any) -> Any:
    """Parameters of the latest readable checkpoint, in the shardings asked for.

    Those of a run that keeps averaged parameters are the averaged ones. A damaged checkpoint is
    said on the terminal, and the one before it used.

    Raises:
      ValueError: there is no checkpoint, none can be read, or its parameters have other names or
        shapes.
    """
    run = Run(workdir)
    folder, steps = run.checkpoints.absolute(), run.steps()
    if not steps:
        raise ValueError(
            f"{workdir} holds no checkpoint (expected {folder.name}/<step>/ in it); "
            "train first: fetalclip train --config ... --workdir ..."
        )
    averaged = any((folder / str(step) / "ema").exists() for step in steps)
    damaged: dict[int, str] = {}
    for step in reversed(steps):
        item = folder / str(step) / ("ema" if averaged else "params")
        if found := integrity.damage(folder / str(step), item.name):
            damaged[step] = found
            continue
        _check_fits(item, abstract_params)
        try:
            with ocp.StandardCheckpointer() as checkpointer:
                params = checkpointer.restore(item, abstract_params)
            _check_finite(params)
        except Exception as error:  # of Orbax or TensorStore, by what is damaged
            damaged[step] = _reason(error)
        else:
            for newer, reason in damaged.items():
                print(
                    f"{folder / str(newer)} is damaged ({reason}); using that of step {step}",
                    flush=True,
                )
            return params
    raise ValueError(_none_readable(folder, damaged))


def _check_finite(tree: Any) -> None:
    """Raises ValueError where a number is NaN or infinite: no run saves such a state."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            continue
        # In NumPy: a compilation for every shape would take longer than looking.
        for shard in leaf.addressable_shards:
            if shard.replica_id == 0 and not np.isfinite(np.asarray(shard.data)).all():
                raise ValueError(f"{jax.tree_util.keystr(path)} holds numbers that are not finite")


def _check_fits(item: pathlib.Path, abstract: Any) -> None:
    """Raises ValueError if the parameters of a checkpoint are those of another model.

    Asked first: Orbax reads all arrays at once, and each that does not fit reports it.
    """
    try:
        there = _shapes(ocp.StandardCheckpointHandler().metadata(item).tree)
    except Exception:  # unreadable: damaged, not another model
        return
    here = _shapes(abstract)
    differing = [
        f"{name}: {there.get(name, 'none')} there, {here.get(name, 'none')} in the model"
        for name in sorted(there.keys() | here.keys())
        if there.get(name) != here.get(name)
    ]
    if differing:
        raise ValueError(
            f"the parameters in {item} do not fit the model described by config.json: "
            f"{'; '.join(differing[:3])}{' ...' if len(differing) > 3 else ''}"
        )


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path): tuple(leaf.shape) for path, leaf in leaves}


def _reason(error: Exception) -> str:
    """The first cause of an error, short."""
    while error.__cause__ is not None:
        error = error.__cause__
    if type(error) is ValueError:
        return _short(str(error))
    return f"{type(error).__name__}: {_short(str(error))}"


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= 160 else text[:160] + "..."


def _none_readable(folder: pathlib.Path, damaged: dict[int, str]) -> str:
    step, reason = next(iter(damaged.items()))
    return (
        f"{folder}: none of its checkpoints ({', '.join(map(str, sorted(damaged)))}) can be read "
        f"({step}: {reason}); put back a copy of one, or train in another --workdir"
    )


def _unused(path: pathlib.Path) -> pathlib.Path:
    """`path`, or with a number behind it where something has that name."""
    number, name = 1, path.name
    while path.exists():
        number += 1
        path = path.with_name(f"{name}-{number}")
    return path
