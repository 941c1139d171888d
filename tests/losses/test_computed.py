"""However a loss is computed, it is the same function."""

import functools
import itertools

import jax
import jax.extend
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding

from fetalclip_jax.losses import sigmoid_contrastive, softmax_contrastive
from fetalclip_jax.models.clip import unit_length
from fetalclip_jax.parallel.mesh import make_mesh
from fetalclip_jax.parallel.sharding import BATCH

LOSSES = {"softmax": softmax_contrastive, "sigmoid": sigmoid_contrastive}
MESHES = {"none": None, "data": {"data": 8}, "mixed": {"data": 2, "fsdp": 2, "tensor": 2}}
BATCH_SIZE, DIM = 32, 5
REPEATED = np.random.RandomState(0).randint(0, 9, BATCH_SIZE)


def inputs(name: str, batch=BATCH_SIZE, scale=12.0) -> tuple:
    image, text = jax.random.normal(jax.random.key(0), (2, batch, DIM))
    numbers = (jnp.float32(scale), jnp.float32(-3.0))
    return unit_length(image), unit_length(text), *numbers[: 1 + (name == "sigmoid")]


def gradients_of(name: str, **options):
    """The compiled loss with metrics, and its gradients by everything it takes."""
    takes = range(3 + (name == "sigmoid"))
    loss = functools.partial(LOSSES[name], **options)
    return jax.jit(jax.value_and_grad(loss, argnums=tuple(takes), has_aux=True))


@functools.cache
def by_definition(name: str, repeated: bool):
    ids = jnp.asarray(REPEATED) if repeated else None
    return gradients_of(name, caption_ids=ids)(*inputs(name))


def check_same(found, expected):
    (loss, metrics), gradients = found
    (expected_loss, expected_metrics), expected_gradients = expected
    np.testing.assert_allclose(loss, expected_loss, rtol=1e-6)
    assert metrics == expected_metrics
    for ours, theirs in zip(gradients, expected_gradients, strict=True):
        assert jnp.linalg.norm(ours - theirs) <= 1e-5 * jnp.linalg.norm(theirs)


@pytest.mark.parametrize(
    ("mesh", "block_size", "exchange"),
    [
        ("none", 2, "gather"),  # nothing is passed on one device
        ("none", 3, "gather"),
        *itertools.product(["data", "mixed"], [None, 2, 3], ["gather", "ring"]),  # 4 or 8 rows each
    ],
)
@pytest.mark.parametrize("name", LOSSES)
def test_every_combination_has_the_same_value_and_gradients(name, mesh, block_size, exchange):
    ids = jnp.asarray(REPEATED)
    mesh = MESHES[mesh] and make_mesh(**MESHES[mesh])
    options = {"block_size": block_size, "mesh": mesh, "exchange": exchange}
    found = gradients_of(name, caption_ids=ids, **options)(*inputs(name))
    check_same(found, by_definition(name, repeated=True))
    assert found[0][1]["duplicate_caption_share"] > 0.5


@pytest.mark.parametrize(
    "options", [{"block_size": 5}, {"exchange": "gather"}, {"exchange": "ring", "block_size": 3}]
)
@pytest.mark.parametrize("name", LOSSES)
def test_so_it_has_without_repeated_captions_on_arrays_that_are_split(name, options):
    takes = inputs(name)
    if "exchange" in options:
        options = options | {"mesh": make_mesh(data=4, fsdp=2)}
        takes = [
            jax.device_put(x, NamedSharding(options["mesh"], BATCH)) if x.ndim else x for x in takes
        ]
    check_same(gradients_of(name, **options)(*takes), by_definition(name, repeated=False))


@pytest.mark.parametrize("name", LOSSES)
def test_logits_of_one_hundred_are_no_matter_how_far_apart(name):
    image, text, _, *bias = inputs(name, scale=100.0)
    text = text.at[3].set(-image[3]).at[4].set(image[4])  # logits of -100 and 100
    takes = (image, text, jnp.float32(100.0), *bias)
    check_same(gradients_of(name, block_size=3)(*takes), gradients_of(name)(*takes))


@pytest.mark.parametrize("exchange", ["gather", "ring"])
@pytest.mark.parametrize("name", LOSSES)
def test_no_buffer_holds_all_pairs_forward_or_backward(name, exchange):
    batch = 64
    takes, mesh = inputs(name, batch), make_mesh()

    def largest(**options):
        jaxpr = jax.make_jaxpr(gradients_of(name, **options))(*takes)
        return max(variable.aval.size for variable in _variables(jaxpr.jaxpr))

    assert largest() == batch * batch
    assert largest(block_size=8) == batch * DIM
    assert largest(block_size=4, mesh=mesh, exchange=exchange) == batch * DIM


def _variables(jaxpr):
    """The results of all equations, those of the programs within them too."""
    for equation in jaxpr.eqns:
        yield from (v for v in equation.outvars if hasattr(v.aval, "size"))
        for inner in jax.extend.core.jaxprs_in_params(equation.params):
            yield from _variables(inner)


def test_a_ring_never_has_the_texts_of_all_devices():
    takes = inputs("softmax")

    def collectives(exchange):
        options = {"mesh": make_mesh(), "exchange": exchange, "block_size": 2}
        text = gradients_of("softmax", **options).lower(*takes).as_text()
        return "all_gather" in text, "collective_permute" in text

    assert collectives("gather") == (True, False)
    assert collectives("ring") == (False, True)


@pytest.mark.parametrize("name", LOSSES)
def test_bfloat16_features_are_compared_in_float32(name):
    image, text, *numbers = inputs(name)
    image, text = image.astype(jnp.bfloat16), text.astype(jnp.bfloat16)
    (loss, _), gradients = gradients_of(name, block_size=3)(image, text, *numbers)
    expected = LOSSES[name](image.astype(jnp.float32), text.astype(jnp.float32), *numbers)[0]
    np.testing.assert_allclose(loss, expected, rtol=1e-6)
    assert [g.dtype for g in gradients[:3]] == [jnp.bfloat16, jnp.bfloat16, jnp.float32]


@pytest.mark.parametrize("name", LOSSES)
def test_what_is_not_a_number_is_not_hidden(name):
    image, *others = inputs(name)
    (loss, _), gradients = gradients_of(name, block_size=5)(image.at[7, 0].set(jnp.nan), *others)
    assert jnp.isnan(loss)
    assert all(jnp.isnan(gradient).any() for gradient in gradients)


def test_a_draw_is_a_miss():
    image, text, scale = inputs("softmax")
    same = jnp.broadcast_to(text[:1], text.shape)
    for options in ({}, {"block_size": 3}):
        assert softmax_contrastive(image, same, scale, **options)[1]["image_to_text_accuracy"] == 0


def test_a_loss_within_a_scan_has_its_gradients():
    image, text, _ = inputs("softmax")
    options = {"block_size": 3, "mesh": make_mesh(), "exchange": "ring"}

    def total(image, **options):
        def one(carry, scale):
            return carry + softmax_contrastive(image, text, scale, **options)[0], None

        return jax.lax.scan(one, jnp.float32(0.0), jnp.array([3.0, 12.0]))[0]

    plain, ring = (
        jax.jit(jax.grad(total))(image),
        jax.jit(jax.grad(functools.partial(total, **options)))(image),
    )
    np.testing.assert_allclose(ring, plain, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize(
    ("batch", "options", "message"),
    [
        (8, {"block_size": 0}, "block_size=0 is not 1 or more"),
        (8, {"exchange": "star"}, "exchange='star' is not one of gather, ring"),
        (12, {"mesh": {"data": 4, "fsdp": 2}}, "batch of 12 is not a multiple of the 8 devices"),
        (8, {"caption_ids": jnp.arange(7)}, "7 caption_ids for 8 pairs"),
    ],
)
@pytest.mark.parametrize("name", LOSSES)
def test_what_cannot_be_computed_is_refused(name, batch, options, message, unchecked):
    if "mesh" in options:
        options = options | {"mesh": make_mesh(**options["mesh"])}
    with pytest.raises(ValueError, match=message):
        LOSSES[name](*inputs(name, batch), **options)


def test_a_mesh_of_other_axes_is_refused():
    mesh = jax.make_mesh((8,), ("rows",), axis_types=(jax.sharding.AxisType.Auto,))
    with pytest.raises(ValueError, match="mesh has the axes rows; batches are split over data"):
        softmax_contrastive(*inputs("softmax"), mesh=mesh)


def test_features_of_other_pairs_are_refused(unchecked):
    image, text, scale = inputs("softmax")
    with pytest.raises(ValueError, match=r"\[32, 5\] and text_features \[31, 5\]"):
        softmax_contrastive(image, text[1:], scale)
