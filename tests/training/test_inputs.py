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


def test_a_mixture_is_trained_on_by_weight_and_said(config, tmp_path, capsys):
    config.model.vision_cfg.image_size = 32  # the phantom's smallest
    config.data.phantom.train_images = 6
    config.data.mixture = (("phantom", "", 0.25),)
    config.data.train_patients = 2
    config.train.global_batch_size = 16
    mixture = inputs.examples(config, tmp_path, "train")
    assert (mixture.names, mixture.shares) == (("hc18", "phantom"), (0.75, 0.25))
    assert len(mixture) == 2 * 2 + 6
    said = capsys.readouterr().out
    assert "hc18: 4 images, 12 rows of a batch of 16, each 3 times" in said
    assert "phantom: 6 images, 4 rows of a batch of 16\n" in said
    # What is mixed in is neither validated on nor judged.
    assert len(inputs.examples(config, tmp_path, "validation")) == 2
    few = set(mixture.metadata()["patient_id"][:4])
    config.data.train_patients = 3
    assert few < set(inputs.examples(config, tmp_path, "train").metadata()["patient_id"][:6])


def test_labels_of_a_mixture_are_those_of_its_parts(config, tmp_path):
    config.model.vision_cfg.image_size = 32  # the phantom's smallest
    config.data.phantom.train_images = 6
    config.data.mixture = (("phantom", "", 0.5),)
    config.loss.kind = "classify"
    mixture = inputs.examples(config, tmp_path, "train")
    planes = mixture.metadata()["plane"].tolist()
    names = inputs.class_names(config)
    assert [names[label] for label in mixture.labels] == planes


@pytest.mark.parametrize(
    ("mixture", "message"),
    [
        ((("phantom", 0.5),), r"\('phantom', 0.5\) is not \(source, root, share\), such as"),
        ((("mnist", "", 0.5),), "'mnist' is not one of phantom"),
        ((("hc18", "", 0.5),), "hc18 is trained on already; name each data set once"),
        ((("phantom", "", 1.0),), "must be above 0 and leave a part of it for hc18"),
        ((("phantom", "", -0.5),), "must be above 0"),
    ],
)
def test_mixtures_that_cannot_be_meant_are_refused(config, mixture, message):
    config.data.mixture = mixture
    with pytest.raises(ValueError, match=message):
        inputs.mixed_in(config)


def test_images_and_patients_are_not_both_chosen(config, tmp_path):
    config.data.update({"train_images": 4, "train_patients": 2})
    with pytest.raises(ValueError, match=r"train_images=4 and .*train_patients=2: give"):
        inputs.examples(config, tmp_path, "train")
