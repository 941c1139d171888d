import pytest

from fetalclip_jax.evaluation import studies
from fetalclip_jax.sweeps import score
from fetalclip_jax.sweeps.grid import Sweep


@pytest.mark.parametrize(
    ("judging", "message"),
    [
        ({"score": "zero_shot.planes/macro_f2"}, "planes measures macro_f1, accuracy, .*top3_acc"),
        ({"studies": ("few_shot.planes",), "score": "few_shot.planes/accuracy"}, "measures macro"),
        (
            {
                "score": "zero_shot.planes/top3_accuracy",
                "options": {"zero_shot.planes": {"top_k": (2,)}},
            },
            "balanced_top2_accuracy; use one of them",
        ),
        ({"studies": ("zero_shot",)}, "study 'zero_shot' is unknown"),
    ],
)
def test_a_score_that_no_study_measures_is_refused(judging, message):
    with pytest.raises(ValueError, match=message):
        score.check(Sweep([{}], **judging))


@pytest.mark.parametrize("study", [name for name in studies.names() if name != "near_duplicates"])
def test_a_study_measures_its_headline(study):
    score.check(Sweep([{}], studies=(study,), score=score.headline(study)))
    is_error = study.startswith("regression.") or study == "embedding_map.ga_days"
    assert score.is_error(score.headline(study)) == is_error


def test_a_study_of_the_data_is_no_score():
    with pytest.raises(ValueError, match="near_duplicates tells of the data and not of a model"):
        score.check(Sweep([{}], studies=("near_duplicates",), score="near_duplicates/share"))


def test_errors_are_told_by_their_scale():
    assert score.is_error("age/mae_days")
    assert score.is_error("segmentation.head/hausdorff95_mm")
    assert score.is_error("age/median_implied_hc_error_percent")
    # By its name an error, by its values a rate.
    assert not score.is_error("zero_shot.planes/share_without_error")
