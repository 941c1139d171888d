import numpy as np
import pytest

from fetalclip_jax.evaluation import studies


def test_every_name_makes_a_study_that_says_what_it_needs():
    assert set(studies.names()) == {
        "zero_shot.planes", "zero_shot.brain", "zero_shot.merged", "age", "probe.planes",
        "probe.brain", "probe.raw_pixels", "few_shot.planes", "few_shot.brain", "retrieval",
        "near_duplicates", "mislabels.planes", "mislabels.brain", "nearest_centroid.planes",
        "nearest_centroid.brain", "knn.planes", "knn.brain", "regression.ga_days",
        "regression.hc_mm", "chd.concatenated", "chd.mean", "segmentation.head",
        "segmentation.abdomen", "segmentation.four_chamber", "few_shot_segmentation.head",
        "few_shot_segmentation.abdomen", "few_shot_segmentation.four_chamber",
        "explanation.head", "explanation.abdomen", "explanation.heart",
        "embedding_map.planes", "embedding_map.ga_days",
    }  # fmt: skip
    for name in studies.names():
        study = studies.create(name, protocol="paper", seed=3)
        assert study.name == name
        assert study.settings.seed == 3
        assert study.settings.resample_by == "image"
        assert len({need.name for need in study.needs}) == len(study.needs) > 0


def test_needs_follow_the_protocol():
    default, paper = (studies.create("zero_shot.planes", protocol=p) for p in ("default", "paper"))
    assert [(need.role, need.columns) for need in default.needs] == [("test", ("plane",))]
    assert paper.needs[0].role == "all"
    images, train = studies.create("age").needs
    assert images.only == {"plane": ("brain",)}
    assert (train.role, train.level, train.optional) == ("train", "metadata", True)
    for name, copies in (("probe.brain", 5), ("few_shot.brain", 10)):
        fit, test = studies.create(name, protocol="paper").needs
        assert (fit.role, fit.copies, fit.transform) == ("fit", copies, "opencv")
        assert (test.role, test.copies, test.transform) == ("test", 0, "opencv")
        assert fit.columns == test.columns == ("brain_plane",)
    assert studies.create("probe.planes").needs[0].copies == 0
    assert studies.create("probe.machine").needs[0].columns == ("machine",)


def test_published_protocols():
    probe = studies.create("probe.planes", protocol="paper").settings
    few, brain = (studies.create(f"few_shot.{n}", protocol="paper").settings
                  for n in ("planes", "brain"))  # fmt: skip
    for one in (probe, few, brain):
        assert (one.solver, one.feature_scaling, one.weight_decay) == ("adamw", "none", 0.01)
        assert one.runs == 5
    assert (probe.folds, probe.batch_size, probe.epochs) == (5, 64, 50)
    assert (few.batch_size, few.epochs, few.support_sets) == (16, 100, 5)
    assert probe.learning_rates == few.learning_rates == (3e-4,)
    assert brain.learning_rates == (1e-4,)
    assert few.sizes == (2, 4, 8, 16, 32, 64)
    assert brain.sizes == (4, 8, 16, 32, 64)


def test_options_win_over_the_protocol_and_lists_become_tuples():
    study = studies.create("few_shot.planes", protocol="paper", sizes=[2, 3], resample_by="patient")
    assert study.settings.sizes == (2, 3)
    assert study.settings.resample_by == "patient"
    assert studies.create("probe.planes").settings.protocol == "tuned"


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        (
            "zero_shot",
            {},
            r"study 'zero_shot' is unknown; there are .*zero_shot\.planes.*probe\.\*",
        ),
        ("zero_shot.*", {}, "is unknown"),
        ("segmentation", {}, "is unknown"),
        ("age", {"resample": 3}, "age has no option 'resample'; it has protocol, resample_by"),
        ("age", {"protocol": "papers"}, "protocol 'papers' is unknown; there are default, paper"),
        ("age", {"resample_by": "fold"}, "age: resample_by must be 'patient' or 'image'"),
        ("age", {"resamples": "many"}, "resamples='many' is a str; give a int such as 1000"),
        ("age", {"resamples": True}, "resamples=True is a bool"),
        ("age", {"top_n": 0}, "top_n=0 between 1 and 175"),
        ("zero_shot.machine", {}, "zero_shot.machine needs prompts"),
        ("probe.planes", {"learning_rates": (1e-3,)}, "learning_rates belongs to solver='adamw'"),
        ("probe.planes", {"solver": "adamw", "penalties": (1.0,)}, "belongs to solver='logistic'"),
        ("probe.planes", {"solver": "svm"}, "solver='svm' is not one of logistic, adamw"),
        ("probe.planes", {"feature_scaling": "standardise"}, "needs solver='adamw'"),
        ("probe.planes", {"solver": "adamw", "epochs": 0}, "epochs=0 must be at least 1"),
        (
            "probe.planes",
            {"solver": "adamw", "learning_rates": (-1.0,)},
            r"learning_rates=\(-1.0,\) must be numbers above 0",
        ),
        ("few_shot.planes", {"sizes": (0,)}, "must be numbers of patients from 1"),
    ],
)
def test_refusals_say_what_there_is(name, options, message):
    with pytest.raises(ValueError, match=message) as error:
        studies.create(name, **options)
    assert "\n" not in str(error.value)


def test_effective_settings_leave_out_what_had_no_part(tmp_path):
    tuned = studies.create("probe.planes", resamples=7).settings.effective()
    assert (tuned["name"], tuned["resamples"], tuned["solver"]) == ("tuned", 7, "logistic")
    assert "epochs" not in tuned
    assert isinstance(tuned["penalties"], list)
    assert "penalties" not in studies.create("probe.planes", protocol="paper").settings.effective()
    assert np.isfinite(tuned["penalties"]).all()
