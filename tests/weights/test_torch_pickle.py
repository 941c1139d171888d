"""Pickles that are no weights: refused by name, and nothing runs."""

import os
import pathlib
import pickle
import tracemalloc

import pytest

from fetalclip_jax.weights import torch_pickle, torch_zip
from tests.weights import torch_files
from tests.weights.refusals import ONES, pickle_refusal, refusal
from tests.weights.torch_files import Call, Global, Outside, Raw, tensor

_SENTINEL = pathlib.Path(f"/tmp/torch_zip_test_{os.getpid()}")
_SHELL = f"touch {_SENTINEL}"
_STATEMENT = f"open({str(_SENTINEL)!r}, 'w')"
_EVAL = Global("builtins", "eval")
_STACK_SYSTEM = b"\x8c\x05posix\x94\x8c\x06system\x94\x93\x94"
_CALL_SHELL = torch_files.opcodes(_SHELL) + b"\x85R"


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (Call(Global("os", "system"), (_SHELL,)), "os.system"),
        (Call(Global("posix", "system"), (_SHELL,)), "posix.system"),
        (Call(_EVAL, (_STATEMENT,)), "builtins.eval"),
        (Call(Global("__builtin__", "eval"), (_STATEMENT,)), "__builtin__.eval"),
        (Call(Global("builtins", "exec"), (_STATEMENT,)), "builtins.exec"),
        (Call(Global("subprocess", "Popen"), ((_SHELL,),)), "subprocess.Popen"),
        (Call(Global("torch", "load"), (str(_SENTINEL),)), "torch.load"),
        (
            Call(Global("torch.storage", "_load_from_bytes"), ("x",)),
            "torch.storage._load_from_bytes",
        ),
        (Call(Global("torch", "hub.load"), ("x",)), "torch.hub.load"),
        (Call(Global("numpy.core.multiarray", "scalar"), ()), "numpy.core.multiarray.scalar"),
        (Call(Global("torch", "FloatStorage "), ()), "torch.FloatStorage "),
        (
            Call(Call(Global("builtins", "getattr"), (Global("os", "x"), "system")), (_SHELL,)),
            "builtins.getattr",
        ),
        # Beside good weights, before and after them.
        ({"w": tensor("0", (2,)), "x": Call(_EVAL, (_STATEMENT,))}, "builtins.eval"),
        (
            {"x": Call(_EVAL, (_STATEMENT,)), "state_dict": {"w": tensor("0", (2,))}},
            "builtins.eval",
        ),
        # As an argument of what is allowed, where a device would be dropped.
        (Call(Global("torch", "device"), (Call(_EVAL, (_STATEMENT,)),)), "builtins.eval"),
        # By a name from the stack, from the memo, and from the memo after it was written anew.
        (Raw(_STACK_SYSTEM + _CALL_SHELL), "posix.system"),
        (Raw(_STACK_SYSTEM[:-2] + b"00h\x00h\x01\x93" + _CALL_SHELL), "POP"),
        (Raw(_STACK_SYSTEM[:-2] + b"\x86h\x00h\x01\x93" + _CALL_SHELL), "posix.system"),
        (
            Raw(b"\x8c\x0bcollectionsq\x00\x8c\x05posixq\x00h\x00\x8c\x06system\x93" + _CALL_SHELL),
            "posix.system",
        ),
        # A text that spells an allowed name is no function, and neither is a dict or a type.
        (Call("torch._utils _rebuild_tensor_v2", ()), "str"),
        (Call(Raw(b"}"), ()), "dict"),
        (Call(Global("torch", "FloatStorage"), (24,)), "_StorageType"),
        (Raw(b"(S'" + _SHELL.encode() + b"'\nios\nsystem\n"), "STRING"),
        (Raw(b"(" + torch_files.opcodes(_SHELL) + b"ios\nsystem\n"), "INST 'os system'"),
        (Raw(b"(" + torch_files.opcodes(Global("os", "system")) + b"o"), "os.system"),
        (Raw(b"(" + torch_files.opcodes(Global("collections", "OrderedDict")) + b"o"), "OBJ"),
        (Raw(torch_files.opcodes(Global("collections", "OrderedDict")) + b")\x81"), "NEWOBJ"),
        (Raw(torch_files.opcodes(Global("torch", "Size")) + b")}\x92"), "NEWOBJ_EX"),
        (Raw(b"\x82\x01"), "EXT1"),
        (Raw(b"\x83\x01\x00"), "EXT2"),
        (Raw(b"\x84\x01\x00\x00\x00"), "EXT4"),
        (Raw(b"Pos.system\n"), "PERSID"),
        (Raw(b"\x8f"), "EMPTY_SET"),
        (Raw(b"\x97"), "NEXT_BUFFER"),
        (Raw(b"I1\n"), "INT"),
        # Attributes of anything but an OrderedDict, or out of anything but a dict.
        (Raw(torch_files.ORDERED_DICT.opcodes + b")b"), "attributes"),
        (Raw(torch_files.ORDERED_DICT.opcodes + b"}}\x86b"), "attributes"),
        (Raw(b"}}b"), "attributes"),
        (Raw(torch_files.opcodes(Global("collections", "OrderedDict")) + b"}b"), "attributes"),
        (Call(Global("collections", "OrderedDict"), ([("a", 1)],)), "OrderedDict"),
        (Call(Global("torch", "Size"), (3,)), "Size"),
        (Call(Global("torch._utils", "_rebuild_parameter"), ({}, True, {})), "_rebuild_parameter"),
        (Call(tensor("0", (2,)).function, tensor("0", (2,)).arguments[:3]), "_rebuild_tensor_v2"),
        (Call(tensor("0", (2,)).function, ({}, 0, (2,), (1,), False, {})), "_rebuild_tensor_v2"),
        (Call(Global("torch._utils", "_rebuild_tensor_v3"), ()), "_rebuild_tensor_v3"),
        (Outside(("module", "os", "0", "cpu", 1)), "storage"),
        (Outside("os.system"), "storage"),
    ],
)
def test_refuses_what_is_no_tensor_and_runs_nothing(tmp_path, content, named):
    message = pickle_refusal(tmp_path, content)
    assert named in message
    assert "save" in message
    assert not _SENTINEL.exists()


def test_the_attacks_are_real(tmp_path):
    # Such pickles do run in the standard reader, or the test above would prove nothing.
    folder = tmp_path / "made"
    pickle.loads(torch_files.pickled(Call(Global("os", "mkdir"), (str(folder),))))
    assert folder.is_dir()


@pytest.mark.parametrize(
    "opcodes",
    [
        b"Nr\xff\xff\xff\x7f0",  # memo index 2**31 - 1, for which the standard reader makes room
        b"Nr\x00\x00\x00\x80N.",
        b"\x8b\xff\xff\xff\x7f\x01",  # LONG4 of 2 GiB
        b"\x8b\x00\x00\x10\x00" + b"\x7f" * 2**20,
        b"\x8a\x09" + b"\x01" * 9,  # LONG1 of 72 bits
        b"L" + b"9" * 5000 + b"L\n",
        b"X\xff\xff\xff\xffabc",
        b"\x8d\xff\xff\xff\xff\xff\xff\xff\x7fabc",  # BINUNICODE8
        b"\x96\xff\xff\xff\xff\xff\xff\xff\x7fabc",  # BYTEARRAY8
        b"\x8e\xff\xff\xff\xff\xff\xff\xff\xffabc",
        b"\x95\xff\xff\xff\xff\xff\xff\xff\xff",  # FRAME, then nothing
        b"(" * 40_000,
        b"]" + b"\x85" * 40_000,  # a tuple within a tuple within ...
        b"}" * 7_000_000,
        b"N" + b"\x94" * 7_000_000,
        b"t",
        b"(u",
        b"e",
        b"s",
        b"R",
        b"Q",
        b"b",
        b"\x93",
        b"\x87",
        b"h\x07",
        b"q\x07",
        b"\x94",
        b"",
        b"\xff",
        b"X\x01\x00\x00\x00\xff",
        b"c\xff\n\xff\n",
        b"NNs",
        b"]NNs",
        b"}Na",
        b"}(Nu",
        b"}NNs",
        b"NN\x93",
    ],
)
def test_bombs_and_nonsense_are_refused_in_little_memory(tmp_path, monkeypatch, opcodes):
    monkeypatch.setattr(torch_pickle, "_MAX_OPCODES", 50_000)  # time and memory are per opcode
    path = torch_files.save(tmp_path / "bomb.pt", Raw(opcodes), ONES)
    tracemalloc.start()
    refusal(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 32 * 2**20


def test_refuses_integers_of_more_than_64_bits(tmp_path):
    content = {"w": tensor("0", (2,)), "epoch": -(2**63)}
    path = torch_files.save(tmp_path / "a.pt", content, ONES)
    assert list(torch_zip.open_tensors(path)) == ["w"]
    assert "64 bits" in pickle_refusal(tmp_path, {**content, "epoch": 2**63})


def test_cycles_and_shared_nests_do_no_harm(tmp_path):
    weights = torch_files.opcodes("w") + torch_files.opcodes(tensor("0", (2,)))
    itself = b"}q\x00" + weights + b"s" + torch_files.opcodes("state") + b"h\x00s"
    path = torch_files.save(tmp_path / "cycle.pt", Raw(itself), ONES)
    assert list(torch_zip.open_tensors(path)) == ["w"]

    inner = b"}q\x00" + torch_files.opcodes("state_dict") + b"h\x00s"
    assert "no tensors" in pickle_refusal(tmp_path, Raw(inner))

    laughs = b"]q\x00" + b"".join(
        b"](" + bytes([*b"h", level]) * 10 + bytes([*b"eq", level + 1]) for level in range(60)
    )
    content = b"}" + weights + b"s" + torch_files.opcodes("x") + b"(" + laughs + b"ts"
    path = torch_files.save(tmp_path / "laughs.pt", Raw(content), ONES)
    assert list(torch_zip.open_tensors(path)) == ["w"]

    # Sixty levels of (x, x) would take 2**60 steps to hash as a key.
    doubled = b"N" + b"q\x00h\x00\x86" * 60
    assert "key of type tuple" in pickle_refusal(tmp_path, Raw(b"}" + doubled + b"Ns"))
