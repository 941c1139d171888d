import jax
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, PartitionSpec

from fetalclip_jax.models.clip import CLIP
from fetalclip_jax.parallel import sharding
from fetalclip_jax.parallel.mesh import make_mesh
from fetalclip_jax.training import state
from tests.tiny import TINY


def test_mesh_takes_the_devices_the_other_axes_leave():
    mesh = make_mesh(fsdp=2, tensor=2)
    assert dict(mesh.shape) == {"data": 2, "fsdp": 2, "tensor": 2}
    assert set(mesh.axis_types) == {AxisType.Auto}


def test_mesh_that_does_not_fit_says_so():
    with pytest.raises(ValueError, match="needs 3 devices, there are 8"):
        make_mesh(data=3)
    with pytest.raises(ValueError, match="data=0, fsdp=1 and tensor=1 must be at least 1"):
        make_mesh(data=0)
    with pytest.raises(ValueError, match=r"config\.mesh\.model is no axis of the mesh"):
        make_mesh(model=2)


def test_a_process_by_itself_supplies_the_whole_batch():
    for shape in ({"data": 8}, {"data": 2, "fsdp": 2, "tensor": 2}, {"data": 1, "tensor": 8}):
        assert sharding.batch_part(make_mesh(**shape)) == (0, 1)


def test_parameters_lie_where_the_rules_say():
    mesh = make_mesh(data=2, fsdp=2, tensor=2)
    abstract, _ = state.abstract_state(CLIP(TINY), optax.adam(1e-3), mesh, seed=0)
    block = abstract.params["visual"]["transformer"]["blocks"]
    assert block["mlp_in"]["kernel"].sharding.spec == PartitionSpec(None, "fsdp", "tensor")
    assert block["attention"]["qkv"]["kernel"].sharding.spec == PartitionSpec(
        None, "fsdp", None, "tensor", None
    )
    # The optimiser's moments follow their parameters.
    moments = abstract.opt_state[0].mu["visual"]["transformer"]["blocks"]
    assert moments["mlp_in"]["kernel"].sharding.spec == block["mlp_in"]["kernel"].sharding.spec


def test_axes_that_do_not_divide_stay_whole():
    mesh = make_mesh(data=1, fsdp=1, tensor=8)
    abstract, _ = state.abstract_state(CLIP(TINY), optax.adam(1e-3), mesh, seed=0)
    # Two heads cannot be split eight ways, 128 hidden channels can.
    block = abstract.params["visual"]["transformer"]["blocks"]
    assert "tensor" not in block["attention"]["qkv"]["kernel"].sharding.spec
    assert "tensor" in block["mlp_in"]["kernel"].sharding.spec


def test_state_is_born_sharded_and_equal_on_any_mesh():
    optimizer = optax.adam(1e-3)
    one = state.create_state(CLIP(TINY), optimizer, make_mesh(data=8), seed=3)
    other = state.create_state(CLIP(TINY), optimizer, make_mesh(data=2, fsdp=2, tensor=2), seed=3)
    for a, b in zip(jax.tree.leaves(one.params), jax.tree.leaves(other.params), strict=True):
        np.testing.assert_array_equal(a, b)
    kernel = other.params["visual"]["transformer"]["blocks"]["mlp_in"]["kernel"]
    assert kernel.addressable_shards[0].data.size == kernel.size // 4


def test_a_global_batch_is_split_over_data_and_fsdp():
    mesh = make_mesh(data=2, fsdp=2, tensor=2)
    batch = sharding.global_batch({"x": np.arange(8)}, mesh)
    assert {shard.data.shape for shard in batch["x"].addressable_shards} == {(2,)}
    np.testing.assert_array_equal(batch["x"], np.arange(8))
