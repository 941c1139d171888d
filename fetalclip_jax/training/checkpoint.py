"""Every Orbax call of the project: save and restore a training run, or its parameters alone."""

import pathlib
from typing import Any

import grain
import grain.checkpoint
import orbax.checkpoint as ocp

from fetalclip_jax.training.state import TrainState

_FOLDER = "checkpoints"


class Checkpointer:
    """Checkpoints of one run under `<workdir>/checkpoints/<step>/`.

    Parameters, optimiser state and data position are separate items of one atomic checkpoint:
    training restores all three together, everything else restores the parameters alone.
    """

    def __init__(self, workdir: pathlib.Path, keep: int = 2):
        self._manager = ocp.CheckpointManager(
            pathlib.Path(workdir).absolute() / _FOLDER,
            options=ocp.CheckpointManagerOptions(max_to_keep=keep, create=True),
            item_names=("params", "optimizer", "data", "progress"),
        )

    def latest_step(self) -> int | None:
        return self._manager.latest_step()

    def save(
        self, state: TrainState, iterator: grain.DatasetIterator, progress: dict[str, Any]
    ) -> None:
        """Writes in the background; `progress` is small JSON, such as the seconds trained."""
        self._manager.save(
            int(state.step),
            args=ocp.args.Composite(
                params=ocp.args.StandardSave(state.params),
                optimizer=ocp.args.StandardSave({"step": state.step, "state": state.opt_state}),
                data=grain.checkpoint.CheckpointSave(iterator),
                progress=ocp.args.JsonSave(progress),
            ),
        )

    def restore(
        self, abstract: TrainState, iterator: grain.DatasetIterator
    ) -> tuple[TrainState, dict[str, Any]]:
        """The latest state in the shardings of `abstract`; moves `iterator` to its position."""
        restored = self._manager.restore(
            self._manager.latest_step(),
            args=ocp.args.Composite(
                params=ocp.args.StandardRestore(abstract.params),
                optimizer=ocp.args.StandardRestore(
                    {"step": abstract.step, "state": abstract.opt_state}
                ),
                data=grain.checkpoint.CheckpointRestore(iterator),
                progress=ocp.args.JsonRestore(),
            ),
        )
        optimizer = restored["optimizer"]
        state = TrainState(optimizer["step"], restored["params"], optimizer["state"])
        return state, restored["progress"]

    def close(self) -> None:
        """Waits for pending writes."""
        self._manager.wait_until_finished()
        self._manager.close()


def latest_step(workdir: pathlib.Path) -> int | None:
    """The newest finished checkpoint of a run, or None."""
    folder = pathlib.Path(workdir) / _FOLDER
    steps = [int(p.name) for p in folder.glob("*") if p.name.isdigit()]
    return max(steps, default=None)


def save_params(workdir: pathlib.Path, params: Any) -> None:
    """Writes parameters that came from elsewhere as the checkpoint of step 0."""
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(pathlib.Path(workdir).absolute() / _FOLDER / "0" / "params", params)


def restore_params(workdir: pathlib.Path, abstract_params: Any) -> Any:
    """Parameters of the latest checkpoint under `workdir`, in the shardings asked for.

    Raises:
      ValueError: there is no checkpoint, or its parameters have other names or shapes.
    """
    step = latest_step(workdir)
    if step is None:
        raise ValueError(
            f"{workdir} holds no checkpoint (expected {_FOLDER}/<step>/ in it); "
            "train first: fetalclip train --config ... --workdir ..."
        )
    folder = pathlib.Path(workdir).absolute() / _FOLDER / str(step) / "params"
    with ocp.StandardCheckpointer() as checkpointer:
        try:
            return checkpointer.restore(folder, abstract_params)
        except (ValueError, KeyError, FileNotFoundError) as error:
            raise ValueError(
                f"the parameters in {folder} do not fit the model described by "
                f"{workdir}/config.json: {error}"
            ) from error
