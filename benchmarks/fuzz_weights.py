"""Are damaged weight files refused, and never more than that?

    python benchmarks/fuzz_weights.py [--files 20000] [--workers 2] [--seed 0]

Valid `.pt` and `.safetensors` files of 20 KiB to 1 MiB are damaged by flips, cuts, repeats,
removals, splices and extreme numbers; half of them within the description of the tensors alone
(the pickle, the JSON header), with a valid file around it. Each is opened, and every tensor the
reader offers is read. A reader may accept a file or raise ValueError; anything else, which
includes running out of a GiB of memory, a crash and 10 seconds without an answer, is a fault and
listed with the seed that repeats it. Memory is the peak of the process over what it had before.
Linux only (/proc). Exit status 1 when there is a fault.
"""

import argparse
import collections
import concurrent.futures
import dataclasses
import multiprocessing
import os
import pathlib
import re
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator

import ml_dtypes
import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from tests.weights import torch_files

KINDS = (".pt bytes", ".pt pickle", ".safetensors bytes", ".safetensors header")

_CYCLE = (np.float32, np.float16, ml_dtypes.bfloat16, np.int64)
_SECONDS = 10.0
_MEMORY = 2**30
_LARGE = 2**18  # below, the buffers of a file and an archive outweigh it


@dataclasses.dataclass(frozen=True)
class Result:
    """What a reader made of one file; `outcome` is "accepted", "refused" or a fault in words."""

    kind: str
    index: int
    outcome: str
    seconds: float = 0.0
    memory: int = 0
    size: int = 1


def valid_files(folder: pathlib.Path, kind: str) -> list[bytes]:
    """Three files of about 20 KiB, 200 KiB and 1 MiB, the small ones of many tensors."""
    random = np.random.default_rng(0)
    files = []
    for count, width in ((100, 8), (40, 36), (8, 180)):
        arrays = {
            f"module.blocks.{n}.weight": random.standard_normal((width, width)).astype(dtype)
            for n, dtype in enumerate(_CYCLE * (count // len(_CYCLE)))
        }
        path = folder / "valid"
        if kind.startswith(".pt"):
            tensors, storages = torch_files.state(arrays)
            tensors["view"] = torch_files.tensor("0", (2, 3), strides=(1, 8), offset=5, size=64)
            content = {"epoch": 1, "state_dict": tensors, "optimizer": [{"lr": 1e-3, 0: tensors}]}
            torch_files.save(path, content, storages)
        else:
            from fetalclip_jax.weights import safetensors_file

            safetensors_file.save(path, arrays)
        files.append(path.read_bytes())
    return files


def damage_header(random: np.random.Generator, content: bytes, other: bytes) -> bytes:
    """A `.safetensors` file whose JSON is damaged and whose length of it is right."""
    size = int.from_bytes(content[:8], "little")
    header = torch_files.damaged(random, content[8 : 8 + size], other[8:])
    return len(header).to_bytes(8, "little") + header + content[8 + size :]


def damaged_file(kind: str, files: list[bytes], seed: int, index: int) -> bytes:
    """The damaged file of a number: the same one in every run."""
    random = np.random.default_rng((seed, KINDS.index(kind), index))
    content, other = (files[int(random.integers(len(files)))] for _ in range(2))
    damage: dict[str, Callable] = {
        ".pt pickle": torch_files.damaged_archive,
        ".safetensors header": damage_header,
    }
    return damage.get(kind, torch_files.damaged)(random, content, other)


class _TimeOut(BaseException):
    """Passes through readers that catch `Exception`."""


def read_file(path: pathlib.Path) -> str:
    """Opens a file and reads all of it; the outcome in words."""
    if path.suffix == ".pt":
        from fetalclip_jax.weights.torch_zip import open_tensors
    else:
        from fetalclip_jax.weights.safetensors_file import open_tensors
    try:
        for name, entry in open_tensors(path).items():
            array = entry.read()
            if (name, array.shape, array.dtype) != (entry.name, entry.shape, entry.dtype):
                return f"tensor {name!r} is not of the shape and data type announced"
            rows = tuple(slice(size // 2, size) for size in entry.shape)
            if entry.read_slice(rows).tobytes() != array[rows].tobytes():
                return f"part of tensor {name!r} differs from the whole"
    except ValueError as error:
        if isinstance(error.__cause__, MemoryError) or str(path) not in str(error):
            return f"refused with {error}"
        return "refused"
    except BaseException as error:
        return f"{type(error).__name__}: {error}"
    return "accepted"


def _status(field: str) -> int:
    """Bytes of a field of this process: "VmRSS" now, "VmHWM" at most, "VmSize" reserved."""
    text = pathlib.Path("/proc/self/status").read_text()
    return 1024 * int(re.search(rf"{field}:\s+(\d+)", text)[1])


def _serve(connection, kind: str, seed: int, indices: range) -> None:
    """Worker: sends a `Result` per file."""

    def stop(*_):
        raise _TimeOut(f"no answer in {_SECONDS} s")

    signal.signal(signal.SIGALRM, stop)
    with tempfile.TemporaryDirectory() as name:
        path = pathlib.Path(name) / f"weights{kind.split()[0]}"
        files = valid_files(pathlib.Path(name), kind)
        for content in files:
            path.write_bytes(content)
            if (outcome := read_file(path)) != "accepted":
                raise RuntimeError(f"an undamaged file was not accepted: {outcome}")
        resource.setrlimit(resource.RLIMIT_AS, (_status("VmSize") + _MEMORY,) * 2)
        for index in indices:
            content = damaged_file(kind, files, seed, index)
            path.write_bytes(content)
            pathlib.Path("/proc/self/clear_refs").write_text("5")  # forget the peak
            before, start = _status("VmRSS"), time.perf_counter()
            signal.setitimer(signal.ITIMER_REAL, _SECONDS)
            outcome = read_file(path)
            signal.setitimer(signal.ITIMER_REAL, 0)
            seconds, memory = time.perf_counter() - start, _status("VmHWM") - before
            connection.send(Result(kind, index, outcome, seconds, memory, max(len(content), 1)))


def results(kind: str, seed: int, indices: range) -> Iterator[Result]:
    """Runs files in a process of their own, in another one after each that ended it."""
    context = multiprocessing.get_context("spawn")
    while indices:
        ours, theirs = context.Pipe(duplex=False)
        worker = context.Process(target=_serve, args=(theirs, kind, seed, indices), daemon=True)
        worker.start()
        theirs.close()
        fault = ""
        while indices and not fault:
            try:
                if ours.poll(60 + 2 * _SECONDS):
                    yield ours.recv()
                else:
                    fault = "no answer, not even to an alarm"
            except EOFError:
                worker.join()
                fault = f"the process ended with status {worker.exitcode}"
            if fault:
                yield Result(kind, indices[0], fault)
            indices = indices[1:]
        worker.kill() if fault else worker.join()


def table(found: list[Result]) -> str:
    """A line per kind of file: outcomes, longest time, most memory."""
    lines = [
        f"{'kind':22}{'files':>7}{'accepted':>10}{'refused':>9}{'faults':>8}{'longest':>10}"
        f"{'memory':>11}{'of files over 256 KiB':>24}"
    ]
    for kind in KINDS:
        mine = [r for r in found if r.kind == kind]
        counts = collections.Counter(r.outcome for r in mine)
        faults = len(mine) - counts["accepted"] - counts["refused"]
        share = max((r.memory / r.size for r in mine if r.size > _LARGE), default=0.0)
        lines.append(
            f"{kind:22}{len(mine):7}{counts['accepted']:10}{counts['refused']:9}{faults:8}"
            f"{max(r.seconds for r in mine):8.2f} s{max(r.memory for r in mine) / 2**20:7.1f} MiB"
            f"{share:14.2f} x size"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--files", type=int, default=20_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    # Freed memory goes back at once, so that every file's peak is its own.
    os.environ |= {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
    each = max(args.files // len(KINDS), 1)
    jobs = [
        (kind, range(each)[part :: args.workers]) for kind in KINDS for part in range(args.workers)
    ]
    with concurrent.futures.ThreadPoolExecutor(args.workers) as pool:
        parts = pool.map(lambda job: list(results(job[0], args.seed, job[1])), jobs)
        found = [result for part in parts for result in part]
    print(table(found))
    faults = [r for r in found if r.outcome not in ("accepted", "refused")]
    for fault in faults[:20]:
        print(f"{fault.kind} {fault.index}: {fault.outcome[:300]}")
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
