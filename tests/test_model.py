"""`fetalclip_jax.load` of everything it opens."""

import json

import jax
import numpy as np
import pytest

import fetalclip_jax
from fetalclip_jax import cli
from fetalclip_jax.models.preprocess import normalise
from fetalclip_jax.tokenizers.sentencepiece import SentencePieceTokenizer
from fetalclip_jax.weights import export
from tests.weights import drawn
from tests.weights.conftest import read_model, weight_file  # noqa: F401 (fixtures)

TEXTS = ["abcd abc ab a", "fetal head plane", "the brain of a fetus", "a femur"] * 20


def learned(texts=TEXTS, context_length=12):
    """A vocabulary of the texts."""
    return SentencePieceTokenizer.train(texts, vocab_size=720, context_length=context_length)


@pytest.fixture(scope="module")
def tokenizer():
    return learned()


@pytest.fixture(scope="module")
def fields(tokenizer):
    """The model: one of the drawn ones with room for the vocabulary."""
    model = drawn.fields("plain")
    model["text_cfg"]["vocab_size"] = tokenizer.vocab_size
    return model


@pytest.fixture
def folder(tmp_path, weight_file, read_model, tokenizer, fields):  # noqa: F811
    """An open_clip folder of a tiny model with a vocabulary of its own."""
    config, weights = read_model(weight_file(vocab_size=tokenizer.vocab_size), fields)
    export.export(tmp_path / "tiny", weights, config)
    tokenizer.save(tmp_path / "tiny" / "tokenizer")
    return tmp_path / "tiny"


def features(model):
    images, _ = drawn.inputs(drawn.fields("plain"))
    return model.encode_image(images), model.encode_text(model.tokenize(["a fetal head", "femur"]))


def test_a_folder_describes_itself(folder):
    model = fetalclip_jax.load(folder)
    assert model.logit_scale == pytest.approx(np.exp(2.0))
    image, text = features(model)
    assert image.shape == (3, 24)
    assert text.shape == (2, 24)
    assert image.dtype == text.dtype == np.float32
    assert not np.allclose(text[0], text[1])


def alone(folder):
    """The weights of a folder, with nothing beside them that says what they are."""
    (folder / "open_clip_config.json").rename(folder / "described_elsewhere.json")
    return folder / "open_clip_model.safetensors"


def test_a_file_alone_needs_a_configuration(folder, fields):
    expected = features(fetalclip_jax.load(folder))[0]
    weights = alone(folder)
    with pytest.raises(ValueError, match="does not say what model it holds; pass config"):
        fetalclip_jax.load(weights)
    for config in (fields, str(folder / "described_elsewhere.json")):
        model = fetalclip_jax.load(weights, config)
        np.testing.assert_array_equal(features(model)[0], expected)


def test_a_folders_own_description_is_not_overruled(folder, fields):
    for path in (folder, folder / "open_clip_model.safetensors"):
        with pytest.raises(ValueError, match="quick_gelu: False there, True asked for; leave"):
            fetalclip_jax.load(path, fields | {"quick_gelu": True})
        assert fetalclip_jax.load(path, fields).config == fetalclip_jax.load(path).config


def test_the_fingerprint_tells_functions_apart(folder, fields):
    described = fetalclip_jax.load(folder)
    weights = alone(folder)
    models = [
        fetalclip_jax.load(weights, fields),
        fetalclip_jax.load(weights, fields | {"quick_gelu": True}),
        fetalclip_jax.load(weights, fields, dtype="bfloat16"),
    ]
    assert len({model.fingerprint for model in models}) == 3
    assert models[0].fingerprint == described.fingerprint


def test_other_parameters_make_another_model_of_the_same_programs(folder):
    model = fetalclip_jax.load(folder)
    (image, text), before = features(model), model.fingerprint
    other = model.with_params(jax.tree.map(lambda leaf: 0.5 * leaf, model.params))
    assert other.fingerprint != before
    assert not np.allclose(features(other)[0], image)
    again = other.with_params(model.params)
    assert again.fingerprint == model.fingerprint == before
    np.testing.assert_array_equal(features(again)[1], text)


def test_a_feature_is_the_mean_of_the_views_asked_for(folder):
    alone = fetalclip_jax.load(folder)
    size = alone.config.vision_cfg.image_size
    # As many as the test's devices: each has one.
    pixels = np.random.default_rng(0).integers(0, 256, (8, size, size, 3), np.uint8)
    model = fetalclip_jax.load(folder, test_time_views=2)
    mirrored = np.ascontiguousarray(pixels[:, :, ::-1])
    expected = (alone.encode_pixels(pixels) + alone.encode_pixels(mirrored)) / 2
    assert np.abs(alone.encode_pixels(pixels) - expected).max() > 1e-3
    np.testing.assert_allclose(model.encode_pixels(pixels), expected, atol=1e-5)
    np.testing.assert_allclose(model.encode_image(normalise(pixels)), expected, atol=1e-5)
    np.testing.assert_array_equal(features(model)[1], features(alone)[1])
    # It is another function, also of other parameters; what is of one view has no mean.
    assert len({m.fingerprint for m in (alone, model, model.with_test_time_views(4))}) == 3
    assert model.with_test_time_views(1).fingerprint == alone.fingerprint
    assert model.with_params(model.params).fingerprint == model.fingerprint
    with pytest.raises(ValueError, match=r"a patch is of one view .* mean of 2; open it with"):
        model.encode_patches(pixels, (1,))
    with pytest.raises(ValueError, match="test_time_views=3"):
        fetalclip_jax.load(folder / "nothing", test_time_views=3)


def test_a_run_carries_what_it_is(tmp_path, folder):
    fetalclip_jax.load(folder).save(tmp_path / "run")
    for argument in ("config", "tokenizer"):
        with pytest.raises(ValueError, match=f"carries its own {argument}; leave {argument} out"):
            fetalclip_jax.load(tmp_path / "run", **{argument: folder})
    with pytest.raises(ValueError, match="leave resize_positions out"):
        fetalclip_jax.load(tmp_path / "run", resize_positions=True)


def test_import_takes_files_only(tmp_path, capsys):
    command = ["import", "--weights", "ViT-B-32", "--workdir", str(tmp_path / "run")]
    assert cli.main(command) == 2
    assert "--weights=ViT-B-32: no such file or folder" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_import_and_export_from_the_command_line(tmp_path, folder, capsys):
    run, out = tmp_path / "run", tmp_path / "out"
    assert cli.main(["import", "--weights", str(folder), "--workdir", str(run)]) == 0
    assert cli.main(["export", "--workdir", str(run), "--output", str(out)]) == 0
    for a, b in zip(
        jax.tree.leaves(fetalclip_jax.load(folder).params),
        jax.tree.leaves(fetalclip_jax.load(out).params),
        strict=True,
    ):
        np.testing.assert_array_equal(a, b)
    assert json.loads((run / "config.json").read_text())["tokenizer"]["kind"] == "sentencepiece"
    assert cli.main(["import", "--weights", str(folder), "--workdir", str(run)]) == 2
    assert "holds a run already; choose another folder" in capsys.readouterr().err


def test_bfloat16_changes_features_a_little(folder):
    exact, rough = (features(fetalclip_jax.load(folder, dtype=d)) for d in ("float32", "bfloat16"))
    for a, b in zip(exact, rough, strict=True):
        assert not np.array_equal(a, b)
        cosine = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
        assert cosine.min() > 0.99


def test_a_tokenizer_of_another_model_is_refused(tmp_path, folder, fields):
    learned(context_length=9).save(tmp_path / "short")
    with pytest.raises(ValueError, match="context_length is 9, the model's 12"):
        fetalclip_jax.load(folder, tokenizer=tmp_path / "short")
    more = ["xyz qrs tuv", "mno jkl", "0a 1b 2c 3d"] * 9
    larger = learned([*TEXTS, *more])
    larger.save(tmp_path / "larger")
    with pytest.raises(ValueError, match=f"{larger.vocab_size} ids, the model's"):
        fetalclip_jax.load(folder, tokenizer=tmp_path / "larger")
    alone = tmp_path / "alone.safetensors"
    alone.write_bytes((folder / "open_clip_model.safetensors").read_bytes())
    with pytest.raises(ValueError, match="token ids, CLIP's vocabulary has 49408"):
        fetalclip_jax.load(alone, fields)
    sentencepiece = next((folder / "tokenizer").glob("*.model"))
    model = fetalclip_jax.load(alone, fields, tokenizer=sentencepiece)
    np.testing.assert_array_equal(
        model.tokenize(TEXTS[:2]), fetalclip_jax.load(folder).tokenize(TEXTS[:2])
    )


def test_a_vocabulary_that_is_not_the_models_is_noticed(folder):
    learned(["other words than those", "in quite another order"] * 20).save(folder / "other")
    model_file = next((folder / "tokenizer").glob("*.model"))
    model_file.write_bytes((folder / "other" / model_file.name).read_bytes())
    with pytest.raises(ValueError, match="the files were mixed up"):
        fetalclip_jax.load(folder)


@pytest.mark.parametrize("wrong", [-1, "vocab_size"])
def test_ids_that_the_model_does_not_know_are_refused(folder, wrong):
    model = fetalclip_jax.load(folder)
    tokens = model.tokenize(TEXTS[:2])
    known = model.config.text_cfg.vocab_size
    tokens[1, 2] = known if wrong == "vocab_size" else wrong
    with pytest.raises(ValueError, match=f"{tokens.max()}, the model knows 0 to {known - 1}"):
        model.encode_text(tokens)


def test_positions_are_resized_on_request(folder, fields):
    larger = fields | {"vision_cfg": fields["vision_cfg"] | {"image_size": 48}}
    with pytest.raises(ValueError, match=r"visual\.positional_embedding"):
        fetalclip_jax.load(folder, larger)
    model = fetalclip_jax.load(folder, larger, resize_positions=True)
    assert model.encode_image(np.zeros((1, 48, 48, 3), np.float32)).shape == (1, 24)


def test_a_path_that_is_nothing_is_named(tmp_path):
    with pytest.raises(ValueError, match="nor a preset; presets: "):
        fetalclip_jax.load(tmp_path / "nothing")
    with pytest.raises(ValueError, match=r"nothing\.safetensors"):
        fetalclip_jax.load(tmp_path / "nothing.safetensors", "ViT-B-32")
    with pytest.raises(ValueError, match="dtype='int8' is not one of"):
        fetalclip_jax.load("ViT-B-32", dtype="int8")


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        (np.zeros((1, 24, 24, 3), np.uint8), r"images are uint8 \[1, 24, 24, 3\]; pass float32"),
        (["head.png"], "images are <U8"),
        ([], r"images are float64 \[0\]; pass float32"),
        (np.zeros((0, 24, 24, 3), np.float32), r"images are float32 \[0, 24, 24, 3\]"),
        (np.zeros((24, 24, 3), np.float32), r"images are float32 \[24, 24, 3\]"),
        (np.full((1, 24, 24, 3), 128.0, np.float32), "pixels run from 128 to 128"),
        (np.full((1, 24, 24, 3), np.nan, np.float32), "pixels run from nan to nan"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_what_is_no_preprocessed_image_is_refused(folder, batch, message):
    with pytest.raises(ValueError, match=message):
        fetalclip_jax.load(folder).encode_image(batch)


@pytest.mark.parametrize("tokens", [[], ["a text"], np.zeros((2, 12), np.float32), [3, 4]])
@pytest.mark.usefixtures("unchecked")
def test_what_is_no_row_of_ids_is_refused(folder, tokens):
    with pytest.raises(ValueError, match="pass what `tokenize` gives"):
        fetalclip_jax.load(folder).encode_text(tokens)


def test_features_that_are_not_finite_are_refused(folder):
    model = fetalclip_jax.load(folder)
    images, _ = drawn.inputs(drawn.fields("plain"))
    broken = jax.tree.map(lambda leaf: leaf * np.nan, model.params["visual"]["projection"])
    model.params = model.params | {"visual": model.params["visual"] | {"projection": broken}}
    with pytest.raises(ValueError, match="features of 3 of 3 images are nan or infinite"):
        model.encode_image(images)


def test_a_text_that_is_cut_is_told(folder, recwarn):
    model = fetalclip_jax.load(folder)
    model.tokenize(["a femur"])
    assert not recwarn
    long = "femur " * 40
    with pytest.warns(UserWarning, match="1 of 2 texts are longer than the model's 12 tokens"):
        tokens = model.tokenize(["a femur", long])
    assert tokens[1, -1] == model.tokenizer.eot_id


def test_uint8_pixels_of_the_models_size_are_normalised_on_the_device(folder):
    model = fetalclip_jax.load(folder)
    size = model.config.vision_cfg.image_size
    grey = np.random.default_rng(0).integers(0, 256, (2, size, size), np.uint8)
    expected = model.encode_image(np.stack([model.preprocess(one) for one in grey]))
    for pixels in (grey, np.repeat(grey[..., None], 3, -1)):
        np.testing.assert_allclose(model.encode_pixels(pixels), expected, rtol=1e-4, atol=1e-5)


def test_a_weight_beyond_float16_is_no_damaged_checkpoint(tmp_path, folder, capsys):
    model = fetalclip_jax.load(folder)
    text = model.params["text"]
    scale = text["ln_final"]["scale"].at[0].set(1e5)
    large = text | {"ln_final": text["ln_final"] | {"scale": scale}}
    model.params = model.params | {"text": large}
    run, out = tmp_path / "run", tmp_path / "out"
    model.save(run)
    command = ["export", "--workdir", str(run), "--output", str(out), "--dtype", "float16"]
    assert cli.main(command) == 2
    error = capsys.readouterr().err
    assert "['ln_final']['scale'] holds numbers beyond float16, whose largest is 65504" in error
    assert not out.exists()
    assert fetalclip_jax.load(run, param_dtype="bfloat16").params["logit_scale"].dtype == np.float32


def test_a_logit_bias_comes_with_the_weights_and_stays(tmp_path, weight_file, tokenizer):  # noqa: F811
    model_fields = drawn.fields("sigmoid")
    model_fields["text_cfg"]["vocab_size"] = tokenizer.vocab_size
    tokenizer.save(tmp_path / "tokenizer")
    path = weight_file("sigmoid", vocab_size=tokenizer.vocab_size)
    model = fetalclip_jax.load(path, model_fields)
    assert model.logit_bias == -3.0
    model.save(tmp_path / "run")
    model.export(tmp_path / "out")
    for again in ("run", "out"):
        loaded = fetalclip_jax.load(tmp_path / again)
        assert loaded.logit_bias == -3.0
        assert loaded.fingerprint == model.fingerprint
    with pytest.raises(ValueError, match=r"init_logit_bias=-10\.0 has no counterpart in transform"):
        model.export(tmp_path / "other", "transformers")


def test_without_one_the_bias_is_nothing(folder):
    assert fetalclip_jax.load(folder).logit_bias == 0.0
