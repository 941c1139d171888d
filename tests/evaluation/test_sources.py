"""Which images a data set means to a model."""

import numpy as np
import pytest
from ml_collections import ConfigDict

from fetalclip_jax.datasets import registry
from fetalclip_jax.evaluation import studies
from fetalclip_jax.evaluation.sources import DataSet, Sources


@pytest.fixture
def trained_on():
    """Settings of a run trained on `root` with seed 3 and other shares than the default ones."""

    def make(kind, root, **options):
        data = ConfigDict({"source": kind, "root": str(root), "seed": 3})
        data[kind] = registry.default_options()[kind] | options
        return data

    return make


def patients(source) -> set[str]:
    return set(source.metadata()["patient_id"])


def test_what_was_trained_on_is_split_as_for_training(trained_on, hc18_folder, tmp_path):
    root = hc18_folder(patients=20)
    trained = trained_on("hc18", root, test_share=0.3)
    (tmp_path / "moved").symlink_to(root)
    for given in (
        DataSet("hc18", str(root)),
        DataSet("hc18", str(tmp_path / "moved")),
        DataSet("hc18", str(root), {"with_masks": False}),
    ):
        sources = Sources({"heads": given}, trained, 32)
        assert len(patients(sources.open("heads", "test")[1])) == 6
        everyone = patients(sources.open("heads", "all")[1])
        learned_from = sources.trained_patients("heads")
        assert len(learned_from) == 14
        assert everyone - learned_from == patients(sources.open("heads", "test")[1])


def test_data_of_another_kind_or_seed_is_not_that_of_training(trained_on, hc18_folder):
    trained = trained_on("phantom", "", test_images=6, pool_images=6, train_images=6)
    sources = Sources({"heads": DataSet("hc18", str(hc18_folder()))}, trained, 32)
    assert sources.trained_patients("heads") == set()
    other = Sources({"new": DataSet("phantom", seed=9)}, trained, 32)
    source = other.open("new", "test")[1]
    assert len(source) == 6
    assert source[0].example_id.startswith("phantom-9-")


def test_whole_data_sets_say_what_the_model_was_trained_on(trained_on, hc18_folder):
    from fetalclip_jax.evaluation import evaluate, features

    trained = trained_on("hc18", hc18_folder(patients=20))
    sources = Sources({"heads": DataSet("hc18", "")}, trained, 32)
    store = features.metadata_store(sources.open("heads", "all")[1], {})
    said = []
    judged = evaluate._Judged("m", None, None, 8, 0, 0, said.append, False)
    (line,) = judged._trained_on("heads", sources, store)
    learned_from = np.isin(store.patients(), list(sources.trained_patients("heads")))
    assert line.startswith(f"{learned_from.sum()} of 40 judged images are of patients")
    assert said == [f"heads: {line}"]


def test_validation_patients_stand_in_for_the_test(trained_on, hc18_folder):
    trained = trained_on("hc18", hc18_folder(patients=20))
    by_role = {
        judged: Sources({"heads": DataSet("hc18", judged=judged)}, trained, 32)
        for judged in ("test", "validation")
    }
    split, judged = by_role["validation"].open("heads", "test")
    assert split == "validation"
    assert not patients(judged) & patients(by_role["test"].open("heads", "test")[1])
    assert by_role["test"].notes("heads") == []
    assert "by which models may be chosen" in by_role["validation"].notes("heads")[0]


def test_no_study_learns_from_the_validation_patients_that_it_judges(trained_on):
    sources = Sources(
        {"phantom": DataSet("phantom", judged="validation")}, trained_on("phantom", ""), 32
    )
    assert "some of whom few_shot.planes would learn from" in sources.lacks(
        "phantom", studies.create("few_shot.planes")
    )
    everyone = studies.create("zero_shot.planes", protocol="paper")
    assert "validation patients, and zero_shot.planes on all" in sources.lacks("phantom", everyone)
    assert sources.lacks("phantom", studies.create("zero_shot.planes")) == ""


def test_another_split_may_take_a_role_and_is_said(hc18_folder, trained_on):
    root = str(hc18_folder(patients=20))
    judged = {"test": "not_test", "train": "", "fit": "validation"}
    sources = Sources({"heads": DataSet("hc18", root, {"test_share": 0.5}, splits=judged)}, None, 8)
    plain = Sources({"heads": DataSet("hc18", root, {"test_share": 0.5})}, None, 8)
    split, source = sources.open("heads", "test")
    assert split == "not_test"
    held_back = patients(plain.open("heads", "test")[1])
    assert patients(source) == patients(plain.open("heads", "all")[1]) - held_back
    assert len(held_back) == 10
    assert sources.open("heads", "fit")[0] == "validation"
    assert "train" not in sources.facts("heads").roles
    (note,) = sources.notes("heads")
    assert note.startswith("judged on the patients of its split 'not_test', not on its test")
    assert plain.notes("heads") == []
    # Of a study that reads no test patients it is not true.
    assert sources.notes("heads", {"all"}) == []


@pytest.mark.parametrize(
    ("splits", "message"),
    [
        ({"test": "official_train"}, "there is no split 'official_train'; use train, validation,"),
        ({"tests": "train"}, "there is no role 'tests'; use train, validation, fit, test, all"),
    ],
)
def test_a_role_or_split_that_is_none_is_refused(splits, message, hc18_folder):
    sources = Sources({"heads": DataSet("hc18", str(hc18_folder()), splits=splits)}, None, 8)
    for _ in range(2):  # for every study that asks
        with pytest.raises(ValueError, match=f"data set heads: splits=.*: {message}"):
            sources.open("heads", "test")


def test_other_shares_than_those_of_training_judge_patients_that_were_learned_from(
    trained_on, hc18_folder
):
    trained = trained_on("hc18", hc18_folder(patients=20), test_share=0.2)
    sources = Sources({"heads": DataSet("hc18", "", {"test_share": 0.5})}, trained, 8)
    assert len(sources.trained_patients("heads")) == 16
    assert len(patients(sources.open("heads", "test")[1]) & sources.trained_patients("heads")) == 6
    assert sources.may_be_trained_on("heads", "test")
    as_trained = Sources({"heads": DataSet("hc18", "")}, trained, 8)
    assert not as_trained.may_be_trained_on("heads", "test")
