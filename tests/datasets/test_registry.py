"""Data sets by name, and the checks around all of them."""

import dataclasses
import pickle
import subprocess
import sys

import pytest

from fetalclip_jax.config import default_config
from fetalclip_jax.data.example import BadExampleError
from fetalclip_jax.datasets import registry

SIZES = {"train_images": 6, "pool_images": 6, "test_images": 6}


def test_unknown_names_are_answered_with_those_there_are():
    with pytest.raises(ValueError, match=r"data set 'mnist' is not one of phantom, hc18, fetal"):
        registry.open_source("mnist")
    with pytest.raises(ValueError, match="phantom has no option 'size'; it has images_per_patient"):
        registry.open_source("phantom", options={"size": 3})
    with pytest.raises(ValueError, match="no split 'dev'; it has train, pool, test, all"):
        registry.open_source("phantom", split="dev")
    with pytest.raises(ValueError, match="'mnist' is not one of phantom"):
        registry.roles("mnist")


def test_options_of_one_call_do_not_leak_into_the_next():
    options = registry.default_options()
    options["image_text"]["columns"]["image"] = "file"
    options["phantom"]["train_images"] = 1
    assert registry.default_options()["image_text"]["columns"]["image"] == ""
    source = registry.open_source("phantom", options=SIZES, image_size=32)
    assert len(source) == 6
    assert registry.default_options()["phantom"]["train_images"] == 7200


def test_the_configuration_has_the_options_of_every_data_set():
    data = default_config().data
    for kind, options in registry.default_options().items():
        assert data[kind].to_dict() == options
    # Written in people's scripts.
    assert data.phantom.train_images == 7200
    assert data.hc18.test_share == 0.2


@pytest.mark.parametrize("kind", list(registry.KINDS))
def test_every_data_set_says_which_split_is_for_what(kind):
    assert set(registry.roles(kind)) == {"train", "validation", "fit", "test", "all"}
    assert registry.roles(kind)["validation"] not in ("train", "test")


def test_what_is_missing_is_said_once(hc18_folder, capsys):
    root = hc18_folder()
    (root / "training_set" / "003_HC.png").unlink()
    for split in ("train", "test", "train"):
        registry.open_source("hc18", root, split)
    output = capsys.readouterr()
    assert output.out.count("\n") == 1
    assert output.out.startswith("hc18: 1 of the 20 images it lists are not in ")
    assert output.err == ""


def test_reading_checks_what_an_example_says(hc18_folder, rewrite_hc18_csv):
    root = hc18_folder(patients=1)
    rewrite_hc18_csv(root, [("000_HC.png", "0.2", "17.5"), ("000_2HC.png", "0.2", "175")])
    source = registry.open_source("hc18", root, "all")
    with pytest.raises(BadExampleError, match=r"000_HC: hc_mm is 17.5.*looks like centimetres"):
        source[0]
    assert source[1].hc_mm == 175
    copy = pickle.loads(pickle.dumps(source))
    assert copy[1].example_id == "000_2HC"
    assert len(copy) == 2
    for attribute in ("facts", "description", "missing", "notes", "files"):
        assert getattr(copy, attribute) == getattr(source.source, attribute)


def test_the_plausible_range_is_the_data_sets_own(monkeypatch):
    source = registry.open_source("phantom", options=SIZES, image_size=32)
    example = dataclasses.replace(source[0], pixel_spacing_mm=7.0)
    monkeypatch.setattr(type(source.source), "__getitem__", lambda self, index: example)
    assert source[0].pixel_spacing_mm == 7.0
    source.source.facts = dataclasses.replace(source.facts, plausible={})
    with pytest.raises(BadExampleError, match="pixel_spacing_mm is 7"):
        source[0]


def test_workers_that_read_sources_import_neither_jax_nor_tfds():
    program = f"""
import sys, importlib
for module in {list(registry.KINDS.values())!r} + ["fetalclip_jax.datasets.registry",
                                                   "fetalclip_jax.data.preparation"]:
    importlib.import_module(module)
print(sorted({{"jax", "tensorflow", "tensorflow_datasets", "grain"}} & set(sys.modules)))
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert result.stdout.strip() == "[]", result.stderr
