"""Every Orbax call of the project: save and restore a training run, or its parameters alone."""

import contextlib
import functools
import logging
import pathlib
import tempfile
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils

from fetalclip_jax import storage
from fetalclip_jax.parallel import distributed
from fetalclip_jax.run import RECORDED, Run, is_lead
from fetalclip_jax.training import bucket_checkpoints, integrity, retention
from fetalclip_jax.training.state import TrainState

# Saves that may fail one after another before a run stops.
_FAILURES = 3
_ADVICE = (
    ": make room or the folder writable, then run the same command again; it goes on from the "
    "latest checkpoint"
)
_ITEMS = ("params", "ema", "optimizer", "data", "progress")


class Checkpointer:
    """Checkpoints of one run under `<workdir>/checkpoints/<step>/`.

    Parameters, their average, optimiser state and data position are separate items of one atomic
    checkpoint: training restores all of them together, everything else the parameters alone. An
    old checkpoint is deleted after the new one is complete.

    Args:
      keep: how many of the newest stay.
      keep_best: name of a metric; the checkpoint where it was lowest stays too.
      milestone: a step; the newest checkpoint not after it stays too.
      tokenizer: fingerprint of the model's tokenizer.

    Raises:
      ValueError: the folder cannot be written.
    """

    def __init__(
        self,
        workdir: storage.Path,
        keep: int = 2,
        *,
        keep_best: str = "",
        milestone: int | None = None,
        tokenizer: str = "",
    ):
        self._folder = self._named = Run(workdir).checkpoints.absolute()
        self._keep_best = keep_best
        self._kept = retention.Kept(keep, milestone, self._best_step)
        self._tokenizer = tokenizer
        self._pending: int | None = None
        self._failures: list[str] = []  # since the last save that succeeded
        logging.getLogger("absl").addFilter(_not_of_orbax)
        self._mirror: bucket_checkpoints.Mirror | None = None
        if not bucket_checkpoints.is_written_by_orbax(self._named):
            self._mirror = bucket_checkpoints.Mirror(self._named)
            self._folder = self._mirror.folder
        try:
            self._open()
        except storage.BucketError:
            raise
        except OSError as error:
            raise ValueError(
                f"{self._named} cannot be written ({error.strerror}); make it writable, or choose "
                "another --workdir"
            ) from error

    def _open(self) -> None:
        if is_lead():
            retention.remove_half_written(self._folder)
            bucket_checkpoints.adopt(self._folder)
        self._manager = _Manager(
            self._folder,
            options=ocp.CheckpointManagerOptions(
                preservation_policy=self._kept,
                create=True,
                async_options=ocp.AsyncOptions(
                    post_finalization_callback=self._record,
                    # Where a folder cannot be made, nothing in the background waits for it.
                    create_directories_asynchronously=False,
                ),
            ),
            item_names=_ITEMS,
        )
        steps = self._manager.all_steps()
        self._metrics = {step: retention.metrics(self._folder / str(step)) for step in steps}

    def latest_step(self) -> int | None:
        return self._manager.latest_step()

    def save(
        self,
        state: TrainState,
        *,
        data: Mapping[str, int],
        progress: Mapping[str, Any],
        metrics: Mapping[str, float] | None = None,
    ) -> None:
        """Writes in the background, after waiting for the save before this one.

        A save that fails is said on the terminal, and training goes on: the checkpoints before it
        are untouched. Whether this one failed is said by the next call.

        Args:
          data: position in the data, {"step", "examples"}.
          progress: small JSON, such as the seconds trained.
          metrics: of these parameters on data for validation.

        Raises:
          ValueError: several saves in a row have failed.
        """
        self.settle()
        step = int(jax.device_get(state.step))
        if step in self._manager.all_steps():
            return
        self._pending = step
        self._metrics[step] = dict(metrics or {})
        ema = {} if state.ema is None else {"ema": ocp.args.StandardSave(state.ema)}
        items = ocp.args.Composite(
            params=ocp.args.StandardSave(state.params),
            optimizer=ocp.args.StandardSave(_optimizer_item(state)),
            data=ocp.args.JsonSave(dict(data)),
            progress=ocp.args.JsonSave(
                {**progress, "tokenizer": self._tokenizer, "metrics": self._metrics[step]}
            ),
            **ema,
        )
        try:
            self._manager.save(step, args=items)
        except Exception as error:  # of Orbax, TensorStore or the system, by what is wrong
            self._failed(error)
        else:
            if self._mirror is not None:
                self._mirror.send(self._manager.wait_until_finished)

    def settle(self, *, last: bool = False) -> None:
        """Waits for the save in progress; says it where that failed.

        Args:
          last: no other save will make up for it.

        Raises:
          ValueError: as `save`, or the last one failed.
        """
        if self._pending is None:
            return
        try:
            if self._mirror is not None:
                self._mirror.wait()
            self._manager.wait_until_finished()
        except Exception as error:  # as in `save`
            self._failed(error, last)
        else:
            self._pending, self._failures = None, []

    def finish(self) -> None:
        """Waits until the last save is on the disk.

        Raises:
          ValueError: it could not be written.
        """
        self.settle(last=True)
        if self._failures:  # before it was on its way
            raise ValueError(self._failures[-1] + _ADVICE)

    def _failed(self, error: Exception, last: bool = False) -> None:
        message = f"{self._named / str(self._pending)} could not be written"
        self._failures.append(f"{message} ({integrity.reason(error)})")
        self._pending = None
        if jax.process_count() > 1:
            # The others wait for this one, where nothing but its end can tell them.
            raise ValueError(self._failures[-1] + _ADVICE)
        # What Orbax believes about its folder is no longer so.
        with contextlib.suppress(Exception):  # the same error again
            self._manager.close()
        try:
            self._open()
        except OSError:  # nor can anything else
            last = True
        else:
            latest = self.latest_step()
            self._failures[-1] += (
                "; there is none before it"
                if latest is None
                else f"; that of step {latest} is whole"
            )
        # Where several processes write, they no longer know what the others have seen.
        if last or len(self._failures) >= _FAILURES or jax.process_count() > 1:
            raise ValueError(self._failures[-1] + _ADVICE)
        distributed.say(f"{self._failures[-1]}; training goes on, and the next save tries again")

    def restore(
        self, abstract: TrainState, *, newest: int | None = None
    ) -> tuple[TrainState, dict[str, Any]]:
        """The latest readable state, in the shardings of `abstract`, and its progress.

        Damaged checkpoints after it are said on the terminal and renamed, so that the steps they
        were of can be saved again. All processes of a job take the same one.

        Args:
          newest: pass over, and rename, what was saved after this step.

        Raises:
          ValueError: none can be read, the state has other names or shapes, or was trained with
            another tokenizer.
        """
        steps = sorted(self._manager.all_steps(), reverse=True)
        later = [step for step in steps if newest is not None and step > newest]
        aside = {step: ("superseded", f"the run goes on from step {newest}") for step in later}
        damaged: dict[int, str] = {}
        for step in steps[len(later) :]:
            folder = self._folder / str(step)
            if found := distributed.on_lead(functools.partial(integrity.damage, folder)):
                damaged[step] = found
                continue
            _check_fits(folder / "params", abstract.params)
            _check_fits(folder / "optimizer", _optimizer_item(abstract), "optimizer")
            integrity.check_tokenizer(folder, self._tokenizer)
            restored, failure = None, None
            try:
                restored = self._restore(step, abstract)
            except Exception as error:  # of Orbax, TensorStore or json, by what is damaged
                failure = _why_unreadable(folder, error)
            if failure := distributed.found_anywhere(failure):
                damaged[step] = failure
                continue
            aside |= {step: ("damaged", reason) for step, reason in damaged.items()}
            self._set_aside(aside)
            return restored
        raise ValueError(_none_readable(self._named, damaged))

    def _restore(self, step: int, abstract: TrainState) -> tuple[TrainState, dict[str, Any]]:
        folder = self._folder / str(step)
        averaged = abstract.ema is not None and (folder / "ema").exists()
        args = {
            "params": ocp.args.StandardRestore(abstract.params),
            "optimizer": ocp.args.StandardRestore(_optimizer_item(abstract)),
            "progress": ocp.args.JsonRestore(),
        }
        if averaged:
            args["ema"] = ocp.args.StandardRestore(abstract.ema)
        restored = self._manager.restore(step, args=ocp.args.Composite(**args))
        optimizer, params, ema = restored["optimizer"], restored["params"], None
        if averaged:
            ema = restored["ema"]
        elif abstract.ema is not None:  # an average that begins now
            ema = jax.tree.map(jnp.copy, params)
        state = TrainState(optimizer["step"], params, ema, optimizer["state"])
        integrity.check_finite(state)
        integrity.check_position(folder, int(state.step))
        return state, restored["progress"]

    def _set_aside(self, steps: Mapping[int, tuple[str, str]]) -> None:
        for step, (what, reason) in steps.items():
            folder = self._folder / str(step)
            if is_lead():
                aside = retention.unused(folder.with_name(f"{step}.{what}"))
                named = self._named / str(step)
                distributed.say(f"{named} is {what} ({reason}); renamed to {aside.name}")
                folder.rename(aside)
                if self._mirror is not None:
                    self._mirror.set_aside(step, aside.name)
            del self._metrics[step]
        if steps:
            if jax.process_count() > 1:
                multihost_utils.sync_global_devices("checkpoints set aside")
            self._manager.reload()

    def _record(self) -> None:
        """Notes what was written; called when all of it is, before the folder gets its name."""
        for path in self._folder.iterdir():
            aside = path.name.endswith(".damaged") or ".damaged-" in path.name
            if path.is_dir() and not aside and not integrity.is_recorded(path):
                integrity.record(path)

    def _best_step(self) -> int | None:
        return retention.best(self._metrics, self._keep_best)

    def close(self) -> None:
        """Waits for pending writes; says it where they fail."""
        try:
            self.settle()
        except ValueError as error:
            distributed.say(str(error))
        self._manager.close()
        if self._mirror is not None:
            self._mirror.close()


def _not_of_orbax(record: logging.LogRecord) -> bool:
    """Which lines are logged: what goes wrong is said here, in one instead of fifty."""
    return "/orbax/" not in record.pathname


def _optimizer_item(state: TrainState) -> dict[str, Any]:
    return {"step": state.step, "state": state.opt_state}


class _Manager(ocp.CheckpointManager):
    def reached_preemption(self, step: int) -> bool:
        """Never: the training loop asks JAX, once for each step.

        JAX takes the step it was last asked about for the one a process is at, and Orbax asks
        about earlier ones.
        """
        return False


def latest_step(workdir: storage.Path) -> int | None:
    """The newest finished checkpoint of a run, or None."""
    return max(Run(workdir).steps(), default=None)


def save_params(workdir: storage.Path, params: Any) -> None:
    """Writes parameters that came from elsewhere as the checkpoint of step 0."""
    folder = Run(workdir).checkpoints.absolute() / "0"
    if not bucket_checkpoints.is_written_by_orbax(folder):
        with tempfile.TemporaryDirectory() as temporary:
            save_params(pathlib.Path(temporary), params)
            storage.upload(Run(temporary).checkpoints / "0", folder, RECORDED)
        return
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(folder / "params", params)
    if is_lead():
        integrity.record(folder)


def restore_params(
    workdir: storage.Path,
    abstract_params: Any,
    *,
    step: int | None = None,
    tokenizer: str = "",
) -> Any:
    """Parameters of the latest readable checkpoint, in the shardings asked for.

    Those of a run that keeps averaged parameters are the averaged ones. A damaged checkpoint is
    said on the terminal, and the one before it used.

    Args:
      step: read the checkpoint of this step and no other.
      tokenizer: fingerprint of the tokenizer of the model.

    Raises:
      ValueError: there is no checkpoint, none can be read, its parameters have other names or
        shapes, or it was trained with another tokenizer.
    """
    run = Run(workdir)
    folder, steps = run.checkpoints.absolute(), run.steps()
    if step is not None:
        if step not in steps:
            raise ValueError(
                f"{folder} holds no checkpoint of step {step}; there are "
                f"{', '.join(map(str, steps)) or 'none'}"
            )
        steps = [step]
    if not steps:
        raise ValueError(
            f"{workdir} holds no checkpoint (expected {folder.name}/<step>/ in it); "
            "train first: fetalclip train --config ... --workdir ..."
        )
    averaged = any((folder / str(step) / "ema").exists() for step in steps)
    damaged: dict[int, str] = {}
    for step in reversed(steps):
        item = bucket_checkpoints.readable(folder / str(step)) / ("ema" if averaged else "params")
        if found := distributed.on_lead(lambda item=item: integrity.damage(item.parent, item.name)):
            damaged[step] = found
            continue
        _check_fits(item, abstract_params)
        integrity.check_tokenizer(item.parent, tokenizer)
        params, failure = None, None
        try:
            with ocp.StandardCheckpointer() as checkpointer:
                params = checkpointer.restore(item, abstract_params)
            integrity.check_finite(params)
        except Exception as error:  # of Orbax or TensorStore, by what is damaged
            failure = _why_unreadable(item.parent, error)
        if failure := distributed.found_anywhere(failure):
            damaged[step] = failure
            continue
        for newer, reason in damaged.items():
            distributed.say(
                f"{folder / str(newer)} is damaged ({reason}); using that of step {step}"
            )
        return params
    raise ValueError(_none_readable(folder, damaged))


def _why_unreadable(folder: storage.Path, error: Exception) -> str:
    """What is damaged; a bucket that is out of reach damages nothing, and is raised."""
    if storage.is_bucket(folder) and storage.is_outage(error):
        raise ValueError(
            f"{folder} cannot be read now ({integrity.reason(error)}); nothing is wrong with it: "
            "run the same command again when the bucket answers"
        ) from error
    return integrity.reason(error)


def _check_fits(item: storage.Path, abstract: Any, noun: str = "model") -> None:
    """Raises ValueError if the arrays of a checkpoint are those of another model or optimiser.

    Asked first: Orbax reads all arrays at once, and each that does not fit reports it.
    """
    try:
        there = ocp.StandardCheckpointHandler().metadata(item).tree
    except Exception:  # unreadable: damaged, not another model
        return
    integrity.check_shapes(item, there, abstract, noun)


def _none_readable(folder: storage.Path, damaged: dict[int, str]) -> str:
    step, reason = next(iter(damaged.items()))
    return (
        f"{folder}: none of its checkpoints ({', '.join(map(str, sorted(damaged)))}) can be read "
        f"({step}: {reason}); put back a copy of one, or train in another --workdir"
    )
