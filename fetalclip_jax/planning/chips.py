"""What makers publish of their accelerators, and the slices that there are of them."""

import dataclasses
import math
import re

GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Chip:
    """One accelerator, by what its maker publishes.

    Attributes:
      name: as topologies call it.
      tflops: 10^12 operations a second on bfloat16 without sparsity, a multiply-add being two.
      memory_gib: of the device.
      memory_gbs: 10^9 bytes a second between memory and cores.
      link_gbs: 10^9 bytes a second that a chip sends to others on all of its links together; 0 for
        a card that is planned by itself.
      source: where these numbers stand.
    """

    name: str
    tflops: float | int
    memory_gib: float | int
    memory_gbs: float | int
    link_gbs: float | int
    source: str

    @property
    def usable_bytes(self) -> int:
        """Of the memory, what a program may have: a TPU's runtime keeps a quarter of a GiB."""
        return round((self.memory_gib - 0.25 * self.is_tpu) * GIB)

    @property
    def is_tpu(self) -> bool:
        return self.name in _SLICES


_CLOUD = "cloud.google.com/tpu/docs"
_NVIDIA = "NVIDIA data sheet"
CHIPS = {
    chip.name: chip
    for chip in (
        # Makers give links in Gbit/s: 1,600 are 200 GB/s.
        Chip("v5e", 197, 16, 819, 200, f"{_CLOUD}/v5e"),
        Chip("v5p", 459, 95, 2765, 600, f"{_CLOUD}/v5p"),
        Chip("v6e", 918, 32, 1640, 448, f"{_CLOUD}/v6e"),
        # Cards say GB where a driver finds somewhat less than as many GiB.
        Chip("A10", 125, 22.5, 600, 0, f"{_NVIDIA} of the A10 (24 GB)"),
        Chip("L4", 121, 22.5, 300, 0, f"{_NVIDIA} of the L4 (24 GB)"),
        Chip("RTX4090", 165, 23.5, 1008, 0, f"{_NVIDIA} of the RTX 4090 (24 GB)"),
        Chip("A100", 312, 79, 2039, 0, f"{_NVIDIA} of the A100 SXM (80 GB)"),
        Chip("H100", 989, 79, 3350, 0, f"{_NVIDIA} of the H100 SXM (80 GB)"),
        Chip("H200", 989, 140, 4800, 0, f"{_NVIDIA} of the H200 SXM (141 GB)"),
    )
}

_FLAT = ("2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16")
_CUBES = ("2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4", "4x4x8", "4x8x8", "8x8x8")
# Slices whose chips are all joined by links of their own.
_SLICES = {"v5e": _FLAT, "v6e": _FLAT, "v5p": _CUBES}


@dataclasses.dataclass(frozen=True)
class Topology:
    """So many chips of a kind.

    Attributes:
      chip: of which kind.
      shape: "4x4" of a TPU slice; "1" of a card.
    """

    chip: Chip
    shape: str

    @property
    def devices(self) -> int:
        return math.prod(int(side) for side in self.shape.split("x"))

    def __str__(self) -> str:
        return f"{self.chip.name}:{self.shape}"


def topology(name: str) -> Topology:
    """A topology by its name, such as "v5e:4x4", or "H100" for one card.

    Raises:
      ValueError: no such one; the known ones are listed.
    """
    kind, _, shape = name.partition(":")
    chip = CHIPS.get(kind)
    if chip is not None and chip.is_tpu and shape in _SLICES[kind]:
        return Topology(chip, shape)
    if chip is not None and not chip.is_tpu and re.fullmatch("1?", shape):
        return Topology(chip, "1")
    raise ValueError(f"--topology {name} is not known; there are {'; '.join(_known())}")


def slice_of(kind: str, devices: int) -> Topology | None:
    """The slice with so many chips of a kind of TPU; None where there is none."""
    found = [Topology(CHIPS[kind], shape) for shape in _SLICES[kind]]
    return next((one for one in found if one.devices == devices), None)


def _known() -> list[str]:
    tpus: dict[tuple[str, ...], list[str]] = {}
    for kind, shapes in _SLICES.items():
        tpus.setdefault(shapes, []).append(kind)
    listed = [f"{' and '.join(kinds)} with :{', :'.join(s)}" for s, kinds in tpus.items()]
    cards = [chip.name for chip in CHIPS.values() if not chip.is_tpu]
    return [*listed, f"{', '.join(cards)} (one card)"]
