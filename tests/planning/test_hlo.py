"""What is read of compiled programs, of real ones whose figures are known."""

import functools

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from fetalclip_jax.losses import softmax_contrastive
from fetalclip_jax.parallel.mesh import make_mesh
from fetalclip_jax.planning import arithmetic, buffers, collectives, hlo


def module_of(function, *arguments):
    return hlo.parse(jax.jit(function).lower(*arguments).compile().as_text())


def test_a_loop_counts_as_often_as_it_turns():
    def inner(x, _):
        return jnp.tanh(x @ x), None

    def outer(x, _):
        return jax.lax.scan(inner, x, length=7)[0] * 0.5, None

    module = module_of(lambda x: jax.lax.scan(outer, x, length=3)[0], jnp.ones((16, 16)))
    assert arithmetic.operations(module)[0] == 3 * 7 * 2 * 16**3
    assert not module.unknown_loops


def test_a_loop_that_does_not_say_how_often_it_turns_is_told():
    module = module_of(
        lambda x: jax.lax.while_loop(lambda x: x[0, 0] < 9, lambda x: x @ x, x), jnp.ones((4, 4))
    )
    assert arithmetic.operations(module)[0] == 2 * 4**3
    assert len(module.unknown_loops) == 1


@pytest.mark.parametrize(
    ("subscripts", "left", "right", "products"),
    [
        ("ij,jk->ik", (3, 5), (5, 7), 3 * 5 * 7),
        ("bij,bjk->bik", (4, 3, 5), (4, 5, 7), 4 * 3 * 5 * 7),
        ("bqhk,blhk->bhql", (2, 3, 4, 8), (2, 5, 4, 8), 2 * 3 * 4 * 5 * 8),
    ],
)
def test_products_are_counted_by_their_definition(subscripts, left, right, products):
    module = module_of(functools.partial(jnp.einsum, subscripts), jnp.ones(left), jnp.ones(right))
    assert arithmetic.operations(module)[0] == 2 * products


@pytest.mark.parametrize(
    ("left", "right", "out", "how", "products"),
    [
        # As TPUs write the projections of attention and their gradients, here with 6 heads of 4.
        (
            *("2,9,24,1", "6,4,24,1", "2,9,6,4"),
            "window={size=1x6 pad=0_0x5_5 rhs_reversal=0x1}, dim_labels=0bf1_1oi0->0b1f",
            2 * 9 * 24 * 24,
        ),
        (
            *("18,24,1,1", "3,6,4,18", "24,3,6,4"),
            "window={size=3x6 pad=2_2x5_5 rhs_reversal=1x1}, dim_labels=fb01_01oi->b01f",
            18 * 24 * 3 * 24,
        ),
        (
            *("2,9,3,6,4", "24,3,6,4,1", "2,9,24,1,1"),
            "window={size=1x3x6}, dim_labels=b012f_o12i0->b0f12",
            2 * 9 * 24 * 3 * 24,
        ),
        ("7,24", "24,5", "7,5", "dim_labels=bf_io->bf", 7 * 24 * 5),
    ],
)
def test_padding_of_a_convolution_is_not_counted(left, right, out, how, products):
    text = f"""
HloModule product

ENTRY %main (a: bf16[{left}], b: bf16[{right}]) -> bf16[{out}] {{
  %a = bf16[{left}] parameter(0)
  %b = bf16[{right}] parameter(1)
  ROOT %c = bf16[{out}] convolution(%a, %b), {how}
}}
"""
    assert arithmetic.operations(hlo.parse(text))[0] == 2 * products


@pytest.mark.parametrize(
    ("left", "kernel", "out", "window", "meetings"),
    [
        (5, 3, 5, {"pad": 1}, 13),  # both ends meet padding once
        (3, 2, 6, {"pad": 1, "lhs_dilate": 2}, 6),  # numbers at 0, 2 and 4 of 5
        (9, 3, 4, {"stride": 2}, 12),
        (9, 3, 5, {"rhs_dilate": 2}, 15),
    ],
)
def test_what_a_window_meets(left, kernel, out, window, meetings):
    plain = {"stride": 1, "pad": 0, "lhs_dilate": 1, "rhs_dilate": 1}
    assert arithmetic._valid(left, kernel, out, plain | window) == meetings


def test_full_float32_counts_as_six_products():
    precise = functools.partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST)
    module = module_of(precise, jnp.ones((8, 8)), jnp.ones((8, 8)))
    plain, passes = arithmetic.operations(module)
    assert passes == 6 * plain == 6 * 2 * 8**3


def test_traffic_is_what_kernels_read_and_write():
    module = module_of(lambda x: jnp.tanh(x) + 1.0, jnp.ones((64, 64)))
    assert arithmetic.traffic(module) == 2 * 64 * 64 * 4
    # Of a stack of layers a loop reads each layer once, not all of them each time.
    stack = jnp.ones((10, 64, 64))
    module = module_of(lambda w: jax.lax.scan(lambda x, m: (x + m, None), w[0], w)[0], stack)
    assert arithmetic.traffic(module) < 6 * stack.nbytes


def mesh_and_axes():
    mesh = make_mesh(2, 2, 2)
    return mesh, dict(mesh.shape)


@pytest.mark.parametrize(
    ("say", "axes", "kind", "sent"),
    [
        (lambda x: jax.lax.psum(x, "data"), "data", "all-reduce", 2 * 256 // 2),
        (lambda x: jax.lax.psum(x, ("data", "fsdp")), "data+fsdp", "all-reduce", 2 * 256 * 3 // 4),
        (lambda x: jax.lax.all_gather(x, "fsdp").sum(0), "fsdp", "all-gather", 256),
        (
            lambda x: jax.lax.all_gather(x, ("data", "tensor")).sum(0),
            "data+tensor",
            "all-gather",
            3 * 256,
        ),
        (
            lambda x: jnp.tile(jax.lax.psum_scatter(x, "tensor", tiled=True), 2),
            "tensor",
            "reduce-scatter",
            128,
        ),
        (
            lambda x: jax.lax.ppermute(x, "fsdp", [(0, 1), (1, 0)]),
            "fsdp",
            "collective-permute",
            256,
        ),
        (
            lambda x: jax.lax.all_to_all(x.reshape(2, 32), "data", 0, 0).ravel(),
            "data",
            "all-to-all",
            128,
        ),
    ],
)
def test_what_is_sent_is_found_with_its_axes(say, axes, kind, sent):
    mesh, shape = mesh_and_axes()

    def turn(x, _):
        return jnp.sin(say(x)), None

    def local(x):
        return jax.lax.scan(turn, x, length=3)[0]

    everywhere = PartitionSpec(("data", "fsdp", "tensor"))
    function = jax.shard_map(
        local, mesh=mesh, in_specs=everywhere, out_specs=everywhere, check_vma=False
    )
    x = jax.ShapeDtypeStruct((8 * 64,), jnp.float32, sharding=NamedSharding(mesh, everywhere))
    found = collectives.bytes_by_axes(collectives.find(module_of(function, x), shape))
    assert found == {f"{axes} {kind}": 3 * sent}


@pytest.mark.parametrize(
    ("attributes", "groups"),
    [
        ("replica_groups={{0,1},{2,3}}, to_apply=%add", [[0, 1], [2, 3]]),
        ("replica_groups={}, to_apply=%add", [[0, 1, 2, 3]]),
        ("replica_groups=[2,2]<=[4]", [[0, 1], [2, 3]]),
        ("replica_groups=[2,2]<=[2,2]T(1,0)", [[0, 2], [1, 3]]),
        ("replica_groups=mesh['a'=2,'b'=2] {'a'}", [[0, 2], [1, 3]]),
        ("replica_groups=mesh['a'=2,'b'=2] {'a','b'}", [[0, 1, 2, 3]]),
        ("replica_groups=mesh['a'=2,'b'=2], device_ids=([2,2]T(1,0)) {'a'}", [[0, 1], [2, 3]]),
        ("replica_groups=mesh['a'=4] {'a':(1)2}", []),
        ("replica_groups=written in another way", []),
    ],
)
def test_groups_are_read_in_all_notations(attributes, groups):
    found = collectives.replica_groups(attributes, 4)
    assert sorted(map(sorted, found)) == groups


def test_forms_that_begin_and_end_count_once():
    text = """
HloModule split

%add (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %sum = f32[] add(%a, %b)
}

%kernel.1 (p: f32[8]) -> f32[32] {
  %p = f32[8]{0} parameter(0)
  %g = f32[32]{0} all-gather(%p), channel_id=4, replica_groups=[1,4]<=[4], dimensions={0}, \
frontend_attributes={chain_id="0"}
  ROOT %s = f32[32]{0} custom-call(%g), custom_call_target="AsyncCollectiveStart"
}

%kernel.2 (p.1: f32[8]) -> f32[32] {
  %p.1 = f32[8]{0} parameter(0)
  ROOT %g.1 = f32[32]{0} all-gather(%p.1), channel_id=4, replica_groups=[1,4]<=[4], \
dimensions={0}, frontend_attributes={chain_id="0"}
}

ENTRY %main (x: f32[8]) -> f32[32] {
  %x = f32[8]{0} parameter(0)
  %r = f32[8]{0} all-reduce-start(%x), channel_id=1, replica_groups=[1,4]<=[4], to_apply=%add
  %r.1 = f32[8]{0} all-reduce-done(%r)
  %h = (f32[8]{0}, f32[32]{0}) all-gather-start(%r.1), replica_groups=[1,4]<=[4], dimensions={0}
  %h.1 = f32[32]{0} all-gather-done(%h)
  %begin = f32[32]{0} fusion(%r.1), kind=kCustom, calls=%kernel.1
  ROOT %go_on = f32[32]{0} fusion(%r.1), kind=kCustom, calls=%kernel.2
}
"""
    found = collectives.find(hlo.parse(text), {"data": 4})
    assert [(one.kind, one.times, one.bytes) for one in found] == [
        ("all-reduce", 1, 2 * 32 * 3 // 4),
        ("all-gather", 1, 128 * 3 // 4),
        ("all-gather", 1, 128 * 3 // 4),
    ]


@pytest.mark.parametrize(("block", "there"), [(None, True), (16, False)])
def test_a_model_as_wide_as_the_batch_makes_no_matrix_of_all_pairs(block, there):
    def loss(weight, image):
        with jax.named_scope("CLIP"):
            text = jnp.tanh(image @ weight.T) @ weight  # 64 examples, 64 wide in between
        return softmax_contrastive(image, text, jnp.float32(5), block_size=block)[0]

    def step(weight, image):
        return weight - 0.1 * jax.grad(loss)(weight, image)

    sides = jax.ShapeDtypeStruct((64, 24), jnp.float32)
    assert bool(buffers.of_all_pairs(module_of(step, sides, sides), 64, 1)) == there


@pytest.mark.parametrize(("block", "there"), [(None, True), (16, False)])
def test_a_matrix_of_all_pairs_is_found(block, there):
    mesh = make_mesh()
    where = NamedSharding(mesh, PartitionSpec(("data", "fsdp")))
    features = jax.ShapeDtypeStruct((512, 24), jnp.float32, sharding=where)

    def loss(image, text):
        return softmax_contrastive(image, text, jnp.float32(5), mesh=mesh, block_size=block)[0]

    module = module_of(jax.grad(loss, (0, 1)), features, features)
    assert bool(buffers.of_all_pairs(module, 512, 8)) == there
    largest = buffers.largest(module, 1)[0]
    assert largest.bytes == (512 * 64 * 4 if there else 512 * 24 * 4)
