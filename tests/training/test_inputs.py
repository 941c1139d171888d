"""What a run reads, and what it does when that changes."""

import pathlib

import pytest

from fetalclip_jax.config import default_config
from fetalclip_jax.training import inputs


@pytest.fixture
def config(hc18_folder):
    config = default_config()
    config.model.vision_cfg.image_size = 16
    config.data.source = "hc18"
    config.data.root = str(hc18_folder(patients=10))
    config.data.workers = 0
    config.data.max_bad_share = 0.2
    return config


def test_the_validation_patients_are_not_those_of_the_test(config, tmp_path):
    assert inputs.validation_split(config) == "validation"
    groups = [
        set(inputs.open_records(config, tmp_path, split).metadata()["patient_id"])
        for split in ("train", "validation", "test")
    ]
    assert [len(group) for group in groups] == [7, 1, 2]
    assert len(set().union(*groups)) == 10
    config.data.source = "phantom"
    assert inputs.validation_split(config) == "pool"


def test_options_of_the_configuration_reach_the_data_set(config):
    config.data.hc18.test_share = 0.5
    assert len(inputs.source(config, "test")) == 10
    config.data.source = "mnist"
    with pytest.raises(ValueError, match="'mnist' is not one of phantom, hc18"):
        inputs.source(config, "train")


def test_a_repaired_file_is_read_again_until_a_checkpoint_relies_on_it(config, tmp_path, capsys):
    name = inputs.source(config, "train").source.filenames[0]
    path = pathlib.Path(config.data.root, "training_set", name)
    content = path.read_bytes()
    path.write_bytes(content[:100])
    assert len(inputs.open_records(config, tmp_path, "train")) == 13
    assert "hc18 train: 1 of 14 examples left out" in capsys.readouterr().out
    path.write_bytes(content)
    assert len(inputs.open_records(config, tmp_path, "train")) == 14
    assert f"1 file changed (first: {name}). Preparing anew" in capsys.readouterr().out
    (tmp_path / "checkpoints" / "100").mkdir(parents=True)
    path.write_bytes(content[:100])
    with pytest.raises(ValueError, match=r"1 file changed .*; put the data back as they were"):
        inputs.open_records(config, tmp_path, "train")
