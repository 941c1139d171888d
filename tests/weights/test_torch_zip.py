"""Torch archives: what is found in them, and which are refused."""

import pathlib
import struct
import tracemalloc
import zipfile

import ml_dtypes
import numpy as np
import pytest

from fetalclip_jax.weights import torch_zip
from tests.weights import torch_files
from tests.weights.refusals import ONES, refusal
from tests.weights.torch_files import Call, Global, Outside, Raw, tensor

GOLDEN = pathlib.Path(__file__).parent / "golden"


def _arrays(dtype=np.float32) -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    return {
        "visual.proj": (random.standard_normal((6, 4)) * 50).astype(dtype),
        "ln.weight": (random.standard_normal(4) * 50).astype(dtype),
        "logit_scale": np.array(3).astype(dtype),
    }


def _assert_same(entries, arrays):
    assert list(entries) == list(arrays)
    for name, array in arrays.items():
        entry, read = entries[name], entries[name].read()
        assert (entry.name, entry.shape, entry.dtype) == (name, array.shape, array.dtype)
        assert read.dtype == array.dtype
        assert read.flags.c_contiguous
        assert read.flags.owndata or read.base.flags.owndata
        np.testing.assert_array_equal(read, array)


@pytest.mark.parametrize("dtype", [*torch_files.STORAGES])
def test_reads_every_storage_type(tmp_path, dtype):
    arrays = _arrays(getattr(ml_dtypes, dtype, dtype))
    path = torch_files.save(tmp_path / "a.pt", *torch_files.state(arrays))
    _assert_same(torch_zip.open_tensors(path), arrays)


def test_any_root_folder_and_a_path_of_text(tmp_path):
    tensors, storages = torch_files.state(_arrays())
    path = torch_files.save(tmp_path / "a.pt", tensors, storages, root="FetalCLIP_weights")
    _assert_same(torch_zip.open_tensors(str(path)), _arrays())


def test_a_bool_of_any_byte_is_true_or_false(tmp_path):
    content = {"mask": tensor("0", (4,), dtype="bool")}
    path = torch_files.save(tmp_path / "a.pt", content, {"0": b"\x00\x01\x02\xff"})
    read = torch_zip.open_tensors(path)["mask"].read()
    assert read.view(np.uint8).tolist() == [0, 1, 1, 1]


def test_finds_the_state_dict_of_a_training_checkpoint(tmp_path):
    tensors, storages = torch_files.state(_arrays())
    content = {
        "epoch": 3,
        "name": "run",
        "best": None,
        "done": True,
        "learning_rate": 1e-4,
        "state_dict": tensors,
        "optimizer": {"state": {0: {"step": tensors["logit_scale"]}}, "groups": [{"lr": (1, 2.5)}]},
        "size": Call(Global("torch", "Size"), ((1, 2),)),
        "device": Call(Global("torch", "device"), ("cuda", 0)),
        "precision": Global("torch", "bfloat16"),
    }
    path = torch_files.save(tmp_path / "a.pt", content, storages)
    _assert_same(torch_zip.open_tensors(path), _arrays())


@pytest.mark.parametrize(
    "keys", [("model",), ("model_state_dict",), ("module",), ("model", "state_dict")]
)
def test_finds_the_state_dict_where_other_trainers_keep_it(tmp_path, keys):
    content, storages = torch_files.state(_arrays())
    for key in reversed(keys):
        content = {"epoch": 3, key: content, "optimizer": {"state": {}}}
    path = torch_files.save(tmp_path / "a.pt", content, storages)
    _assert_same(torch_zip.open_tensors(path), _arrays())


def test_settings_under_the_key_of_a_state_dict_are_none(tmp_path):
    content = {"model": {"name": "ViT-B-32"}, "w": tensor("0", (2,))}
    path = torch_files.save(tmp_path / "a.pt", content, ONES)
    assert list(torch_zip.open_tensors(path)) == ["w"]


def test_a_state_dict_within_itself_ends(tmp_path):
    # An empty dict, kept in the memo, whose item "model" is that dict.
    loop = Raw(b"}q\x01X\x05\x00\x00\x00modelh\x01s")
    path = torch_files.save(tmp_path / "a.pt", loop, ONES)
    assert "no tensors by name" in refusal(path)


def test_a_tensor_called_state_dict_is_a_tensor(tmp_path):
    path = torch_files.save(tmp_path / "a.pt", {"state_dict": tensor("0", (2,))}, ONES)
    assert list(torch_zip.open_tensors(path)) == ["state_dict"]


def test_ordered_dict_with_metadata(tmp_path):
    # What model.state_dict() gives: an OrderedDict filled, and an attribute set on it.
    items = torch_files.opcodes("w") + torch_files.opcodes(tensor("0", (2, 3)))
    metadata = torch_files.opcodes({"_metadata": {"": {"version": 1}}})
    state = Raw(torch_files.ORDERED_DICT.opcodes + b"(" + items + b"u" + metadata + b"b")
    path = torch_files.save(tmp_path / "a.pt", state, ONES)
    _assert_same(torch_zip.open_tensors(path), {"w": np.ones((2, 3), np.float32)})


def test_parameters(tmp_path):
    rebuild = Global("torch._utils", "_rebuild_parameter")
    content = {"w": Call(rebuild, (tensor("0", (2, 3)), True, torch_files.ORDERED_DICT))}
    path = torch_files.save(tmp_path / "a.pt", content, ONES)
    _assert_same(torch_zip.open_tensors(path), {"w": np.ones((2, 3), np.float32)})


def test_shared_storage_offsets_and_strides(tmp_path):
    numbers = np.arange(24, dtype=np.float32)
    content = {
        "all": tensor("0", (2, 3, 4), size=24),
        "row": tensor("0", (4,), offset=8, size=24),
        "transposed": tensor("0", (4, 6), strides=(1, 4), size=24),
        "column": tensor("0", (6,), strides=(4,), offset=3, size=24),
        "expanded": tensor("0", (3, 2), strides=(0, 1), offset=5, size=24),
        "odd stride of one row": tensor("0", (1, 4), strides=(17, 1), offset=20, size=24),
        "empty": tensor("0", (0, 3), size=24),
    }
    path = torch_files.save(tmp_path / "a.pt", content, {"0": numbers.tobytes()})
    grid = numbers.reshape(6, 4)
    expected = {
        "all": numbers.reshape(2, 3, 4),
        "row": numbers[8:12],
        "transposed": grid.T,
        "column": grid[:, 3],
        "expanded": np.stack([numbers[5:7]] * 3),
        "odd stride of one row": numbers[None, 20:],
        "empty": np.zeros((0, 3), np.float32),
    }
    entries = torch_zip.open_tensors(path)
    _assert_same(entries, expected)
    for name, array in expected.items():
        for index in [(), (slice(1, 3),), (slice(None),), (slice(-2, None),), (slice(2, 1),)]:
            part = entries[name].read_slice(index)
            assert part.flags.c_contiguous
            np.testing.assert_array_equal(part, array[index])
    index = (slice(1, 2), slice(0, 2), slice(1, None))
    np.testing.assert_array_equal(entries["all"].read_slice(index), expected["all"][index])


@pytest.mark.parametrize("index", [(slice(0, 2, 2),), (slice(None),) * 3])
def test_refuses_slices_with_steps_or_of_too_many_axes(tmp_path, index):
    path = torch_files.save(tmp_path / "a.pt", *torch_files.state(_arrays()))
    with pytest.raises(ValueError, match=r"visual\.proj.*step 1"):
        torch_zip.open_tensors(path)["visual.proj"].read_slice(index)


def test_a_slice_of_rows_reads_only_these(tmp_path):
    array = np.arange(2**18, dtype=np.float32).reshape(512, 512)
    path = torch_files.save(tmp_path / "a.pt", *torch_files.state({"w": array}))
    entry = torch_zip.open_tensors(path)["w"]
    tracemalloc.start()
    part = entry.read_slice((slice(100, 102),))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    np.testing.assert_array_equal(part, array[100:102])
    assert peak < array.nbytes / 4


def test_untyped_storages(tmp_path):
    storage = Outside(("storage", Global("torch.storage", "UntypedStorage"), "0", "cpu", 96))
    rebuild = Global("torch._utils", "_rebuild_tensor_v3")
    arguments = (storage, 2, (5,), (1,), False, torch_files.ORDERED_DICT, Global("torch", "uint16"))
    numbers = np.arange(48, dtype=np.uint16)
    content = {"w": Call(rebuild, arguments)}
    path = torch_files.save(tmp_path / "a.pt", content, {"0": numbers.tobytes()})
    _assert_same(torch_zip.open_tensors(path), {"w": numbers[2:7]})


def test_protocol_4_and_memo(tmp_path):
    # As torch.save(..., pickle_protocol=4) writes it: frames, short strings, names from the stack.
    def text(value):
        return b"\x8c" + bytes([len(value)]) + value.encode() + b"\x94"

    storage = (
        b"(" + text("storage") + text("torch") + text("FloatStorage") + b"\x93\x94"
        b"\x8c\x010\x8c\x03cpuK\x18t\x94Q"
    )
    rebuild = text("torch._utils") + text("_rebuild_tensor_v2") + b"\x93\x94"
    ordered = b"\x8c\x0bcollections\x8c\x0bOrderedDict\x93)R\x94"
    body = b"}\x94" + text("w")
    body += (
        rebuild + b"(" + storage + b"K\x00K\x02K\x03\x86K\x03K\x01\x86\x89" + ordered + b"t\x94R"
    )
    body += b"\x94s" + text("again") + b"h\x0cs."
    frame = b"\x80\x04\x95" + struct.pack("<Q", len(body)) + body
    path = torch_files.save(tmp_path / "a.pt", frame, ONES)
    ones = np.ones((2, 3), np.float32)
    _assert_same(torch_zip.open_tensors(path), {"w": ones, "again": ones})


def test_byte_order(tmp_path):
    tensors, storages = torch_files.state(_arrays())

    def path(order):
        records = {"byteorder": order}
        return torch_files.save(tmp_path / "a.pt", tensors, storages, records=records)

    _assert_same(torch_zip.open_tensors(path(b"little")), _arrays())
    assert "little-endian machine" in refusal(path(b"big"))


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (tensor("0", (25,), size=25), "byte 100 of a storage of 96 bytes"),
        (tensor("0", (5, 5), size=24), "out of bounds"),
        (tensor("0", (3,), size=2), "out of bounds"),
        (tensor("0", (3,), offset=22, size=24), "out of bounds"),
        (tensor("0", (2, 2), strides=(2**40, 1), size=24), "out of bounds"),
        (tensor("0", (2,), strides=(2**62,), offset=2**62, size=2**62), "out of bounds"),
        (tensor("0", (2,), offset=-1, size=24), "offset, shape and strides"),
        (tensor("0", (-2,), size=24), "offset, shape and strides"),
        (tensor("0", (2,), strides=(-1,), size=24), "offset, shape and strides"),
        (tensor("0", (2, 2), strides=(1,), size=24), "offset, shape and strides"),
        (tensor("0", (True,), size=24), "offset, shape and strides"),
        (tensor("0", (1,) * 33, size=24), "offset, shape and strides"),
        (tensor("0", (2**20, 2**20), strides=(0, 0), size=24), "more than the whole file"),
        (tensor("0", (0, 2**60), strides=(1, 1), size=24), "more than the whole file"),
        (tensor("7", (2,)), "no record 'data/7'"),
        (tensor("0/../../etc/passwd", (2,)), "no record"),
    ],
)
def test_refuses_tensors_outside_their_storage(tmp_path, bad, words):
    path = torch_files.save(tmp_path / "a.pt", {"good": tensor("0", (2,)), "bad": bad}, ONES)
    with pytest.raises(ValueError, match=words) as refusal:
        torch_zip.open_tensors(path)
    assert str(path) in str(refusal.value)


def test_tensors_beside_the_state_dict_are_not_looked_at(tmp_path):
    content = {"state_dict": {"w": tensor("0", (2,))}, "optimizer": tensor("0", (99,))}
    path = torch_files.save(tmp_path / "a.pt", content, ONES)
    assert list(torch_zip.open_tensors(path)) == ["w"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ([1], "list, expected a state dict"),
        ({}, "no tensors .* keys none"),
        ({"net": {"w": tensor("0", (2,))}, "epoch": 3}, "no tensors .* 'net', 'epoch'"),
        ({0: tensor("0", (2,))}, "no tensors by name"),
    ],
)
def test_refuses_files_without_a_state_dict(tmp_path, content, words):
    path = torch_files.save(tmp_path / "a.pt", content, ONES)
    with pytest.raises(ValueError, match=words):
        torch_zip.open_tensors(path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "empty"),
        (b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.", "before 1.6"),
        (b"<!DOCTYPE html><html>", "web page"),
        (b"\n <html>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a", "git lfs pull"),
        (struct.pack("<Q", 40) + b'{"w":{"dtype":"F32"', r"\.safetensors"),
        (b"\x89PNG\r\n", "begins with b'.x89PNG"),
        (b"PK\x03\x04", "truncated or damaged"),
        (b"PK\x03\x04" + bytes(100), "truncated or damaged"),
    ],
)
def test_says_what_a_file_of_another_kind_is(tmp_path, content, words):
    path = tmp_path / "weights.pt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"weights\.pt: .*{words}"):
        torch_zip.open_tensors(path)


def test_refuses_missing_files_and_folders(tmp_path):
    assert "no such file" in refusal(tmp_path / "absent.pt")
    assert "a folder" in refusal(tmp_path)


def test_refuses_archives_that_torch_save_does_not_write(tmp_path):
    tensors, storages = torch_files.state(_arrays())
    path = tmp_path / "a.pt"

    torch_files.save(path, tensors, storages, compression=zipfile.ZIP_DEFLATED)
    assert "compressed" in refusal(path)
    torch_files.save(path, tensors, storages, records={"constants.pkl": b""})
    assert "torch.jit.load" in refusal(path)
    torch_files.save(path, tensors, storages, records={"code/__torch__.py": b""})
    assert "torch.jit.load" in refusal(path)
    torch_files.save(path, tensors, storages, records={"other/data.pkl": b""})
    assert "2 data.pkl" in refusal(path)
    path.write_bytes(torch_files.archive({"readme.txt": b"hello"}))
    assert "0 data.pkl" in refusal(path)
    torch_files.save(path, b"\x80\x02" + b"N" * (9 * 2**20), {})
    assert "at most" in refusal(path)


def test_refuses_truncated_files_wherever_they_end(tmp_path):
    whole = torch_files.save(tmp_path / "a.pt", *torch_files.state(_arrays())).read_bytes()
    path = tmp_path / "part.pt"
    for size in range(0, len(whole), 7):
        path.write_bytes(whole[:size])
        assert "part.pt" in refusal(path)


def test_refuses_a_record_said_to_reach_past_the_end(tmp_path):
    content = {"w": tensor("0", (125,))}
    path = torch_files.save(tmp_path / "a.pt", content, ONES)
    size, claimed = struct.pack("<LL", 96, 96), struct.pack("<LL", 500, 500)
    archive = path.read_bytes()
    assert len(archive) > 500
    path.write_bytes(archive.replace(size, claimed))
    assert "'data/0' is damaged or cut off" in refusal(path)


def test_a_file_that_shrinks_after_opening_is_reported(tmp_path):
    path = torch_files.save(tmp_path / "a.pt", *torch_files.state(_arrays()))
    entry = torch_zip.open_tensors(path)["visual.proj"]
    path.write_bytes(path.read_bytes()[: entry.start + 8])
    with pytest.raises(ValueError, match=r"a\.pt: ends within tensor 'visual\.proj'"):
        entry.read()
    path.unlink()
    with pytest.raises(ValueError, match=r"a\.pt"):
        entry.read()


@pytest.mark.filterwarnings("ignore:invalid escape")  # pickletools', on a damaged text
@pytest.mark.parametrize("damage", [torch_files.damaged, torch_files.damaged_archive])
def test_a_damaged_file_is_read_or_refused(tmp_path, damage):
    tensors, storages = torch_files.state(_arrays())
    path = torch_files.save(tmp_path / "a.pt", {"epoch": 1, "state_dict": tensors}, storages)
    whole, refusals = path.read_bytes(), []
    for seed in range(400):
        path.write_bytes(damage(np.random.default_rng(seed), whole, whole))
        try:
            for entry in torch_zip.open_tensors(path).values():
                array = entry.read()
                assert (array.shape, array.dtype) == (entry.shape, entry.dtype)
        except ValueError as error:
            refusals.append(str(error))
    assert 40 < len(refusals) < 400
    assert all(str(path) in refusal for refusal in refusals)


def test_reads_what_pytorch_writes():
    # Written by torch itself: benchmarks/parity.py --golden.
    entries = torch_zip.open_tensors(GOLDEN / "torch_save.pt")
    with np.load(GOLDEN / "torch_save.npz") as expected:
        assert list(entries) == list(expected)
        for name, value in expected.items():
            read = entries[name].read()
            assert read.shape == entries[name].shape == value.shape, name
            if entries[name].dtype == ml_dtypes.bfloat16:
                read = read.astype(np.float32)
            assert read.dtype == value.dtype, name
            np.testing.assert_array_equal(read, value, err_msg=name)
