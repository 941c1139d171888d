"""Does the input keep up? Images a second by workers, memory and first batch by records.

    python benchmarks/input.py [--data hc18=FOLDER] [--size 224] [--counts 1000 1000000]

Three tables, each of numbers taken in one run:
  training      images/s of training batches (read, decoded, augmented, captioned, tokenised) on
                threads and on 1 and 2 worker processes: rounds interleaved, median. Beside it the
                least processor time per image, which other programs on the machine disturb less:
                a core gives one image in that time, whoever else uses the machine
  records       seconds from opening the records to the first batch, and resident memory after 50
                batches, for data sets of many tiny records, each in a process of its own. The
                records are those of 1,000 phantom images that `prepare` wrote, repeated: the same
                files as a real data set of that many
  evaluation    images/s of the reader that `evaluate` and `embed` use, from the original images
Without --data the images are the phantom's.
"""

import argparse
import contextlib
import json
import multiprocessing
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np
from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter

from fetalclip_jax import tokenizers
from fetalclip_jax.config import default_config
from fetalclip_jax.data import pipeline, record_files, records
from fetalclip_jax.data.views import Views
from fetalclip_jax.data.workers import ordered_map
from fetalclip_jax.datasets import registry

_ROUNDS = 3
_WARM_UP = 64
_TILE = 1000  # phantom images that the many records repeat
_CONFIG = default_config()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="phantom", help="KIND=FOLDER (default: the phantom)")
    parser.add_argument("--size", type=int, default=224, help="pixels of a record's side")
    parser.add_argument("--batch", type=int, default=64, help="images of a training batch")
    parser.add_argument("--images", type=int, default=600, help="images at most")
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--counts", type=int, nargs="+", default=[10**3, 10**4, 10**5, 10**6])
    parser.add_argument("--measure", help=argparse.SUPPRESS)  # a folder, in a process of its own
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(first_batch(arguments.measure, arguments.batch)))
        return
    kind, _, folder = arguments.data.partition("=")
    source = First(registry.open_source(kind, folder, "all"), arguments.images)
    with tempfile.TemporaryDirectory() as work:
        work = pathlib.Path(work)
        print(f"{os.cpu_count()} processors, {len(source)} images of {arguments.data}")
        dataset = records.prepare(
            source, work / "records", image_size=arguments.size, max_bad_share=1, progress=False
        )
        training(dataset, arguments.batch, arguments.workers)
        many_records(work, arguments.counts, arguments.batch)
        evaluation(source, arguments.size, arguments.workers)


def training(dataset, batch_size: int, workers: list[int]) -> None:
    batches = max(1, 2 * len(dataset) // batch_size)
    rates = Rates(workers)
    for _ in range(_ROUNDS):
        for count in workers:
            with contextlib.closing(stream(dataset, batch_size, count)) as one:
                for _ in range(4 + 2 * count):  # what was made ahead while workers started
                    next(one)
                with rates.timed(count, batches * batch_size):
                    for _ in range(batches):
                        next(one)
    print(f"training:\n{rates}")


def evaluation(source, size: int, workers: list[int]) -> None:
    rates = Rates(workers)
    for _ in range(_ROUNDS):
        for count in workers:
            with ordered_map(Views(source, size), len(source), count) as views:
                for _ in range(_WARM_UP):
                    next(views)  # the processes have started
                with rates.timed(count, len(source) - _WARM_UP):
                    for _ in views:
                        pass
    print(f"evaluation's reader:\n{rates}")


class Rates:
    """Images a second and seconds of processor time per image, by number of workers."""

    def __init__(self, workers: list[int]):
        self._rates: dict[int, list[float]] = {count: [] for count in workers}
        self._reader: dict[int, list[float]] = {count: [] for count in workers}
        self._workers: dict[int, list[float]] = {count: [] for count in workers}

    @contextlib.contextmanager
    def timed(self, count: int, images: int):
        children = [one.pid for one in multiprocessing.active_children()]
        start = time.perf_counter(), time.process_time(), processor_seconds(children)
        yield
        self._rates[count].append(images / (time.perf_counter() - start[0]))
        self._reader[count].append((time.process_time() - start[1]) / images)
        self._workers[count].append((processor_seconds(children) - start[2]) / images)

    def __str__(self) -> str:
        rates = {count: statistics.median(found) for count, found in self._rates.items()}
        lines = []
        for count, rate in rates.items():
            where = f"{count} worker{'s' * (count > 1)}" if count else "threads"
            one = f" ({rate / rates[1]:.2f} x one)" if rates.get(1) and count > 1 else ""
            here = 1e3 * min(self._reader[count])
            there = 1e3 * min(self._workers[count])
            lines.append(
                f"  {where:10} {rate:6.0f} images/s{one}; processor time per image: "
                f"{here:.2f} ms in this process, {there:.2f} ms in workers"
            )
        return "\n".join(lines)


def many_records(work: pathlib.Path, counts: list[int], batch_size: int) -> None:
    phantom = registry.open_source("phantom", "", "all")
    tile = records.prepare(
        First(phantom, _TILE), work / "tile", image_size=8, max_bad_share=1, progress=False
    )
    print("records:")
    smallest = None
    for count in counts:
        repeat(tile, work / str(count), count)
        command = [sys.executable, __file__, "--batch", str(batch_size), "--measure"]
        done = subprocess.run([*command, work / str(count)], capture_output=True, check=True)
        found = json.loads(done.stdout.splitlines()[-1])
        smallest = smallest or found["mib"]
        print(
            f"  {count:9,}: first batch {found['first_batch']:.2f} s after opening, "
            f"{found['mib']:.0f} MiB resident ({found['mib'] / smallest:.3f} x)"
        )


def first_batch(folder: str, batch_size: int) -> dict[str, float]:
    start = time.perf_counter()
    dataset = records.RecordDataset(folder)
    with contextlib.closing(stream(dataset, batch_size, 0)) as batches:
        next(batches)
        seconds = time.perf_counter() - start
        for _ in range(50):
            next(batches)
        status = pathlib.Path("/proc/self/status").read_text()
        resident = int(status.split("VmRSS:")[1].split()[0])
    return {"first_batch": seconds, "mib": resident / 1024}


def stream(dataset, batch_size: int, workers: int) -> pipeline.BatchStream:
    return pipeline.train_iterator(
        dataset,
        tokenizer(),
        global_batch_size=batch_size,
        seed=0,
        augment=_CONFIG.augment,
        caption_variants=_CONFIG.captions.variants,
        workers=workers,
    )


def tokenizer():
    """One vocabulary for all processes of this benchmark."""
    folder = pathlib.Path(tempfile.gettempdir()) / f"vocabulary-of-{__file__.replace('/', '-')}"
    if not folder.is_dir():
        tokenizers.new("sentencepiece", _CONFIG.model.text_cfg, 0).save(folder)
    return tokenizers.load(folder)


def repeat(tile: records.RecordDataset, folder: pathlib.Path, count: int) -> None:
    """Records of `count` examples in `folder`, those of `tile` over and over."""
    folder.mkdir()
    (file,) = tile.directory.glob("*.array_record*")
    contents = ArrayRecordReader(os.fspath(file)).read_all()
    writer = ArrayRecordWriter(os.fspath(folder / file.name), "group_size:1")  # as TFDS does
    for index in range(count):
        writer.write(contents[index % len(contents)])
    writer.close()
    info = json.loads((tile.directory / "dataset_info.json").read_text())
    size = sum(map(len, contents)) * count // len(contents)
    info["splits"][0] |= {"shardLengths": [str(count)], "numBytes": str(size)}
    (folder / "dataset_info.json").write_text(json.dumps(info))
    (folder / "features.json").write_text((tile.directory / "features.json").read_text())
    columns = tile.metadata()
    which = np.arange(count) % len(tile)
    names = (*record_files.RECORD_TEXT_COLUMNS, *record_files.RECORD_NUMBER_COLUMNS)
    record_files.write(
        folder,
        record_files.read_summary(tile.directory),
        {name: columns[name][which] for name in names},
        [],
        extra=[{}],
        files={},
    )


def processor_seconds(processes: list[int]) -> float:
    """That running processes have used."""
    used = 0
    for process in processes:
        fields = pathlib.Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()
        used += int(fields[11]) + int(fields[12])
    return used / os.sysconf("SC_CLK_TCK")


class First:
    """The first images of a source."""

    def __init__(self, source, count: int):
        self._source, self._count = source, min(count, len(source))

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int):
        return self._source[index]


if __name__ == "__main__":
    main()
