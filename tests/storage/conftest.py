import pytest

from tests.storage import emulators


@pytest.fixture(scope="session", params=["google", "amazon"])
def emulator(request):
    """(scheme, proxy, environment) of a server that is up for all tests."""
    scheme, start = {
        "google": ("gs", emulators.google),
        "amazon": ("s3", emulators.amazon),
    }[request.param]
    with start() as (proxy, environment):
        yield scheme, proxy, environment


@pytest.fixture
def bucket(emulator, request, monkeypatch, tmp_path):
    """An empty folder in a bucket, and the proxy before it, where nothing fails yet."""
    from fetalclip_jax import storage

    scheme, proxy, environment = emulator
    proxy.every, proxy.refuses = 0, False
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("FETALCLIP_CACHE", str(tmp_path / "cache"))
    yield storage.path(f"{scheme}://{emulators.BUCKET}/{tmp_path.name}"), proxy
    proxy.every, proxy.refuses = 0, False
