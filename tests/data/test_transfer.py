"""Values that go from process to process."""

import dataclasses
import pathlib
import types

import numpy as np
import pytest

from fetalclip_jax.data import transfer

BLOCKS = pathlib.Path("/dev/shm")


@dataclasses.dataclass
class Value:
    text: str
    arrays: list[np.ndarray]


@pytest.fixture
def value():
    rng = np.random.default_rng(0)
    arrays = [
        rng.integers(0, 256, (3, 100_003), np.uint8),
        rng.normal(size=(7, 1001)),
        rng.normal(size=(300, 200)).T[::2],  # not contiguous
        np.zeros((0, 4), np.int32),
    ]
    return Value("text", arrays)


def blocks():
    return {path.name for path in BLOCKS.glob("psm_*")} if BLOCKS.is_dir() else set()


def test_a_value_comes_back_and_leaves_nothing_behind(value):
    before = blocks()
    packed = transfer.pack(value)
    assert packed.block is not None
    assert len(packed.pickled) < 2**18  # the array that is not contiguous
    found = transfer.unpack(packed)
    assert found.text == "text"
    for a, b in zip(found.arrays, value.arrays, strict=True):
        np.testing.assert_array_equal(a, b)
        assert a.dtype == b.dtype
        assert a.flags.writeable
        assert a.flags.aligned
    transfer.discard(transfer.pack(value))
    assert blocks() <= before


def test_small_values_and_full_memory_take_the_pipe(value, monkeypatch):
    assert transfer.pack(np.zeros(100)).block is None
    monkeypatch.setattr(
        transfer.shutil, "disk_usage", lambda _: types.SimpleNamespace(free=1_000_000)
    )
    monkeypatch.setattr(transfer, "_SHARED_MEMORY", pathlib.Path(__file__).parent)
    packed = transfer.pack(value)
    assert packed.block is None
    for a, b in zip(transfer.unpack(packed).arrays, value.arrays, strict=True):
        np.testing.assert_array_equal(a, b)
