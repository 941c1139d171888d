"""Shared fixtures. Eight simulated CPU devices are set up before JAX is first imported."""

import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")
if "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
    os.environ["XLA_FLAGS"] = (
        os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
    ).strip()

import pathlib

import pytest

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared_data() -> pathlib.Path:
    """Real ultrasound beside the checkout; tests that need it skip where it is absent."""
    folder = REPOSITORY.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no real images: {folder.name} folder is not beside the checkout")
    return folder


@pytest.fixture(scope="session")
def shared_reference() -> pathlib.Path:
    """Official prompt and split files beside the checkout."""
    folder = REPOSITORY.parent / "shared" / "reference" / "fetalclip"
    if not folder.is_dir():
        pytest.skip("no official reference files beside the checkout")
    return folder
