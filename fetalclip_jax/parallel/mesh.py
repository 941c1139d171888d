"""The device mesh: three named axes, made in one place."""

import jax
import numpy as np
from jax.sharding import AxisType, Mesh

AXES = ("data", "fsdp", "tensor")


def make_mesh(data: int = -1, fsdp: int = 1, tensor: int = 1) -> Mesh:
    """Arranges all devices of all processes as [data, fsdp, tensor].

    The axes are of type Auto: the compiler propagates shardings from parameters and batch, and
    the model holds no sharding code. (`jax.make_mesh` alone would make them Explicit.)

    Args:
      data: replicas of the parameters; -1 takes the devices the other axes leave.
      fsdp: shards of parameters and optimiser state; the batch is split over it too.
      tensor: shards of heads, MLP and vocabulary.

    Raises:
      ValueError: the product is not the number of devices.
    """
    if fsdp < 1 or tensor < 1:
        raise ValueError(f"mesh axes fsdp={fsdp} and tensor={tensor} must be at least 1")
    shape = {"data": data, "fsdp": fsdp, "tensor": tensor}
    devices = jax.device_count()
    if data == -1:
        shape["data"] = max(devices // (fsdp * tensor), 1)
    if int(np.prod(list(shape.values()))) != devices:
        raise ValueError(
            f"mesh {shape} needs {int(np.prod(list(shape.values())))} devices, there are {devices};"
            " set config.mesh.data to -1 or make the product of the three equal to the devices"
        )
    return jax.make_mesh(tuple(shape.values()), AXES, axis_types=(AxisType.Auto,) * len(AXES))
