"""A machine's cores and accelerators divided among processes that run at once."""

import contextlib
import dataclasses
import os
import pathlib
from collections.abc import Iterator, Mapping

_GPUS = "CUDA_VISIBLE_DEVICES"


@dataclasses.dataclass(frozen=True)
class Slot:
    """What one process at a time may use.

    Attributes:
      cores: its processor cores; XLA and NumPy start as many threads.
      environment: variables that choose its accelerators.
    """

    cores: frozenset[int]
    environment: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @contextlib.contextmanager
    def given(self) -> Iterator[None]:
        """Processes started while it is open inherit the cores."""
        before = os.sched_getaffinity(0)
        os.sched_setaffinity(0, self.cores)
        try:
            yield
        finally:
            os.sched_setaffinity(0, before)


def divide(jobs: int) -> list[Slot]:
    """Equal shares of what this process may use.

    Raises:
      ValueError: fewer cores or GPUs than jobs, or more than one job on a TPU host.
    """
    cores = sorted(os.sched_getaffinity(0))
    if jobs < 1 or jobs > len(cores):
        raise ValueError(f"--jobs={jobs}: use 1 to {len(cores)}, the processor cores there are")
    shares = [frozenset(cores[k::jobs]) for k in range(jobs)]
    if jobs == 1 or os.environ.get("JAX_PLATFORMS", "").startswith("cpu"):
        return [Slot(share) for share in shares]
    if any(pathlib.Path("/dev").glob("accel[0-9]*")):
        raise ValueError(
            f"--jobs={jobs}: one process has all chips of a TPU host; use --jobs=1, or run points "
            "on several hosts with --point, see docs/sweeps.md"
        )
    gpus = _gpus()
    if not gpus:
        return [Slot(share) for share in shares]
    if jobs > len(gpus):
        raise ValueError(f"--jobs={jobs}: use 1 to {len(gpus)}, the GPUs there are")
    each = len(gpus) // jobs  # all points have as many devices
    return [
        Slot(share, {_GPUS: ",".join(gpus[k * each : (k + 1) * each])})
        for k, share in enumerate(shares)
    ]


def _gpus() -> list[str]:
    """Names of the GPUs that this process may use."""
    if (chosen := os.environ.get(_GPUS)) is not None:
        return [name for name in chosen.split(",") if name.strip()]
    found = pathlib.Path("/dev").glob("nvidia[0-9]*")
    return sorted((one.name.removeprefix("nvidia") for one in found), key=int)
