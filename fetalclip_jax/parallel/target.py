"""Which device a program is being traced for.

Tracing comes before there is a program: what is fastest on a platform has to be chosen by the
devices of the mesh, which need not be those of this machine.
"""

import contextlib
import contextvars
from collections.abc import Iterator

import jax
from jax.sharding import Mesh

_device: contextvars.ContextVar[jax.Device | None] = contextvars.ContextVar(
    "target_device", default=None
)


@contextlib.contextmanager
def compiled_for(mesh: Mesh) -> Iterator[None]:
    """What is traced in the block is for the devices of `mesh`.

    To be entered by the traced function itself: JAX keeps what it traced, and asks no context
    whether it still holds.
    """
    token = _device.set(mesh.devices.flat[0])
    try:
        yield
    finally:
        _device.reset(token)


def device() -> jax.Device:
    """A device like those the program will run on: outside of `compiled_for`, JAX's first."""
    return _device.get() or jax.devices()[0]
