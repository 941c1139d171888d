"""The stack of blocks: what it computes, leaves out, and lets be seen."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fetalclip_jax.models import transformer
from fetalclip_jax.models.transformer import Block, Transformer

WIDTH = 8
SETTINGS = {"layers": 3, "heads": 2, "mlp_width": 16, "causal": False}


@pytest.fixture(scope="module")
def x():
    return jax.random.normal(jax.random.key(0), (4, 5, WIDTH))


@pytest.fixture(scope="module")
def params(x):
    return nn.meta.unbox(jax.jit(Transformer(**SETTINGS).init)(jax.random.key(1), x))["params"]


def first(x):
    return x[:, :1]


def block_by_block(params, x, offsets=()) -> list[jax.Array]:
    """The output of each block, each called on its own, and what is added to some of them."""
    block = Block(2, 16, False, 3, False, None, jnp.float32)
    outputs = []
    for layer in range(3):
        own = jax.tree.map(lambda leaf: leaf[layer], params["blocks"])  # noqa: B023
        output = block.apply({"params": own}, outputs[-1] if outputs else x)
        outputs.append(output + offsets[layer + 1] if layer + 1 in offsets else output)
    return outputs


@pytest.mark.parametrize(
    ("choose", "scan", "remat", "taps"),
    [
        (first, True, "none", (1, 2)),
        (first, False, "full", (2,)),
        (first, True, "full", (3, 1, 3)),
        (None, False, "none", (2, 1)),
    ],
)
def test_taps_are_the_outputs_of_those_blocks(params, x, choose, scan, remat, taps):
    stack = Transformer(**SETTINGS, scan_layers=scan, remat=remat)

    def tapped(params):
        return stack.apply({"params": params}, x, choose, taps)

    def expected(params):
        outputs = block_by_block(params, x)
        end = outputs[-1] if choose is None else choose(outputs[-1])
        return end, tuple(outputs[tap - 1] for tap in taps)

    def results(f):
        def loss(params):
            end, outputs = f(params)
            weighed = sum((i + 2) * jnp.sin(out).sum() for i, out in enumerate(outputs))
            return jnp.sin(end).sum() + weighed, (end, outputs)

        return jax.jit(jax.grad(loss, has_aux=True))(params)

    for a, b in zip(
        jax.tree.leaves(results(expected)), jax.tree.leaves(results(tapped)), strict=True
    ):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("choose", "scan", "remat", "taps", "blocks"),
    [
        (first, True, "none", (1, 2), (2,)),
        (first, False, "full", (2,), (1, 2)),
        (first, True, "full", (2,), (3,)),
        (None, True, "none", (), (1, 3)),
        (first, False, "none", (), (2,)),
    ],
)
def test_offsets_are_added_to_the_outputs_of_their_blocks(
    params, x, choose, scan, remat, taps, blocks
):
    stack = Transformer(**SETTINGS, scan_layers=scan, remat=remat)
    offsets = {one: jax.random.normal(jax.random.key(one), x.shape) for one in blocks}

    def with_offsets(offsets):
        found = stack.apply({"params": params}, x, choose, taps, offsets)
        return found if taps else (found, ())

    def expected(offsets):
        outputs = block_by_block(params, x, offsets)
        end = outputs[-1] if choose is None else choose(outputs[-1])
        return end, tuple(outputs[tap - 1] for tap in taps)

    def results(f):
        def loss(offsets):
            end, outputs = f(offsets)
            weighed = sum((i + 2) * jnp.sin(out).sum() for i, out in enumerate(outputs))
            return jnp.sin(end).sum() + weighed, (end, outputs)

        return jax.jit(jax.grad(loss, has_aux=True))(offsets)

    found = results(with_offsets)
    for a, b in zip(jax.tree.leaves(results(expected)), jax.tree.leaves(found), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)
    assert np.abs(found[0][blocks[0]]).max() > 0.1


def test_an_offset_of_what_is_no_block_is_named(params, x):
    with pytest.raises(ValueError, match=r"offsets=\(4,\): the blocks are numbered 1 to 3"):
        Transformer(**SETTINGS).apply({"params": params}, x, None, (), {4: x})


@pytest.mark.parametrize("taps", [(0,), (1, 4), (-1,)])
def test_a_tap_that_is_no_block_is_named(params, x, taps):
    with pytest.raises(ValueError, match=r"taps=\(.*\): the blocks are numbered 1 to 3"):
        Transformer(**SETTINGS).apply({"params": params}, x, None, taps)


class WatchedBlock(Block):
    """Shows its output, adds noise of a random stream where it is given, and counts its calls."""

    @nn.compact
    def __call__(self, x, choose=None):
        y = super().__call__(x, choose)
        if self.has_rng("noise"):
            y = y + jax.random.normal(self.make_rng("noise"), y.shape)
        self.sow("intermediates", "output", y)
        if self.has_variable("counts", "calls"):
            calls = self.variable("counts", "calls", jnp.zeros, ())
            calls.value += 1
        return y


@pytest.fixture
def watched(monkeypatch):
    monkeypatch.setattr(transformer, "Block", WatchedBlock)


@pytest.mark.usefixtures("watched")
@pytest.mark.parametrize("scan", [True, False])
@pytest.mark.parametrize("choose", [None, first])
def test_what_a_block_shows_comes_out_with_its_gradient(params, x, scan, choose):
    stack = Transformer(**SETTINGS, scan_layers=scan)

    def shown(params):
        _, seen = stack.apply({"params": params}, x, choose, mutable="intermediates")
        (outputs,) = seen["intermediates"]["blocks"]["output"]
        return outputs  # layers B L D

    def expected(params):
        return jnp.stack(block_by_block(params, x))

    found, wanted = (
        jax.jit(jax.value_and_grad(lambda p: jnp.sin(f(p)).sum()))(params)  # noqa: B023
        for f in (shown, expected)
    )
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.usefixtures("watched")
@pytest.mark.parametrize("remat", ["none", "full"])
def test_a_block_keeps_state_of_its_own(params, x, remat):
    stack = Transformer(**SETTINGS, remat=remat)
    counts = {"blocks": {"calls": jnp.array([0.0, 10.0, 20.0])}}
    _, changed = stack.apply({"params": params, "counts": counts}, x, first, mutable="counts")
    np.testing.assert_array_equal(changed["counts"]["blocks"]["calls"], [1, 11, 21])


@pytest.mark.usefixtures("watched")
def test_every_block_has_random_numbers_of_its_own(params, x):
    # Without weights, what a block adds is its noise.
    variables = {"params": jax.tree.map(jnp.zeros_like, params)}

    def noise(scan, mutable, choose, seed=0):
        stack = Transformer(**SETTINGS, scan_layers=scan)
        rngs = {"noise": jax.random.key(seed)}
        return stack.apply(variables, x, choose, rngs=rngs, mutable=mutable)

    end, seen = noise(True, "intermediates", None)
    (outputs,) = seen["intermediates"]["blocks"]["output"]
    steps = np.diff(outputs, axis=0, prepend=x[None])
    assert len({round(float(step[0, 0, 0]), 4) for step in steps}) == 3
    np.testing.assert_allclose(end, noise(False, "intermediates", None)[0], atol=1e-6)
    np.testing.assert_allclose(end, noise(True, False, None), atol=1e-6)
    assert np.abs(end - noise(True, False, None, seed=1)).max() > 0.1
    # Tokens that are left out change nothing, and looping over the stack in place neither.
    chosen = [noise(scan, False, first) for scan in (True, False)]
    np.testing.assert_allclose(*chosen, atol=1e-6)
    assert np.abs(chosen[0] - first(outputs[1])).max() > 0.1


@pytest.mark.usefixtures("watched")
def test_the_gradient_sees_the_same_random_numbers_as_the_function(params, x):
    stack = Transformer(**SETTINGS)

    def run(params):
        rngs = {"noise": jax.random.key(0)}
        return stack.apply({"params": params}, x, first, rngs=rngs)

    # The function is one loop, the forward pass of its gradient another.
    np.testing.assert_allclose(
        jax.jit(run)(params), jax.jit(lambda p: jax.vjp(run, p)[0])(params), atol=1e-5
    )


@pytest.mark.parametrize(
    ("layers", "causal", "remat", "scan"),
    [
        (3, False, "none", True),
        (3, True, "none", False),
        (3, True, "full", True),
        (1, True, "none", True),
        (1, False, "none", False),
    ],
)
def test_leaving_out_tokens_changes_nothing_of_those_chosen(layers, causal, remat, scan):
    stack = Transformer(layers, 2, 16, causal, ls_init_value=0.5, remat=remat, scan_layers=scan)
    x = jax.random.normal(jax.random.key(0), (4, 5, 8))
    variables = nn.meta.unbox(jax.jit(stack.init)(jax.random.key(1), x))
    wanted = jnp.array([4, 0, 2, 2])[:, None, None]

    def choose(x):
        return jnp.take_along_axis(x, wanted, axis=1)

    def all_then_chosen(variables, x):
        return choose(stack.apply(variables, x))

    def chosen_alone(variables, x):
        return stack.apply(variables, x, choose)

    def results(f):
        def loss(variables, x):
            return jnp.sum(jnp.sin(f(variables, x)))

        return jax.jit(lambda *at: (f(*at), jax.grad(loss, (0, 1))(*at)))(variables, x)

    expected, found = results(all_then_chosen), results(chosen_alone)
    assert found[0].shape == (4, 1, 8)
    for a, b in zip(jax.tree.leaves(expected), jax.tree.leaves(found), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_encoding_copies_no_stack_of_parameters():
    stack = Transformer(8, 2, 256, causal=False)
    x = jnp.zeros((1, 5, 64))
    variables = nn.meta.unbox(jax.eval_shape(stack.init, jax.random.key(1), x))
    size = sum(leaf.size * 4 for leaf in jax.tree.leaves(variables))
    run = jax.jit(lambda variables, x: stack.apply(variables, x, lambda x: x[:, :1]))
    used = run.lower(variables, x).compile().memory_analysis().temp_size_in_bytes
    assert used < size / 2
