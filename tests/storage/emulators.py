"""Google's and Amazon's storage on this machine, behind a proxy that can fail."""

import contextlib
import logging
import os
import socketserver
from collections.abc import Iterator

from tests.storage.faulty_proxy import FaultyProxy

BUCKET = "bucket"
_NO_PROXY = {"NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}


@contextlib.contextmanager
def google() -> Iterator[tuple[FaultyProxy, dict[str, str]]]:
    """The proxy, and the environment that leads gcsfs, Orbax and TensorStore to it."""
    from gcp_storage_emulator.server import create_server

    logging.getLogger("gcp_storage_emulator").setLevel(logging.CRITICAL)
    for name in ("api", "api.object", "api.bucket"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    socketserver.TCPServer.request_queue_size = 128  # as of the proxy
    server = create_server("127.0.0.1", 0, in_memory=True, default_bucket=BUCKET)
    server.start()
    proxy = FaultyProxy(server._api._httpd.server_port)
    address = f"http://127.0.0.1:{proxy.port}"
    try:
        yield (
            proxy,
            {
                "STORAGE_EMULATOR_HOST": address,
                "TENSORSTORE_GCS_HTTP_URL": address,
                "GOOGLE_CLOUD_PROJECT": "test",
                **_NO_PROXY,
            },
        )
    finally:
        proxy.close()
        server.stop()


@contextlib.contextmanager
def amazon() -> Iterator[tuple[FaultyProxy, dict[str, str]]]:
    """The proxy, and the environment that leads s3fs to it."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.CRITICAL)
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    proxy = FaultyProxy(server.get_host_and_port()[1])
    try:
        environment = {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{proxy.port}",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "us-east-1",
            **_NO_PROXY,
        }
        with _set(environment):
            import s3fs

            # What moto holds is of the process, and outlives its server.
            s3fs.S3FileSystem(skip_instance_cache=True).makedirs(BUCKET, exist_ok=True)
        yield proxy, environment
    finally:
        proxy.close()
        server.stop()


@contextlib.contextmanager
def _set(environment: dict[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in environment}
    os.environ.update(environment)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
