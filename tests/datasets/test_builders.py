"""The TFDS builders, used as any TFDS builder is."""

import numpy as np
import PIL.Image
import pytest
import tensorflow_datasets as tfds

from fetalclip_jax.data.records import RecordDataset
from fetalclip_jax.datasets import builders, registry


@pytest.fixture
def hc18_root(tmp_path):
    root = tmp_path / "hc18"
    (root / "training_set").mkdir(parents=True)
    lines = ["filename,pixel size(mm),head circumference (mm)"]
    for i in range(10):
        PIL.Image.fromarray(np.full((6, 8), i, np.uint8)).save(
            root / "training_set" / f"{i:03d}_HC.png"
        )
        lines.append(f"{i:03d}_HC.png,0.25,{170 + i}")
    (root / "training_set_pixel_size_and_HC.csv").write_text("\n".join(lines))
    return root


def test_hc18_by_name(tmp_path, hc18_root, capfd):
    builder = tfds.builder(
        "hc18", data_dir=tmp_path / "data", root=hc18_root, split="test", image_size=8
    )
    builder.build()
    assert capfd.readouterr().out == ""
    assert builder.info.splits["records"].num_examples == 2
    (record, _) = builder.as_data_source(split="records")
    assert record["plane"] == b"brain"
    assert record["resized_spacing_mm"] == 0.25
    assert np.isnan(record["ga_days"]) == False  # noqa: E712  a NaN would be a missing age

    dataset = RecordDataset(builder.data_dir)
    assert len(dataset) == 2
    assert dataset[0].example_id == record["example_id"].decode()
    assert dataset.description["source"]["split"] == "test"


def test_download_and_prepare_alone_makes_a_complete_folder(tmp_path, hc18_root):
    builder = tfds.builder("hc18", data_dir=tmp_path / "data", root=hc18_root, image_size=8)
    builder.download_and_prepare()
    assert len(RecordDataset(builder.data_dir).metadata()["hc_mm"]) == 10


def test_phantom_by_name(tmp_path):
    builder = tfds.builder("phantom", data_dir=tmp_path, split="test", test_images=6, image_size=48)
    builder.build()
    dataset = RecordDataset(builder.data_dir)
    assert len(dataset) == 6
    assert dataset[0].image.shape[:2] == (48, 48)
    assert not np.isnan(dataset.metadata()["ga_days"]).any()


@pytest.mark.parametrize("kind", list(registry.KINDS))
def test_every_data_set_has_a_builder(kind):
    assert tfds.builder_cls(kind) is builders.BUILDERS[kind]


def test_what_is_left_out_is_said(tmp_path, hc18_root, capsys):
    (hc18_root / "training_set" / "004_HC.png").write_bytes(b"broken")
    builder = tfds.builder(
        "hc18", data_dir=tmp_path / "data", root=hc18_root, image_size=8, max_bad_share=0.1
    )
    builder.build()
    assert "hc18: 1 of 10 examples left out" in capsys.readouterr().out
