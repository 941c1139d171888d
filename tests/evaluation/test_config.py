"""What the files of `configs/eval/` judge."""

import pytest

from fetalclip_jax import config_files
from fetalclip_jax.evaluation import config as configs
from fetalclip_jax.evaluation.sources import Sources

FILE = "configs/eval/real_transfer.py"


@pytest.fixture
def splits_of(planes_folder, hc18_folder):
    """(study, data set) -> need -> split, of an argument of `real_transfer.py`."""
    folders = {"fetal_planes_db": planes_folder, "hc18": hc18_folder()}

    def read(argument):
        config = configs.read(f"{FILE}{argument}")
        for name, root in folders.items():
            configs.add_data(config, name, name, root=str(root))
        sources = Sources(configs.data_sets(config), None, 32)
        return sources, {
            (one.study.name, name): {
                need.name: sources.open(name, need.role)[0]
                for need in one.study.needs
                if sources.has(name, need)
            }
            for one in configs.planned(config)
            for name in one.data
        }

    return read


def patients(source):
    return set(source.metadata()["patient_id"])


@pytest.mark.parametrize("argument", ["", ":validation"])
def test_real_transfer_chooses_by_training_patients(splits_of, argument):
    sources, splits = splits_of(argument)
    assert splits["zero_shot.planes", "fetal_planes_db"] == {"images": "official_train"}
    assert splits["age", "fetal_planes_db"] == {"images": "official_train"}
    assert splits["age", "hc18"] == {"images": "not_test"}
    for study in ("probe.planes", "few_shot.brain"):
        halves = {"fit": "train", "test": "validation"}
        assert splits[study, "fetal_planes_db_halves"] == halves
    # Nor are they judged by what is asked for all.
    assert sources.open("fetal_planes_db", "all")[0] == "official_train"
    judged = patients(sources.open("fetal_planes_db", "test")[1])
    halves = [patients(sources.open("fetal_planes_db_halves", role)[1]) for role in ("fit", "test")]
    assert [len(half) for half in halves] == [10, 10]
    assert halves[0] | halves[1] == judged
    assert all(
        "not on its test patients" in sources.notes(name)[0]
        for name in sources
        if name != "phantom"
    )


def test_real_transfer_reports_on_patients_by_whom_nothing_was_chosen(splits_of):
    chosen_by, _ = splits_of("")
    sources, splits = splits_of(":test")
    assert splits["zero_shot.brain", "fetal_planes_db"] == {"images": "test"}
    assert splits["probe.planes", "fetal_planes_db"] == {"fit": "official_train", "test": "test"}
    for name in ("fetal_planes_db", "hc18"):
        reported = patients(sources.open(name, "test")[1])
        assert reported
        assert not reported & patients(chosen_by.open(name, "test")[1])
        assert sources.notes(name) == []


def test_real_transfer_knows_no_other_patients():
    with pytest.raises(ValueError, match="'all' is not one of validation, test"):
        configs.read(f"{FILE}:all")


def test_overrides_may_name_models_that_the_file_does_not():
    config = configs.read(FILE)
    overrides = [f"--config.models.{name}.path=runs/{name}" for name in ("first", "second_best")]
    overrides += ["--config.models.first.dtype=bfloat16", "--config.data.fetal_planes_db.root=FPDB"]
    configs.add_overridden_models(config, overrides)
    config = config_files.override(config, overrides, FILE)
    found = configs.models(config)
    assert {name: one.path for name, one in found.items()} == {
        "first": "runs/first",
        "second_best": "runs/second_best",
    }
    assert found["first"].dtype == "bfloat16"
    # The folder is given once for both of its entries.
    roots = {name: one.root for name, one in configs.data_sets(config).items()}
    assert roots == {"fetal_planes_db": "FPDB", "fetal_planes_db_halves": "FPDB", "phantom": ""}
