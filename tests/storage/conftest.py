import pytest

from tests.storage import emulators


# One server of each kind for all tests of a process: fsspec keeps what it once connected to.
@pytest.fixture(scope="session")
def google():
    with emulators.google() as (proxy, environment):
        yield "gs", proxy, environment


@pytest.fixture(scope="session")
def amazon():
    with emulators.amazon() as (proxy, environment):
        yield "s3", proxy, environment


@pytest.fixture(params=["google", "amazon"])
def emulator(request):
    """(scheme, proxy, environment) of a server that is up for all tests."""
    return request.getfixturevalue(request.param)


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
