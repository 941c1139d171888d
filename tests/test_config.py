import json

import pytest

from fetalclip_jax.config import (
    build_model,
    default_config,
    flatten,
    load_config,
    parse,
    save_config,
)

IMPORT = "from fetalclip_jax.config import default_config\n"


@pytest.fixture
def config_file(tmp_path):
    def write(text):
        path = tmp_path / "experiment.py"
        path.write_text(text)
        return str(path)

    return write


WITH_ARGUMENT = (
    IMPORT
    + """
def get_config(steps):
    config = default_config()
    config.train.steps = int(steps)
    return config
"""
)


def test_an_experiment_takes_its_argument_and_overrides(config_file):
    path = config_file(WITH_ARGUMENT)
    assert parse(f"{path}:12").train.steps == 12
    config = parse(f"{path}:12", ["--config.seed=3", "--config.optimizer.clip_norm=inf"])
    assert (config.seed, config.optimizer.clip_norm) == (3, float("inf"))
    assert config.is_locked


def test_a_number_that_a_model_leaves_out_can_be_set(config_file, tmp_path):
    path = config_file(WITH_ARGUMENT)
    config = parse(f"{path}:12", ["--config.model.init_logit_bias=-10"])
    assert build_model(config).config.init_logit_bias == -10.0
    for chosen in (config, default_config()):
        save_config(chosen, tmp_path / "config.json")
        assert flatten(load_config(tmp_path / "config.json")) == flatten(chosen)
    assert build_model(default_config()).config.init_logit_bias is None


@pytest.mark.parametrize(
    ("text", "argument", "message"),
    [
        (IMPORT + "get_config = default_config\n", ":big", "takes no argument, 'big' was given"),
        (WITH_ARGUMENT, "", r"needs an argument; use --config=.*experiment\.py:ARGUMENT"),
        (WITH_ARGUMENT, ":many", "line 5: ValueError: invalid literal .*'many'"),
        ("x = 1\n", "", r"has no function get_config\(\)"),
        ("x = 1\ny = z\n", "", "line 2: NameError: name 'z' is not defined"),
        ("\n\ndef f(:\n", "", "line 3: SyntaxError: invalid syntax"),
        ("import not_there\n", "", "line 1: ModuleNotFoundError: .*not_there"),
        ("def get_config():\n    pass\n", "", "returns NoneType, not a ConfigDict"),
        (
            IMPORT + "def get_config():\n    c = default_config()\n    c.train.stepz = 1\n",
            "",
            'line 4: AttributeError: .*Did you mean "steps"',
        ),
        (
            "from ml_collections import ConfigDict\n"
            "def get_config():\n    return ConfigDict({'train': {'stepz': 1}})\n",
            "",
            'Did you mean "steps".*fields are those of',
        ),
    ],
)
def test_a_mistake_in_a_file_is_one_line_that_names_it(config_file, text, argument, message):
    path = config_file(text)
    with pytest.raises(ValueError, match=message) as error:
        parse(path + argument)
    assert str(error.value).startswith(f"--config={path}")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("path", ["nowhere.py", "configs", "README.md"])
def test_what_is_no_python_file_is_named(path):
    with pytest.raises(ValueError, match=f"--config={path}"):
        parse(path)


def test_a_model_is_whole(config_file):
    """Fields a model leaves out have their own defaults, not those of the default model."""
    text = (
        "def get_config():\n    config = default_config()\n    config.model = {\n"
        '        "embed_dim": 8,\n'
        '        "vision_cfg": {"image_size": 32, "patch_size": 8, "width": 64, "layers": 1},\n'
        '        "text_cfg": {"vocab_size": 99, "width": 64, "heads": 1, "layers": 1},\n'
        "    }\n    return config\n"
    )
    config = parse(config_file(IMPORT + text))
    assert default_config().model.vision_cfg.stem == "conv"
    assert build_model(config).config.vision_cfg.stem == "patch"


def test_a_configuration_outlives_fields_that_came_and_went(tmp_path):
    path = tmp_path / "config.json"
    save_config(default_config(), path)
    assert load_config(path).to_dict() == default_config().to_dict()
    fields = json.loads(path.read_text())
    del fields["loss"]
    fields["seed"] = 5
    path.write_text(json.dumps(fields | {"evaluation": {"batch_size": 3}}))
    assert load_config(path).seed == 5
    assert load_config(path).loss.kind == "softmax"
    path.write_text(json.dumps(fields | {"evolution": 3}))
    with pytest.raises(ValueError, match=r"config\.json: not a configuration .*evolution") as error:
        load_config(path)
    assert "\n" not in str(error.value)
    for content in ("[1]", "{"):
        path.write_text(content)
        with pytest.raises(ValueError, match=r"config\.json: not a configuration"):
            load_config(path)


def test_the_base_recipe_has_a_larger_sibling():
    base, larger = (parse(f"configs/phantom_base.py{hardware}") for hardware in ("", ":gpu"))
    assert larger.augment.to_dict() == base.augment.to_dict()
    assert base.train.ema_decay > 0
    assert larger.model.vision_cfg.image_size > base.model.vision_cfg.image_size
    build_model(larger)
    with pytest.raises(ValueError, match="'tpu' is not one of cpu, gpu"):
        parse("configs/phantom_base.py:tpu")
