import json
import pathlib
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fetalclip_jax.training import checkpoint
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
