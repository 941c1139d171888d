import os

import pytest

from fetalclip_jax.sweeps import slots


@pytest.fixture
def machine(monkeypatch):
    """Four cores and two GPUs."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3})
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    return monkeypatch


def test_cores_and_gpus_are_shared_out_once(machine):
    first, second = slots.divide(2)
    assert first.cores | second.cores == {0, 1, 2, 3}
    assert not first.cores & second.cores
    assert [one.environment for one in (first, second)] == [
        {"CUDA_VISIBLE_DEVICES": "0"},
        {"CUDA_VISIBLE_DEVICES": "1"},
    ]
    (alone,) = slots.divide(1)
    assert (alone.cores, alone.environment) == ({0, 1, 2, 3}, {})


def test_more_jobs_than_there_is_room_for_are_refused(machine):
    with pytest.raises(ValueError, match="--jobs=5: use 1 to 4, the processor cores"):
        slots.divide(5)
    with pytest.raises(ValueError, match="--jobs=3: use 1 to 2, the GPUs"):
        slots.divide(3)
    machine.setenv("JAX_PLATFORMS", "cpu")
    assert len(slots.divide(3)) == 3
    with pytest.raises(ValueError, match="--jobs=0"):
        slots.divide(0)
