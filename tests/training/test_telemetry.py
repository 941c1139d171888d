import jax
import pytest

from fetalclip_jax.models import presets
from fetalclip_jax.training import telemetry


@pytest.mark.parametrize(
    ("kind", "dtype", "tflops"),
    [
        ("NVIDIA H100 80GB HBM3", "bfloat16", 989),
        ("NVIDIA H100 PCIe", "bfloat16", 756),
        ("NVIDIA H200", "float32", 494.5),
        ("NVIDIA A100-SXM4-80GB", "bfloat16", 312),
        ("TPU v4", "float32", 275),
        ("TPU v5", "bfloat16", 459),
        ("TPU v5 lite", "bfloat16", 197),
        ("TPU v6 lite", "bfloat16", 918),
    ],
)
def test_peaks_are_those_the_makers_publish(kind, dtype, tflops):
    assert telemetry.peak_flops(kind, dtype) == tflops * 1e12


@pytest.mark.parametrize("kind", ["cpu", "NVIDIA L40", "TPU v50", "NVIDIA A1000"])
def test_no_peak_is_made_up(kind):
    assert telemetry.peak_flops(kind, "bfloat16") is None


class Device:
    device_kind = "NVIDIA H100 80GB HBM3"

    def __init__(self, **stats):
        self._stats = stats

    def memory_stats(self):
        return self._stats or None


def test_rates_are_over_all_steps_since_the_last_look(monkeypatch):
    monkeypatch.setattr(jax, "devices", lambda: [Device(), Device()])
    monkeypatch.setattr(jax, "device_count", lambda: 2)
    monkeypatch.setattr(
        telemetry.flops, "of_training_pair", lambda config, length, images: images * length * 10**12
    )
    meter = telemetry.Meter(presets.get("FetalCLIP"), "bfloat16")
    meter.count(8, 40)
    meter.count(8, 24)
    values = meter.take(seconds=0.5)
    assert values == pytest.approx(
        {
            "images_per_second": 32.0,
            "step_flops": 8 * 32e12,
            "tflops_per_device": 8 * 64 / 0.5 / 2,
            "mfu": 8 * 64 / 0.5 / 2 / 989,
        }
    )
    assert meter.overall() == values
    meter.count(8, 40)
    assert meter.take(1.0)["images_per_second"] == 8.0
    assert meter.overall()["images_per_second"] == 24 / 1.5


def test_a_processor_has_no_mfu_and_tells_no_memory():
    meter = telemetry.Meter(presets.get("FetalCLIP"), "float32")
    assert meter.overall() == {}
    meter.count(8, 40)
    assert meter.take(1.0).keys() == {"images_per_second", "step_flops", "tflops_per_device"}
    assert telemetry.device_memory_gib() == {}


def test_memory_is_that_of_the_fullest_device(monkeypatch):
    full = Device(bytes_in_use=2**30, peak_bytes_in_use=5 * 2**30)
    devices = [full, Device(bytes_in_use=3 * 2**30, peak_bytes_in_use=4 * 2**30)]
    monkeypatch.setattr(jax, "local_devices", lambda: devices)
    assert telemetry.device_memory_gib() == {
        "device_memory_gib": 3.0,
        "device_memory_peak_gib": 5.0,
    }
