"""Damaged and strange `.safetensors` files."""

import json
import struct

import numpy as np
import pytest

from fetalclip_jax.weights import safetensors_file


def write(path, header, data=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def tensor(dtype="F32", shape=(2,), offsets=(0, 8)):
    return {"w": {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}}


@pytest.mark.parametrize(
    ("header", "data"),
    [
        (b"", b""),
        (b"{", b""),
        (b"not json", b""),
        (tensor(), b"1234567"),  # cut off
        (tensor(offsets=(0, 2**60)), b"12345678"),
        (tensor(offsets=(8, 16)), b"12345678"),  # out of bounds
        (tensor(shape=(2**62, 2**62)), b"12345678"),
        (tensor(dtype="F99"), b"12345678"),
    ],
)
def test_damaged_files_are_value_errors_that_name_them(tmp_path, header, data):
    path = write(tmp_path / "x.safetensors", header, data)
    with pytest.raises(ValueError, match=r"x\.safetensors: not a readable"):
        safetensors_file.open_tensors(path)


def test_files_that_are_none_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"missing\.safetensors"):
        safetensors_file.open_tensors(tmp_path / "missing.safetensors")
    (tmp_path / "short.safetensors").write_bytes(b"abc")
    with pytest.raises(ValueError, match=r"short\.safetensors"):
        safetensors_file.open_tensors(tmp_path / "short.safetensors")
    with pytest.raises(ValueError, match=str(tmp_path)):
        safetensors_file.open_tensors(tmp_path)


def test_unknown_data_types_are_named(tmp_path):
    path = write(tmp_path / "x.safetensors", tensor("F8_E4M3", (8,)), b"12345678")
    with pytest.raises(ValueError, match="'w' has data type F8_E4M3; known are F64"):
        safetensors_file.open_tensors(path)


def test_a_saved_file_is_as_readable_as_any_and_in_parts(tmp_path):
    values = np.arange(24, dtype=np.float32).reshape(4, 6)
    safetensors_file.save(
        tmp_path / "x.safetensors", {"w": values, "s": np.full((), 3, np.float32)}
    )
    (tmp_path / "other").write_bytes(b"")
    assert (tmp_path / "x.safetensors").stat().st_mode == (tmp_path / "other").stat().st_mode
    entries = safetensors_file.open_tensors(tmp_path / "x.safetensors")
    np.testing.assert_array_equal(entries["w"].read(), values)
    part = entries["w"].read_slice((slice(1, 3), slice(2, 5)))
    np.testing.assert_array_equal(part, values[1:3, 2:5])
    assert entries["s"].read().shape == ()
