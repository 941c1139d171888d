"""Arrays that are made row by row and may be larger than memory."""

import tempfile

import numpy as np


class Spool:
    """Rows of one shape and type, on disk until they are all there.

    Its file has no name: it is gone when the last array of it is, or when the process ends.
    """

    def __init__(self, dtype: type):
        self._file = tempfile.TemporaryFile()  # noqa: SIM115  it lives as long as its arrays
        self._dtype, self._shape, self._count = np.dtype(dtype), None, 0

    def append(self, rows: np.ndarray) -> None:
        """Adds rows along the first axis."""
        self._shape = self._shape or rows.shape[1:]
        assert (rows.dtype, rows.shape[1:]) == (self._dtype, self._shape), "rows must be alike"
        self._file.write(np.ascontiguousarray(rows))
        self._count += len(rows)

    def array(self) -> np.ndarray:
        """All rows, read from disk where they are looked at; at least one was added."""
        shape = (self._count, *self._shape)
        if 0 in shape:  # no file to map
            return np.zeros(shape, self._dtype)
        self._file.flush()
        return np.memmap(self._file, self._dtype, "r", shape=shape)
