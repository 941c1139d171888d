"""Whose records a point reads, and which model it has."""

import shutil

import pytest

from fetalclip_jax import cli
from fetalclip_jax.config import save_config
from fetalclip_jax.data import record_files, records
from fetalclip_jax.run import Run
from fetalclip_jax.sweeps.folder import Folder
from fetalclip_jax.tokenizers import new
from tests.sweeps import experiments

TWO_SEEDS = '[{"seed": 0}, {"seed": 1}]'


def touched(folder, point):
    return records.RecordDataset(folder.run(point).records("train")).description.get("touched")


def test_records_that_a_trained_point_read_are_not_replaced_under_it(tmp_path, monkeypatch):
    plan, folder = experiments.one(tmp_path, TWO_SEEDS), Folder(tmp_path / "work")
    trained, begun = plan.points
    folder.prepare(trained)
    folder.prepare(begun)  # ends before its first checkpoint
    (folder.run(trained).checkpoints / "2").mkdir(parents=True)
    describe = record_files.describe
    monkeypatch.setattr(record_files, "describe", lambda *_: describe(*_) | {"touched": 1})
    folder.prepare(begun)
    assert (touched(folder, trained), touched(folder, begun)) == (None, 1)
    with pytest.raises(ValueError, match="holds other records: touched"):
        folder.prepare(trained)
    assert len(list((folder.workdir / "records").iterdir())) == 2
    folder.prepare(begun)  # as it is
    assert touched(folder, begun) == 1


@pytest.fixture
def origin(tmp_path):
    """A run of another model than that of the experiments."""
    config = experiments.one(tmp_path, TWO_SEEDS).points[0].config.copy_and_resolve_references()
    config.model.vision_cfg.image_size = 64
    own = Run(tmp_path / "origin")
    (own.checkpoints / "2").mkdir(parents=True)
    save_config(config, own.config)
    new("clip_bpe", config.model.text_cfg, 0).save(own.tokenizer)
    return own.workdir


def test_points_have_the_model_that_they_start_from(tmp_path, origin, capsys):
    path = experiments.write(tmp_path, f"    return {TWO_SEEDS}\n")
    overrides = [f"--config.init_from={origin}", "--config.init_model=True"]
    plan, folder = experiments.plan.read(path, overrides), Folder(tmp_path / "work")
    first, second = folder.resolved(plan).points
    folder.prepare(first)
    assert records.RecordDataset(folder.run(first).records("train")).image_size == 64
    save_config(first.config, folder.run(first).config)
    (folder.run(first).checkpoints / "2").mkdir(parents=True)
    command = ["sweep", "--config", path, "--workdir", str(folder.workdir), "--list"]
    assert cli.main([*command, *overrides]) == 0, capsys.readouterr().err
    folder.prepare(second)
    assert folder.run(first).records("train").samefile(folder.run(second).records("train"))
    shutil.rmtree(origin)  # the second point has not begun
    with pytest.raises(ValueError, match=r"point 1 \(seed=1\): config\.init_from=.* no such run"):
        folder.resolved(plan)


def test_a_part_of_a_model_that_is_taken_is_not_set(tmp_path):
    path = experiments.write(tmp_path, "    return [{'temperature': 0.1}]\n")
    plan = experiments.plan.read(path, ["--config.init_from=run", "--config.init_model=True"])
    with pytest.raises(ValueError, match="temperature is a part of the model, which"):
        Folder(tmp_path / "work").resolved(plan)
