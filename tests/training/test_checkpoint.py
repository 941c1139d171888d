import contextlib
import json
import pathlib
import resource
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fetalclip_jax.training import checkpoint, retention
from fetalclip_jax.training.state import TrainState


def make_state(step, ema=False):
    """A state whose numbers tell its step."""
    params = {"kernel": jnp.full((64, 64), 1.0 * step), "bias": jnp.arange(3.0) + step}
    return TrainState(
        step=jnp.int32(step),
        params=params,
        ema=jax.tree.map(lambda leaf: -leaf, params) if ema else None,
        opt_state={"mu": jax.tree.map(lambda leaf: 2 * leaf, params)},
    )


def save(saver, step, ema=False, metrics=None, state=None):
    saver.save(
        state or make_state(step, ema),
        data={"step": step, "examples": 8 * step},
        progress={"seconds": 1.0 * step},
        metrics=metrics,
    )


def write(workdir, steps=(4, 8), ema=False, losses=(), **options):
    """Checkpoints at `steps`, some with a validation loss."""
    saver = checkpoint.Checkpointer(workdir, **options)
    for number, step in enumerate(steps):
        save(saver, step, ema, {"val_loss": losses[number]} if losses else None)
    saver.finish()
    saver.close()
    return workdir / "checkpoints"


def resume(workdir, ema=False, newest=None, **options):
    """The state and the seconds."""
    restorer = checkpoint.Checkpointer(workdir, **options)
    state, progress = restorer.restore(abstract(ema), newest=newest)
    restorer.close()
    return state, progress["seconds"]


def abstract(ema=False):
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), make_state(0, ema)
    )


def equal(a, b):
    return jax.tree.structure(a) == jax.tree.structure(b) and all(
        np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    )


def largest_file(folder):
    return max((p for p in folder.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)


@pytest.mark.parametrize("ema", [False, True])
def test_everything_comes_back(tmp_path, ema):
    write(tmp_path, ema=ema)
    state, seconds = resume(tmp_path, ema)
    assert equal(state, make_state(8, ema))
    assert seconds == 8.0
    position = json.loads((tmp_path / "checkpoints" / "8" / "data" / "metadata").read_text())
    assert position == {"step": 8, "examples": 64}
    params = checkpoint.restore_params(tmp_path, abstract().params)
    assert equal(params, make_state(8, True).ema if ema else make_state(8).params)


def truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def change_a_bit(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


@pytest.mark.parametrize("damage", [truncate, change_a_bit, pathlib.Path.unlink])
@pytest.mark.parametrize("item", ["params", "optimizer", "data"])
def test_a_damaged_checkpoint_is_said_and_the_one_before_it_used(tmp_path, capfd, item, damage):
    folder = write(tmp_path)
    damage(largest_file(folder / "8" / item))
    params = checkpoint.restore_params(tmp_path, abstract().params)
    newest = 4 if item == "params" else 8  # loading reads nothing else
    assert equal(params, make_state(newest).params)
    said = capfd.readouterr()
    assert said.out.count("\n") == (item == "params")
    if item == "params":
        assert f"{folder / '8'} is damaged (params/" in said.out
        assert "using that of step 4" in said.out

    state, seconds = resume(tmp_path)
    assert equal(state, make_state(4))
    assert seconds == 4.0
    said = capfd.readouterr()
    assert said.out.count("\n") == 1
    assert "renamed to 8.damaged" in said.out
    assert not said.err

    # Nothing of the user's was lost, and the step can be saved again.
    assert sorted(p.name for p in folder.iterdir()) == ["4", "8.damaged"]
    write(tmp_path, steps=(8,))
    assert equal(resume(tmp_path)[0], make_state(8))


def test_what_nothing_can_be_read_of_is_named(tmp_path):
    folder = write(tmp_path)
    for step in ("4", "8"):
        shutil.rmtree(folder / step / "params")
    for read in (resume, lambda workdir: checkpoint.restore_params(workdir, abstract().params)):
        with pytest.raises(
            ValueError, match=rf"{folder}: none of its checkpoints \(4, 8\)"
        ) as error:
            read(tmp_path)
        assert "\n" not in str(error.value)
        assert "delete" not in str(error.value)
    assert sorted(p.name for p in folder.iterdir()) == ["4", "8"]


def test_parameters_of_another_shape_are_not_damage(tmp_path):
    write(tmp_path)
    other = abstract()
    other.params["kernel"] = jax.ShapeDtypeStruct((64, 32), jnp.float32)
    expected = r"do not fit the model .*kernel: \(64, 64\) there, \(64, 32\) in the model"
    with pytest.raises(ValueError, match=expected):
        checkpoint.restore_params(tmp_path, other.params)
    with pytest.raises(ValueError, match=expected):
        checkpoint.Checkpointer(tmp_path).restore(other)


def test_numbers_that_are_not_finite_are_damage(tmp_path, capsys):
    saver = checkpoint.Checkpointer(tmp_path)
    save(saver, 4)
    broken = make_state(8)
    broken.params["bias"] = broken.params["bias"].at[1].set(jnp.nan)
    save(saver, 8, state=broken)
    saver.close()
    assert equal(checkpoint.restore_params(tmp_path, abstract().params), make_state(4).params)
    assert "['bias'] holds numbers that are not finite" in capsys.readouterr().out


def test_checkpoints_of_earlier_versions_are_read(tmp_path):
    folder = write(tmp_path)
    for step in ("4", "8"):
        (folder / step / "files.json").unlink()  # they had none
    assert equal(resume(tmp_path)[0], make_state(8))


def test_parameters_alone_are_a_checkpoint_to_load(tmp_path):
    checkpoint.save_params(tmp_path, make_state(1).params)
    assert checkpoint.latest_step(tmp_path) == 0
    assert equal(checkpoint.restore_params(tmp_path, abstract().params), make_state(1).params)


def steps_of(folder):
    return sorted(int(p.name) for p in folder.iterdir() if p.name.isdigit())


def test_the_best_stays_beside_the_newest(tmp_path):
    losses = (3.0, 1.0, 2.0, float("nan"), 1.0)
    folder = write(tmp_path, (1, 2, 3, 4, 5), losses=losses, keep_best="val_loss")
    assert steps_of(folder) == [2, 4, 5]  # the first of the two best
    assert retention.best_step(tmp_path, "val_loss") == 2
    # Another process, and a save without judgement, know it too.
    write(tmp_path, (6, 7), keep_best="val_loss")
    assert steps_of(folder) == [2, 6, 7]
    best = checkpoint.restore_params(tmp_path, abstract().params, step=2)
    assert equal(best, make_state(2).params)
    with pytest.raises(ValueError, match=r"no checkpoint in .* knows its ema_val_loss"):
        retention.best_step(tmp_path, "ema_val_loss")
    with pytest.raises(ValueError, match="no checkpoint of step 3; there are 2, 6, 7"):
        checkpoint.restore_params(tmp_path, abstract().params, step=3)


def test_without_a_metric_the_newest_stay(tmp_path):
    folder = write(tmp_path, (1, 2, 3), losses=(1.0, 2.0, 3.0), keep=1)
    assert steps_of(folder) == [3]


def test_the_newest_before_a_milestone_stays(tmp_path):
    assert steps_of(write(tmp_path, (2, 4, 6, 7, 8), milestone=5)) == [4, 7, 8]


def test_what_was_saved_later_can_be_passed_over(tmp_path, capfd):
    folder = write(tmp_path, (4, 8), milestone=4)
    state, _ = resume(tmp_path, newest=4)
    assert equal(state, make_state(4))
    assert "8 is superseded (the run goes on from step 4); renamed to 8.superseded" in (
        capfd.readouterr().out
    )
    write(tmp_path, (8,))
    assert sorted(p.name for p in folder.iterdir()) == ["4", "8", "8.superseded"]


@pytest.fixture
def full_disk():
    """Lets the block write no file of more than 2,000 bytes."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    @contextlib.contextmanager
    def full():
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limits[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    yield full
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def noisy_state(step):
    """Its arrays do not compress."""
    kernel = jax.random.normal(jax.random.key(step), (64, 64))
    state = make_state(step)
    return state.replace(params=state.params | {"kernel": kernel})


def test_a_save_that_fails_is_said_and_the_next_succeeds(tmp_path, capfd, full_disk):
    folder = write(tmp_path, (4,))
    saver = checkpoint.Checkpointer(tmp_path, 1)
    with full_disk():
        save(saver, 8, state=noisy_state(8))
        saver.settle()
    save(saver, 12, state=noisy_state(12))
    saver.finish()
    saver.close()
    said = capfd.readouterr().out
    assert said.count("\n") == 1
    assert "checkpoints/8 could not be written (File too large); that of step 4 is whole" in said
    assert [p.name for p in folder.iterdir()] == ["12"]


def test_a_last_save_that_fails_is_an_error_and_leaves_the_one_before(tmp_path, full_disk):
    folder = write(tmp_path, (4,))
    saver = checkpoint.Checkpointer(tmp_path, 1)
    with full_disk():
        save(saver, 8, state=noisy_state(8))
        with pytest.raises(ValueError, match=r"/8 could not be written .* step 4") as error:
            saver.finish()
    saver.close()
    assert "\n" not in str(error.value)
    assert [p.name for p in folder.iterdir()] == ["4"]
    assert equal(resume(tmp_path)[0], make_state(4))


def test_saves_that_fail_one_after_another_end_the_run(tmp_path, full_disk):
    saver = checkpoint.Checkpointer(tmp_path)
    with full_disk():
        for step in (4, 8, 12):
            save(saver, step, state=noisy_state(step))
        with pytest.raises(ValueError, match=r"/12 .* there is none before it: make"):
            saver.settle()
    saver.close()


def test_a_folder_that_is_gone_is_said(tmp_path):
    saver = checkpoint.Checkpointer(tmp_path)
    (tmp_path / "checkpoints").rmdir()
    (tmp_path / "checkpoints").write_text("a file has the name")
    save(saver, 4)
    with pytest.raises(ValueError, match=r"checkpoints/4 could not be written .*: make room or"):
        saver.finish()


def test_a_last_save_that_cannot_begin_is_an_error(tmp_path, monkeypatch, capsys):
    saver = checkpoint.Checkpointer(tmp_path)

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(saver._manager, "save", full)
    save(saver, 4)
    assert "training goes on, and the next save tries again" in capsys.readouterr().out
    with pytest.raises(ValueError, match=r"/4 could not be written \(No space left on device\)"):
        saver.finish()
    save(saver, 8)
    saver.finish()
    saver.close()


def test_what_a_killed_save_left_is_no_checkpoint_and_goes(tmp_path):
    folder = write(tmp_path)
    shutil.copytree(folder / "8", folder / "12.orbax-checkpoint-tmp")
    assert checkpoint.latest_step(tmp_path) == 8
    assert equal(resume(tmp_path)[0], make_state(8))
    assert sorted(p.name for p in folder.iterdir()) == ["4", "8"]


def test_another_tokenizer_is_refused(tmp_path):
    folder = write(tmp_path, tokenizer="a" * 64)
    expected = rf"{folder / '8'} was trained with the tokenizer of fingerprint a{{12}}, .* b{{12}}"
    with pytest.raises(ValueError, match=expected):
        resume(tmp_path, tokenizer="b" * 64)
    with pytest.raises(ValueError, match=expected):
        checkpoint.restore_params(tmp_path, abstract().params, tokenizer="b" * 64)
    assert steps_of(folder) == [4, 8]
    assert equal(resume(tmp_path, tokenizer="a" * 64)[0], make_state(8))


def test_another_optimizer_is_not_damage(tmp_path):
    folder = write(tmp_path)
    other = abstract().replace(opt_state={"nu": abstract().opt_state["mu"]})
    with pytest.raises(
        ValueError, match=r"do not fit the optimizer .*state\.mu\.bias: \(3,\) there"
    ):
        checkpoint.Checkpointer(tmp_path).restore(other)
    assert steps_of(folder) == [4, 8]


def test_an_average_can_begin_on_the_way(tmp_path):
    write(tmp_path)
    state, _ = resume(tmp_path, ema=True)
    assert equal(state.ema, make_state(8).params)


def test_a_position_in_the_data_of_earlier_versions_is_passed_over(tmp_path):
    folder = write(tmp_path)
    for step in ("4", "8"):
        (folder / step / "files.json").unlink()
        (folder / step / "data" / "metadata").unlink()
        (folder / step / "data" / "process_0-of-1.json").write_text('{"next_index": 3}')
    assert equal(resume(tmp_path)[0], make_state(8))
