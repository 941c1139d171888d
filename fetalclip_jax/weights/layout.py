"""How a tensor of a file and a parameter of ours are the same numbers in another order."""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

Index = tuple[slice, ...]


@dataclasses.dataclass(frozen=True)
class Piece:
    """One tensor of a file (or some of its rows) and the part of one parameter that it holds.

    Attributes:
      name: of the tensor in the file.
      path: of the parameter, such as ("visual", "transformer", "blocks", "ln_1", "scale").
      shape: of the part of the parameter.
      axes: for every axis of the tensor, the axes of the part that it runs through, slowest first.
        A linear layer's (out, in) for a kernel of (in, heads, head width) is ((1, 2), (0,)).
      at: leading indices of the part in the parameter: the layer, or none.
      select: index of the part after those along axis 1 of what is left, for the query, key or
        value of a joint kernel (in, 3, heads, head width) or along axis 0 for its bias; or None.
      row: first row of the part in the tensor; other pieces hold the others.
      rows: how many rows the tensor has in all.
    """

    name: str
    path: tuple[str, ...]
    shape: tuple[int, ...]
    axes: tuple[tuple[int, ...], ...]
    at: tuple[int, ...] = ()
    select: tuple[int, int] | None = None
    row: int = 0
    rows: int | None = None

    @property
    def part_shape(self) -> tuple[int, ...]:
        """Shape of the piece in the tensor."""
        return tuple(math.prod(self.shape[a] for a in group) for group in self.axes)

    @property
    def file_shape(self) -> tuple[int, ...]:
        """Shape of the whole tensor."""
        first, *others = self.part_shape or (None,)
        if first is None:
            return ()
        return (first if self.rows is None else self.rows, *others)

    def place(self) -> tuple[int | slice, ...]:
        """Index of the part in the parameter."""
        index: list[int | slice] = [*self.at, *(slice(None) for _ in self.shape)]
        if self.select is not None:
            axis, number = self.select
            index.insert(len(self.at) + axis, number)
        return tuple(index)

    def to_parameter(self, tensor: np.ndarray) -> np.ndarray:
        """Rows of the tensor, [*part_shape], as the part of the parameter, [*shape]."""
        return self._ordered(tensor, self.shape)

    def to_tensor(self, part: np.ndarray) -> np.ndarray:
        """The inverse of `to_parameter`."""
        return part.transpose(self._order()).reshape(self.part_shape)

    def read(self, entry, index: Index) -> np.ndarray:
        """The slice `index` of the part, read from a tensor entry.

        Of a tensor axis that runs through several axes of ours only the slowest is cut while
        reading, which is how parameters are sharded; the rest is cut afterwards.
        """
        bounds = [slice_.indices(size) for slice_, size in zip(index, self.shape, strict=True)]
        cut = list(self.shape)
        later = [slice(start, stop) for start, stop, _ in bounds]
        cuts = []
        for group in self.axes:
            start, stop, _ = bounds[group[0]]
            inner = math.prod(self.shape[a] for a in group[1:])
            cuts.append(slice(start * inner, stop * inner))
            cut[group[0]] = stop - start
            later[group[0]] = slice(None)
        if cuts:
            cuts[0] = slice(cuts[0].start + self.row, cuts[0].stop + self.row)
        return self._ordered(entry.read_slice(tuple(cuts)), cut)[(*later, ...)]

    def _order(self) -> list[int]:
        return [axis for group in self.axes for axis in group]

    def _ordered(self, tensor: np.ndarray, shape: Sequence[int]) -> np.ndarray:
        order = self._order()
        return tensor.reshape([shape[axis] for axis in order]).transpose(np.argsort(order))


def whole(name: str, path: tuple[str, ...], shape: tuple[int, ...], at=()) -> Piece:
    """A tensor stored as the parameter is."""
    return Piece(name, path, shape, tuple((axis,) for axis in range(len(shape))), at)


def transposed(name: str, path: tuple[str, ...], shape: tuple[int, int], at=()) -> Piece:
    """A linear layer's (out, in) for our (in, out)."""
    return Piece(name, path, shape, ((1,), (0,)), at)


def norm(name: str, path: tuple[str, ...], width: int, at=()) -> list[Piece]:
    """Weight and bias of a LayerNorm; `name` ends where "weight" begins."""
    return [
        whole(f"{name}weight", (*path, "scale"), (width,), at),
        whole(f"{name}bias", (*path, "bias"), (width,), at),
    ]
