"""Runs that start from weights: with adapters, with a head for labels, and from files."""

import functools
import shutil

import jax
import numpy as np
import optax
import pytest
from flax import traverse_util
from ml_collections import ConfigDict

import fetalclip_jax
from fetalclip_jax.config import build_model
from fetalclip_jax.models import lora
from fetalclip_jax.parallel.mesh import make_mesh
from fetalclip_jax.training import inputs, loop, origin
from fetalclip_jax.training.loop import train
from tests.tiny import tiny_experiment

IMAGES = np.random.default_rng(0).normal(size=(8, 32, 32, 3)).astype(np.float32)


def experiment(**train) -> ConfigDict:
    """Texts of one length: of each step one program."""
    config = tiny_experiment()
    config.model.text_cfg.context_length = 16
    config.optimizer.update({"warmup_steps": 0})
    config.train.update(train)
    return config


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """An open_clip folder of the tiny model with a vocabulary, and the model."""
    folder = tmp_path_factory.mktemp("weights") / "tiny"
    model = fetalclip_jax.load("ViT-Mi-16-96-conv", experiment().model.to_dict())
    model.export(folder)
    return folder, model


def adapted(start) -> ConfigDict:
    config = experiment(steps=4, checkpoint_every=2, ema_decay=0.5)
    config.init_from, config.init_model = str(start), True
    config.model.vision_cfg.width = 48  # of no interest
    config.lora.update({"targets": ("visual/.*/(query|value)", "text/.*/1/mlp_in"), "rank": 2})
    config.optimizer.learning_rate = 0.05
    return config


@pytest.fixture(scope="module")
def finetuned(weights, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("lora")
    start = workdir / "weights"
    shutil.copytree(weights[0], start)
    final = train(adapted(start), workdir / "run")
    shutil.rmtree(start)  # the run has all it needs
    return workdir / "run", final, adapted(start)


def flat(params):
    return traverse_util.flatten_dict(jax.device_get(params), sep="/")


def test_adapters_are_all_that_is_trained(weights, finetuned):
    _, final, _ = finetuned
    before, after = flat(weights[1].params), flat(final.params)
    for name, leaf in before.items():
        np.testing.assert_array_equal(leaf, after[name])
        np.testing.assert_array_equal(leaf, flat(final.ema)[name])
    adapters = {name: leaf for name, leaf in after.items() if name not in before}
    assert all(name.startswith("lora/") and leaf.any() for name, leaf in adapters.items())
    for moments in ("mu", "nu"):
        leaves = jax.tree.leaves(optax.tree.get(final.opt_state, moments))
        assert sum(leaf.size for leaf in leaves) == sum(leaf.size for leaf in adapters.values())


def test_a_run_with_adapters_resumes_bitwise_without_what_it_started_from(finetuned, tmp_path):
    workdir, final, config = finetuned
    shutil.copytree(workdir, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "4")
    again = train(config, tmp_path / "run")
    jax.tree.map(np.testing.assert_array_equal, again, final)


def test_load_and_export_give_the_merged_model(weights, finetuned, tmp_path):
    workdir, final, _ = finetuned
    model = fetalclip_jax.load(workdir)
    assert flat(model.params).keys() == flat(weights[1].params).keys()
    module = build_model(adapted(weights[0])).clone(config=model.config)
    encode = jax.jit(functools.partial(module.apply, method="encode_image"))
    unmerged = encode(lora.collections(module, final.ema), IMAGES)
    features = model.encode_image(IMAGES)
    np.testing.assert_allclose(features, unmerged, atol=1e-5)
    assert np.abs(features - weights[1].encode_image(IMAGES)).max() > 1e-3
    model.export(tmp_path / "out")
    back = fetalclip_jax.load(tmp_path / "out")
    np.testing.assert_array_equal(back.encode_image(IMAGES), features)


def test_it_goes_on_in_parts_on_another_mesh(finetuned, tmp_path):
    workdir, final, config = finetuned
    shutil.copytree(workdir, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "4")
    other = config.copy_and_resolve_references()
    other.train.micro_batches = 2
    other.mesh.update({"data": 2, "fsdp": 2, "tensor": 2})
    continued = train(other, tmp_path / "run").params
    for a, b in zip(jax.tree.leaves(continued), jax.tree.leaves(final.params), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-3)


def labelled(start, steps=3, **changes) -> ConfigDict:
    config = experiment(steps=steps, checkpoint_every=steps)
    config.init_from = str(start)
    config.loss.kind = "classify"
    config.optimizer.update({"learning_rate": 0.01, **changes})
    return config


def test_a_head_is_probed_then_tuned_with_the_image_tower(weights, tmp_path, capfd):
    config = labelled(weights[0], learning_rate_factors=(("(?!head/).*", 0.0),))
    probed = train(config, tmp_path / "probe").params
    assert "phantom train: " in capfd.readouterr().out
    before = flat(weights[1].params)
    for name, leaf in before.items():
        np.testing.assert_array_equal(leaf, flat(probed)[name])
    assert flat(probed)["head/kernel"].any()

    tuned = train(labelled(tmp_path / "probe", steps=1), tmp_path / "tuned").params
    before, after = flat(probed), flat(tuned)
    moved = {name for name in after if not np.array_equal(after[name], before[name])}
    assert moved >= {"head/kernel", "visual/projection"}
    assert not any(name.startswith(("text/", "logit_")) for name in moved)
    step = np.abs(after["head/kernel"] - before["head/kernel"]).max()
    assert step < 0.011 < np.abs(before["head/kernel"]).max()  # it went on from that head

    model = fetalclip_jax.load(tmp_path / "tuned")
    assert flat(model.params).keys() == flat(weights[1].params).keys()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"init_from": ""}, r"config\.init_model needs config\.init_from, the model to take: give"),
        ({"init_from": "", "init_model": False}, r"config\.lora\.targets needs config\.init_from"),
        ({"init_from": "nowhere.pt"}, r"init_from=nowhere\.pt: no such run, file or folder"),
        ({"init_config": "ViT-B-16"}, "describes .* as another model than config: .* leave"),
        ({"lora.targets": ("visual/.*/kernel",)}, "'visual/.*/kernel' matches no projection"),
        ({"lora.rank": 0}, r"config\.lora\.rank=0 must be at least 1"),
        ({"loss.kind": "classify", "loss.labels": "sex"}, "loss.labels='sex' is not one of planes"),
    ],
)
def test_starts_that_cannot_be_meant_are_refused(weights, tmp_path, changes, message):
    config = adapted(weights[0])
    config.update_from_flattened_dict(changes)
    with pytest.raises(ValueError, match=message) as error:
        train(config, tmp_path / "run")
    assert "\n" not in str(error.value)


def test_a_start_that_cannot_be_is_refused_before_data_is_prepared(weights, tmp_path, monkeypatch):
    def prepared(*_, **__):
        raise AssertionError("data was prepared")

    monkeypatch.setattr(inputs, "examples", prepared)
    alone = tmp_path / "alone.safetensors"
    shutil.copy(weights[0] / "open_clip_model.safetensors", alone)
    for start, changes, message in (
        (tmp_path / "nowhere.pt", {}, "no such run, file or folder of weights"),
        (weights[0], {"model.vision_cfg.width": 48}, r"another model: vision_cfg\.width: 32 there"),
        (alone, {"model.vision_cfg.width": 48}, "does not fit the model"),
    ):
        config = labelled(start)
        config.update_from_flattened_dict(changes)
        with pytest.raises(ValueError, match=message):
            train(config, tmp_path / "run")
        with pytest.raises(ValueError, match=message):
            loop.check(config, tmp_path / "run")
    loop.check(labelled(weights[0]), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_weights_of_another_model_are_not_taken(weights):
    config = adapted(weights[0])
    config.init_model = False
    message = r"has another model: vision_cfg\.width: 32 there, 48 here; .*init_model=True"
    with pytest.raises(ValueError, match=message):
        origin.read_params(config, {}, make_mesh())


def test_weights_that_say_nothing_of_themselves(weights, tmp_path):
    file = tmp_path / "alone.safetensors"
    shutil.copy(weights[0] / "open_clip_model.safetensors", file)
    config = adapted(file)
    with pytest.raises(ValueError, match="does not say what model it holds; set config"):
        origin.with_its_model(config, tmp_path)
    shutil.copy(weights[0] / "open_clip_config.json", tmp_path / "model.json")
    config.init_config = str(tmp_path / "model.json")
    resolved = origin.with_its_model(config, tmp_path)
    assert resolved.model.vision_cfg.width == 32
    with pytest.raises(ValueError, match=r"1024 token ids.*as tokenizer/, or make a run"):
        origin.tokenizer(config)
    shutil.copytree(weights[0] / "tokenizer", tmp_path / "tokenizer")
    assert origin.tokenizer(config).fingerprint == weights[1].tokenizer.fingerprint


def test_a_plan_needs_the_description_of_the_model_alone(weights):
    config = adapted("")
    with pytest.raises(ValueError, match="name that, or the model alone"):
        origin.with_described_model(config)
    config.init_config = "ViT-B-16"
    assert origin.with_described_model(config).model.vision_cfg.layers == 12
    config = adapted(weights[0])
    assert origin.with_described_model(config).model.vision_cfg.width == 32


def test_few_patients_and_a_simulator_are_trained_on_at_once_and_resumed(
    weights, hc18_folder, tmp_path, capsys
):
    config = experiment(steps=3, checkpoint_every=2, keep_best="")
    config.init_from = str(weights[0])
    config.data.update({"source": "hc18", "root": str(hc18_folder(50)), "train_patients": 2})
    config.data.mixture = (("phantom", "", 0.5),)
    whole = train(config, tmp_path / "whole")
    said = capsys.readouterr().out
    assert "hc18: 4 images, 4 rows of a batch of 8" in said
    assert "phantom: 24 images, 4 rows of a batch of 8" in said
    shutil.copytree(tmp_path / "whole", tmp_path / "cut")
    shutil.rmtree(tmp_path / "cut" / "checkpoints" / "3")
    shutil.rmtree(tmp_path / "cut" / "records" / "phantom-train")  # made anew
    again = train(config, tmp_path / "cut")
    for name, leaf in flat(whole.params).items():
        np.testing.assert_array_equal(leaf, flat(again.params)[name])
    assert not np.array_equal(
        flat(whole.params)["visual/projection"], flat(weights[1].params)["visual/projection"]
    )
