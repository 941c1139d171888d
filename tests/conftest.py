"""Shared fixtures. Eight simulated CPU devices are set up before JAX is first imported."""

import atexit
import os
import pathlib
import shutil
import tempfile

import jaxtyping
import pytest

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# The tests compile many small programs and run each a few times: LLVM's optimisation would take
# two thirds of their time.
for flag in (
    "--xla_force_host_platform_device_count=8",
    "--xla_backend_optimization_level=0",
    "--xla_llvm_disable_expensive_passes=true",
):
    if flag.split("=")[0] not in os.environ.get("XLA_FLAGS", ""):
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flag}".strip()

# What one test compiles, in this process, in one that it starts or in one that runs other tests,
# is there for all; nothing of an earlier run is.
if "FETALCLIP_TESTS_COMPILED" not in os.environ:
    compiled = tempfile.mkdtemp(prefix="fetalclip-tests-compiled-")
    atexit.register(shutil.rmtree, compiled, ignore_errors=True)
    os.environ |= {
        "FETALCLIP_TESTS_COMPILED": compiled,
        "JAX_COMPILATION_CACHE_DIR": compiled,
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.2",
    }

# After the platform is set: fixtures of small data sets.
from tests.data_sets import (  # noqa: E402
    hc18_folder,  # noqa: F401
    numbered_examples,  # noqa: F401
    planes_folder,  # noqa: F401
    rewrite_hc18_csv,  # noqa: F401
)

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared_data() -> pathlib.Path:
    """Real ultrasound beside the checkout; tests that need it skip where it is absent."""
    folder = REPOSITORY.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no real images: {folder.name} folder is not beside the checkout")
    return folder


@pytest.fixture
def unchecked():
    """Lets a test pass what annotations forbid, where the function itself is to refuse it."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(scope="session")
def shared_reference() -> pathlib.Path:
    """Official prompt and split files beside the checkout."""
    folder = REPOSITORY.parent / "shared" / "reference" / "fetalclip"
    if not folder.is_dir():
        pytest.skip("no official reference files beside the checkout")
    return folder
