"""A run whose workdir is in a bucket."""

from fetalclip_jax.training import checkpoint
from tests.training import test_checkpoint as disk


def test_checkpoints_come_back_and_old_ones_go(bucket):
    folder, _ = bucket
    disk.write(folder, steps=(4, 8, 12), ema=True)
    assert checkpoint.latest_step(folder) == 12
    assert sorted(path.name for path in (folder / "checkpoints").iterdir()) == ["12", "8"]
    state, seconds = disk.resume(folder, ema=True)
    assert disk.equal(state, disk.make_state(12, ema=True))
    assert seconds == 12.0
    params = checkpoint.restore_params(folder, disk.abstract().params, step=8)
    assert disk.equal(params, disk.make_state(8, ema=True).ema)
