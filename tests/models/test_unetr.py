"""The decoder against PyTorch's answers (`benchmarks/unetr.py --golden` writes them)."""

import pathlib

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import pytest

from fetalclip_jax.losses.dice import dice_loss
from fetalclip_jax.models.unetr import UNETRDecoder, Weights, initial_variables

GOLDEN = pathlib.Path(__file__).with_name("unetr_golden.npz")
SIZE, GRID, WIDTH, CLASSES, CHANNELS = 32, 3, 6, 2, 2


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN) as arrays:
        return dict(arrays)


def shapes_of(decoder, size=SIZE, tokens=(GRID, GRID, WIDTH)):
    images = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
    taps = (jax.ShapeDtypeStruct((1, *tokens), jnp.float32),) * 4
    return jax.eval_shape(decoder.init, jax.random.key(0), images, taps)


def filled(shapes, vector):
    """A tree of these shapes, its sorted leaves cut from a vector."""
    leaves, structure = jax.tree.flatten(shapes)
    assert vector.size == sum(leaf.size for leaf in leaves)
    ends = np.cumsum([leaf.size for leaf in leaves])
    parts = np.split(vector, ends[:-1])
    pairs = zip(parts, leaves, strict=True)
    return jax.tree.unflatten(structure, [part.reshape(leaf.shape) for part, leaf in pairs])


@pytest.mark.parametrize(("tokens", "parameters"), [(1024, 1_591_941), (768, 1_315_461)])
def test_the_number_of_parameters_is_the_papers(tokens, parameters):
    params = shapes_of(UNETRDecoder(1), tokens=(2, 2, tokens))["params"]
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == parameters


def test_values_statistics_and_gradients_equal_pytorchs(golden):
    # In float64: in float32 rounding decides on which side of 0 a ReLU is.
    with jax.enable_x64(True):
        decoder = UNETRDecoder(CLASSES, CHANNELS, dtype=jnp.float64)
        golden = {k: v if v.dtype == bool else v.astype(np.float64) for k, v in golden.items()}
        shapes = shapes_of(decoder)
        variables = filled(shapes, golden["variables"])

        def loss_of(params, images, tokens):
            logits, updates = decoder.apply(
                variables | {"params": params}, images, tuple(tokens), True, mutable="batch_stats"
            )
            return dice_loss(logits, golden["masks"]), (logits, updates["batch_stats"])

        leaves = variables["params"], golden["images"], golden["tokens"]
        run = jax.jit(jax.value_and_grad(loss_of, argnums=(0, 1, 2), has_aux=True))
        (loss, (logits, statistics)), gradients = run(*leaves)
        found = {
            "evaluation_logits": jax.jit(decoder.apply)(variables, leaves[1], tuple(leaves[2])),
            "training_logits": logits,
            "loss": loss,
            "batch_stats": jax.flatten_util.ravel_pytree(statistics)[0],
            "gradients": jax.flatten_util.ravel_pytree(gradients[0])[0],
            "images_gradient": gradients[1],
            "tokens_gradient": gradients[2],
        }
        found = jax.tree.map(np.asarray, found)
    for name, values in found.items():
        # The golden numbers are rounded to float32.
        difference = np.linalg.norm(values - golden[name]) / np.linalg.norm(golden[name])
        assert difference < 1e-6, name
        np.testing.assert_allclose(values, golden[name], rtol=1e-4, atol=1e-7, err_msg=name)


@pytest.mark.parametrize(("dtype", "tolerance"), [(jnp.float32, 1e-5), (jnp.bfloat16, 0.02)])
def test_logits_are_float32_whatever_the_maps_are(golden, dtype, tolerance):
    decoder = UNETRDecoder(CLASSES, CHANNELS, dtype=dtype)
    variables = filled(shapes_of(decoder), golden["variables"])
    logits = jax.jit(decoder.apply)(variables, golden["images"], tuple(golden["tokens"]))
    assert logits.dtype == jnp.float32
    expected = golden["evaluation_logits"]
    assert np.linalg.norm(logits - expected) < tolerance * np.linalg.norm(expected)


def test_initial_parameters_have_the_range_of_pytorchs():
    decoder = UNETRDecoder(1, 8)
    variables = initial_variables(decoder, SIZE, (GRID, GRID, 50), seed=3)
    assert jax.tree.map(np.shape, variables) == jax.tree.map(
        lambda leaf: leaf.shape, shapes_of(decoder, tokens=(GRID, GRID, 50))
    )
    block = variables["params"]["first_tap_1"]
    for layer, fan_in in (("doubling", 4), ("depthwise", 9), ("pointwise", 50)):
        for values in block[layer].values():
            assert 0.8 < np.abs(values).max() * fan_in**0.5 < 1
    assert (block["norm_1"]["scale"] == 1).all()
    assert (block["norm_1"]["bias"] == 0).all()
    statistics = variables["batch_stats"]["first_tap_1"]["norm_1"]
    assert (statistics["mean"] == 0).all()
    assert (statistics["variance"] == 1).all()
    again = initial_variables(decoder, SIZE, (GRID, GRID, 50), seed=4)
    assert (again["params"]["head"]["kernel"] != variables["params"]["head"]["kernel"]).all()


@pytest.mark.parametrize(("shape", "fan_in"), [((2, 2, 50), 4), ((3, 3, 50), 9), ((50, 20), 50)])
def test_parameters_of_init_have_that_range_too(shape, fan_in):
    params = Weights(shape, jnp.float32).init(jax.random.key(0))["params"]
    for values in params.values():
        assert 0.8 < np.abs(values).max() * fan_in**0.5 < 1


def test_sizes_that_cannot_be_halved_four_times_are_refused():
    with pytest.raises(ValueError, match="multiple of 16 pixels, found 40"):
        shapes_of(UNETRDecoder(1), size=40)


def test_three_taps_are_refused():
    with pytest.raises(ValueError, match="tokens of 4 blocks, found 3"):
        UNETRDecoder(1).init(
            jax.random.key(0), jnp.zeros((1, 16, 16, 3)), (jnp.zeros((1, 1, 1, 2)),) * 3
        )
