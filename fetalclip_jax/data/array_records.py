"""The serialised records of a split by index, out of the ArrayRecord files that TFDS wrote."""

import bisect
import itertools
import os
import threading
from collections.abc import Sequence

from array_record.python.array_record_module import ArrayRecordReader

# What is read ahead of a record would be thrown away: records are read in a random order.
_OPTIONS = "readahead_buffer_size:0,max_parallelism:0"


class ArrayRecords:
    """Bytes of each record. Threads may share it; files are opened on first use.

    ArrayRecord's own data source, which TFDS and grain use, asks the reader for a list of one
    index. That takes time and memory in proportion to the records in the file: 3 ms at a million,
    where a range of one record takes 8 us.
    """

    def __init__(self, files: Sequence[tuple[str | os.PathLike, int]]):
        """`files` are paths and how many records each holds."""
        self._paths = [os.fspath(path) for path, _ in files]
        self._ends = list(itertools.accumulate(count for _, count in files))
        self._readers: list[ArrayRecordReader | None] = [None] * len(files)
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, index: int) -> bytes:
        """The record at an index from 0 to below the length."""
        if not 0 <= index < len(self):
            raise IndexError(f"record {index} of {len(self)}")
        file = bisect.bisect_right(self._ends, index)
        place = index - (self._ends[file - 1] if file else 0)
        return self._reader(file).read(place, place + 1)[0]

    def _reader(self, file: int) -> ArrayRecordReader:
        with self._lock:
            if self._readers[file] is None:
                self._readers[file] = ArrayRecordReader(self._paths[file], options=_OPTIONS)
            return self._readers[file]
