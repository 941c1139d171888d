"""What training asks of its devices: arithmetic, its share of their peak, memory."""

import dataclasses

import jax

from fetalclip_jax.models import flops
from fetalclip_jax.models.presets import CLIPConfig

# TFLOP/s of one device without sparsity, as published by the makers, by how `device_kind` begins:
# (bfloat16, float32 as JAX multiplies it by default: TF32 on GPUs, bfloat16 passes on TPUs).
# The longest name that fits counts.
_PEAK_TFLOPS = {
    "NVIDIA A100": (312, 156),
    "NVIDIA H100": (989, 494.5),
    "NVIDIA H100 NVL": (835, 417.5),
    "NVIDIA H100 PCIe": (756, 378),
    "NVIDIA H200": (989, 494.5),
    "NVIDIA GH200": (989, 494.5),
    "NVIDIA L4": (121, 60),
    "NVIDIA L40S": (362, 183),
    "TPU v4": (275, 275),
    "TPU v5 lite": (197, 197),
    "TPU v5e": (197, 197),
    "TPU v5": (459, 459),
    "TPU v5p": (459, 459),
    "TPU v6 lite": (918, 918),
    "TPU v6e": (918, 918),
}


def peak_flops(device_kind: str, dtype: str) -> float | None:
    """Published peak of one device in operations a second; None where none is known here.

    Args:
      device_kind: as `jax.Device.device_kind`.
      dtype: that products of matrices are computed in, "bfloat16" or "float32".
    """
    fitting = [name for name in _PEAK_TFLOPS if _begins(device_kind, name)]
    if not fitting:
        return None
    return 1e12 * _PEAK_TFLOPS[max(fitting, key=len)][dtype != "bfloat16"]


def _begins(device_kind: str, name: str) -> bool:
    """Whether a kind is of that name: an L40 is no L4."""
    return device_kind == name or device_kind.startswith((f"{name} ", f"{name}-"))


def device_memory_gib() -> dict[str, float]:
    """Memory of the fullest device of this process, in GiB: in use, and the most since it began.

    Empty where the backend does not tell, as that of CPUs.
    """
    found = [stats for device in jax.local_devices() if (stats := device.memory_stats())]
    names = {"device_memory_gib": "bytes_in_use", "device_memory_peak_gib": "peak_bytes_in_use"}
    return {
        name: max(stats[key] for stats in found) / 2**30
        for name, key in names.items()
        if found and all(key in stats for stats in found)
    }


@dataclasses.dataclass
class _Work:
    """Steps, the pairs in them, their arithmetic, and what time they took."""

    steps: int = 0
    pairs: int = 0
    flops: int = 0
    seconds: float = 0.0

    def __add__(self, other: "_Work") -> "_Work":
        return _Work(
            self.steps + other.steps,
            self.pairs + other.pairs,
            self.flops + other.flops,
            self.seconds + other.seconds,
        )


class Meter:
    """Counts the arithmetic of steps: texts of another length are another number.

    Rates are `images_per_second` (images are pairs), `step_flops` (of one step on all devices,
    counted by `models.flops`), `tflops_per_device` (reached, per second), and their share of the
    device's peak as `mfu`, where that is published.
    """

    def __init__(self, config: CLIPConfig, dtype: str, images: int = 1):
        """`dtype` is that of matrix products, "bfloat16" or "float32"; `images` those of a pair."""
        self._config, self._images = config, images
        self._devices = jax.device_count()
        self._peak = peak_flops(jax.devices()[0].device_kind, dtype)
        self._now, self._before = _Work(), _Work()

    def count(self, pairs: int, text_length: int) -> None:
        """Adds a step of `pairs`, with texts of `text_length` tokens."""
        pair = flops.of_training_pair(self._config, text_length, self._images)
        self._now += _Work(1, pairs, pairs * pair)

    def take(self, seconds: float) -> dict[str, float]:
        """Rates of the steps counted since the last call, which took `seconds`."""
        taken = self._now + _Work(seconds=seconds)
        self._now, self._before = _Work(), self._before + taken
        return self._rates(taken)

    def overall(self) -> dict[str, float]:
        """Rates of all steps that were taken; nothing where there were none."""
        return self._rates(self._before) if self._before.steps else {}

    def _rates(self, work: _Work) -> dict[str, float]:
        reached = work.flops / work.seconds / self._devices
        rates = {
            "images_per_second": work.pairs / work.seconds,
            "step_flops": work.flops / work.steps,
            "tflops_per_device": reached / 1e12,
        }
        return rates if self._peak is None else rates | {"mfu": reached / self._peak}
