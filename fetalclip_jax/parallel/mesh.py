"""The device mesh: three named axes, made in one place."""

import math
from collections.abc import Sequence

import jax
from jax.sharding import AxisType, Mesh

AXES = ("data", "fsdp", "tensor")


def make_mesh(
    data: int = -1,
    fsdp: int = 1,
    tensor: int = 1,
    *,
    devices: Sequence[jax.Device] | None = None,
    **unknown: int,
) -> Mesh:
    """Arranges devices as [data, fsdp, tensor].

    The axes are of type Auto: the compiler propagates shardings from parameters and batch, and
    the model holds no sharding code. (`jax.make_mesh` alone would make them Explicit.)

    `tensor`, then `fsdp`, are the axes that exchange the most: JAX puts them where devices are
    closest, within a host on CPUs and GPUs, along a TPU slice's own axes.

    Args:
      data: replicas of the parameters; -1 takes the devices the other axes leave.
      fsdp: shards of parameters and optimiser state; the batch is split over it too.
      tensor: shards of heads, MLP and vocabulary.
      devices: to arrange; None for all of all processes.
      unknown: axes that do not exist.

    Raises:
      ValueError: an unknown axis, or a product that is not the number of devices.
    """
    if unknown:
        raise ValueError(
            f"config.mesh.{min(unknown)} is no axis of the mesh; there are {', '.join(AXES)}"
        )
    if fsdp < 1 or tensor < 1 or (data < 1 and data != -1):
        raise ValueError(
            f"mesh axes data={data}, fsdp={fsdp} and tensor={tensor} must be at least 1 (or -1 for "
            "data: all devices that the others leave)"
        )
    devices = jax.devices() if devices is None else devices
    count = len(devices)
    shape = {"data": data, "fsdp": fsdp, "tensor": tensor}
    if data == -1:
        shape["data"] = max(count // (fsdp * tensor), 1)
    needed = math.prod(shape.values())
    if needed != count:
        of = f" (in {jax.process_count()} processes)" if jax.process_count() > 1 else ""
        raise ValueError(
            f"mesh {shape} needs {needed} devices, there are {count}{of}; set config.mesh.data "
            "to -1 or make the product of the three equal to the devices"
        )
    types = (AxisType.Auto,) * len(AXES)
    return jax.make_mesh(tuple(shape.values()), AXES, axis_types=types, devices=devices)
