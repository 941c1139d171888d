"""Two pictures of one anatomy: the term beside the loss, however it is computed."""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fetalclip_jax.losses import softmax_contrastive
from fetalclip_jax.models.clip import CLIP, unit_length
from fetalclip_jax.parallel import sharding
from fetalclip_jax.parallel.mesh import make_mesh
from fetalclip_jax.training import grad_cache, inputs, objective, program, state, step
from tests.tiny import TINY, tiny_experiment

BATCH = 32
MODEL = CLIP(
    dataclasses.replace(TINY, vision_cfg=dataclasses.replace(TINY.vision_cfg, patch_dropout=0.5))
)
LOSS = {
    "kind": "softmax",
    "block_size": 0,
    "exchange": "gather",
    "consistency_weight": 0.5,
    "consistency": "cosine",
}


def batch():
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (2, BATCH, 16, 16), dtype=np.uint8)
    return {
        "image": pictures[0],
        "second_image": pictures[1],
        "tokens": rng.integers(1, 50, (BATCH, 10)).astype(np.int32),
        "caption_ids": (np.arange(BATCH) // 2).astype(np.int32),
        "record": rng.permutation(BATCH).astype(np.int32),
    }


def compared(held_out=False, **options):
    """Loss and metrics of fixed features, and those features."""
    target = objective.create(LOSS | options, CLIP(TINY), make_mesh())
    names = ("image", "text", "second_image")[: 2 if held_out else 3]
    rows = jax.random.normal(jax.random.key(0), (len(names), 16, 6))
    features = {name: unit_length(one) for name, one in zip(names, rows, strict=True)}
    features["caption_ids"] = jnp.arange(16) // 3
    params = {"logit_scale": jnp.float32(2.0)}
    return jax.jit(target.compare)(params, target.frozen, features, 0), features


def clip_loss(one, other, ids):
    return softmax_contrastive(one, other, jnp.exp(jnp.float32(2.0)), caption_ids=ids)[0]


def test_the_cosine_is_of_both_pictures_and_counts_by_its_weight():
    (loss, metrics), features = compared()
    of_texts = clip_loss(features["image"], features["text"], features["caption_ids"])
    cosine = np.einsum("bd,bd->b", features["image"], features["second_image"]).mean()
    np.testing.assert_allclose(metrics["second_image_cosine"], cosine, rtol=1e-5)
    np.testing.assert_allclose(loss, of_texts + 0.5 * (1 - cosine), rtol=1e-6)


@pytest.mark.parametrize("options", [{}, {"block_size": 3, "exchange": "ring"}])
def test_the_contrast_is_clips_between_first_and_second_pictures(options):
    (loss, _), features = compared(consistency="contrastive", **options)
    image, ids = features["image"], features["caption_ids"]
    expected = clip_loss(image, features["text"], ids)
    expected += 0.5 * clip_loss(image, features["second_image"], ids)
    np.testing.assert_allclose(loss, expected, rtol=1e-6)


def test_held_out_batches_have_the_loss_of_texts_alone():
    (loss, metrics), features = compared(held_out=True)
    np.testing.assert_allclose(
        loss, clip_loss(features["image"], features["text"], features["caption_ids"]), rtol=1e-6
    )
    assert "second_image_cosine" not in metrics


def test_the_scale_is_learned_from_texts_alone():
    target = objective.create(LOSS | {"consistency": "contrastive"}, CLIP(TINY), make_mesh())
    _, features = compared()

    def of_scale(objective_, value):
        params = {"logit_scale": value}
        return objective_.compare(params, (), features, 0)[0]

    found, expected = (
        jax.jit(jax.grad(functools.partial(of_scale, one)))(jnp.float32(2.0))
        for one in (target, target.objective)
    )
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@functools.cache
def params():
    return nn.meta.unbox(jax.jit(functools.partial(state.initial_params, MODEL))(jax.random.key(0)))


def value_and_grad(kind, micro_batches, mesh, **options):
    mesh = make_mesh(**mesh)
    target = objective.create(LOSS | {"consistency": kind} | options, MODEL, mesh)
    encode = grad_cache.encoder(target, micro_batches, mesh)

    def loss(params, batch):
        keys = step.example_keys(jax.random.key(0), jnp.int32(3), batch["record"])
        return target.compare(params, (), encode(params, (), batch, keys), jnp.int32(0))[0]

    _, shardings = state.abstract_state(MODEL, optax.identity(), mesh, seed=0)
    placed = jax.device_put(params(), shardings.params)
    return jax.jit(jax.value_and_grad(loss))(placed, sharding.global_batch(batch(), mesh))


@functools.cache
def plain(kind):
    return value_and_grad(kind, 1, {"data": 1, "tensor": 8})  # every device has the whole batch


@pytest.mark.parametrize(
    ("kind", "mesh", "micro_batches", "options"),
    [
        ("cosine", {"data": 2, "fsdp": 2, "tensor": 2}, 4, {}),
        ("contrastive", {"data": 8}, 2, {"block_size": 3, "exchange": "ring"}),
    ],
)
def test_value_and_gradients_do_not_depend_on_how_they_are_computed(
    kind, mesh, micro_batches, options
):
    loss, grads = plain(kind)
    other_loss, other_grads = value_and_grad(kind, micro_batches, mesh, **options)
    np.testing.assert_allclose(other_loss, loss, rtol=1e-6)
    for (path, a), b in zip(
        jax.tree_util.tree_leaves_with_path(grads), jax.tree.leaves(other_grads), strict=True
    ):
        error = np.linalg.norm(np.subtract(a, b))
        assert error <= 1e-5 * np.linalg.norm(a), jax.tree_util.keystr(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"consistency": "l2"}, r"config\.loss\.consistency='l2' is not one of cosine, contr"),
        ({"consistency_weight": -1.0}, r"consistency_weight=-1\.0 is not a number of 0 .* above"),
        ({"consistency_weight": float("nan")}, r"consistency_weight=nan is not a number"),
        ({"kind": "classify"}, r"compare images with texts; leave it at 0 with .*'classify'"),
    ],
)
def test_what_cannot_be_meant_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        objective.create(LOSS | change, CLIP(TINY), make_mesh())


def test_a_run_reads_second_pictures_of_what_it_trains_on(tmp_path):
    config = tiny_experiment()
    config.loss.consistency_weight = 1.0
    mesh = make_mesh()
    tokenizer = inputs.open_tokenizer(config, tmp_path)
    dataset = inputs.examples(config, tmp_path, "train")
    stream = inputs.train_batches(config, dataset, tokenizer, first_step=0, part=(0, 1))
    found = next(stream)
    stream.close()
    expected = program.abstract_batch(config, mesh)
    assert found.keys() == expected.keys()
    assert found["second_image"].shape == found["image"].shape == (8, 32, 32)
    assert (found["second_image"] != found["image"]).any(axis=(1, 2)).all()
    (held_out, *_) = inputs.validation_batches(config, tmp_path, tokenizer, 8, part=(0, 1))
    assert "second_image" not in held_out


def test_data_that_cannot_be_drawn_twice_are_refused():
    config = tiny_experiment()
    config.data.source = "hc18"
    config.loss.consistency_weight = 1.0
    with pytest.raises(ValueError, match=r"consistency_weight=1\.0 needs two .*'hc18' does not"):
        inputs.source(config, "train")
