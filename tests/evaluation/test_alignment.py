"""Two results side by side: which may stand there, and on which images."""

import dataclasses

import numpy as np
import pytest

from fetalclip_jax.evaluation.alignment import align, select
from tests.evaluation.paired import DATA, PROTOCOL, few_shot, misses, predictions, zero_shot

WRONG = misses(0.3)


def test_images_are_matched_by_id_whatever_their_order():
    first = zero_shot("a", WRONG)
    order = np.random.default_rng(1).permutation(120)
    second = zero_shot("b", None, predictions=select(predictions(WRONG), order))
    pair = align(first, second)
    assert (pair.second.predictions.example_id == first.predictions.example_id).all()
    assert (pair.second.predictions.prediction == first.predictions.prediction).all()
    np.testing.assert_array_equal(pair.second.predictions.scores, first.predictions.scores)
    assert pair.only == (0, 0)
    assert pair.notes == ()
    assert pair.groups.tolist() == first.predictions.patient_id.tolist()


def test_images_of_one_alone_are_counted_and_said():
    kept = predictions(WRONG)
    first = zero_shot("a", None, predictions=select(kept, np.arange(0, 100)))
    second = zero_shot("b", None, predictions=select(kept, np.arange(119, 9, -1)))
    pair = align(first, second)
    assert pair.only == (10, 20)
    assert pair.first.predictions.example_id.tolist() == kept.example_id[10:100].tolist()
    assert pair.notes == ("90 images are judged by both; 10 of a and 20 of b alone are left out",)


def test_runs_are_matched_with_their_images():
    first = few_shot("a", (0.5, 0.3, 0.1))
    order = np.arange(119, -1, -1)
    turned = dataclasses.replace(
        select(first.predictions, order),
        **{
            name: {size: runs[:, order] for size, runs in getattr(first.predictions, name).items()}
            for name in ("runs", "ranks")
        },
    )
    pair = align(first, dataclasses.replace(first, predictions=turned), ("a", "b"))
    for size in ("2", "4", "8"):
        ours, theirs = (one.predictions for one in (pair.first, pair.second))
        np.testing.assert_array_equal(ours.runs[size], theirs.runs[size])
        np.testing.assert_array_equal(ours.ranks[size], theirs.ranks[size])


def changed(**fields):
    return zero_shot("b", WRONG, **fields)


@pytest.mark.parametrize(
    ("second", "message"),
    [
        (changed(study="zero_shot.other"), "studies zero_shot.view and zero_shot.other; give"),
        (changed(data=DATA | {"name": "hc18"}), "data sets 'clinic' and 'hc18'; evaluate both"),
        (changed(data=DATA | {"kind": "phantom"}), "kinds of data set 'image_text' and 'phantom'"),
        (changed(data=DATA | {"simulated": True}), "simulated images: False and True"),
        (
            changed(data=DATA | {"stores": {"images": {"split": "val"}}}),
            "splits of the images images 'test' and 'val'",
        ),
        (changed(protocol=PROTOCOL | {"name": "paper"}), "protocols 'default' and 'paper'"),
        (
            changed(protocol=PROTOCOL | {"resample_by": "image"}),
            "resample_by: 'patient' and 'image'",
        ),
    ],
)
def test_results_of_something_else_are_refused(second, message):
    with pytest.raises(ValueError, match=r"a and b cannot be compared") as error:
        align(zero_shot("a", WRONG), second)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_setting_that_differs_is_named():
    one, other = (PROTOCOL | {"prompts": name} for name in ("planes", "mine.json"))
    with pytest.raises(ValueError, match=r"settings prompts 'planes' and 'mine\.json'"):
        align(zero_shot("a", WRONG, protocol=one), zero_shot("b", WRONG, protocol=other))
    # A protocol's name with what was changed of it is that protocol; settings are compared.
    other = one | {
        "name": "default, changed: top_k",
        "top_k": [2],
        "resamples": 10,
        "batch_size": 9,
    }
    align(zero_shot("a", WRONG, protocol=one), zero_shot("b", WRONG, protocol=other))


def test_settings_that_only_one_records_are_said():
    pair = align(zero_shot("a", WRONG), zero_shot("b", WRONG, protocol=PROTOCOL | {"role": "all"}))
    assert pair.notes == ("only one of the two records the settings role",)


def test_other_candidates_are_refused():
    fewer = dataclasses.replace(predictions(WRONG), candidates=("brain", "femur"))
    with pytest.raises(
        ValueError, match=r"candidates \[brain, femur, heart\] and \[brain, femur\]"
    ):
        align(zero_shot("a", WRONG), zero_shot("b", None, predictions=fewer))


def test_no_image_in_common_is_an_error_that_shows_ids():
    kept = predictions(WRONG)
    other = dataclasses.replace(kept, example_id=np.char.add("x", kept.example_id))
    with pytest.raises(ValueError, match=r"120 and 120 example ids, such as 'image0000' and 'xim"):
        align(zero_shot("a", WRONG), zero_shot("b", None, predictions=other))


@pytest.mark.parametrize("column", ["label", "patient_id"])
def test_truths_that_disagree_are_an_error(column):
    kept = predictions(WRONG)
    values = getattr(kept, column).copy()
    values[[5, 7]] = "heart" if column == "label" else "p99"
    other = dataclasses.replace(kept, **{column: values})
    with pytest.raises(ValueError, match=rf"{column} differs for [12] of 120 images, first 'image"):
        align(zero_shot("a", WRONG), zero_shot("b", None, predictions=other))


def test_sizes_of_heads_that_disagree_are_an_error():
    def with_hc(value):
        return dataclasses.replace(predictions(WRONG), extra={"hc_mm": np.full(120, value)})

    align(*(zero_shot(n, None, predictions=with_hc(np.nan)) for n in "ab"))
    with pytest.raises(ValueError, match=r"hc_mm differs for 120 of 120 images"):
        align(*(zero_shot(n, None, predictions=with_hc(v)) for n, v in (("a", 1.0), ("b", 2.0))))


def test_an_image_named_twice_is_an_error():
    kept = select(predictions(WRONG), np.r_[np.arange(120), 3])
    with pytest.raises(ValueError, match=r"b: .* name example_id 'image0003' 2 times"):
        align(zero_shot("a", WRONG), zero_shot("b", None, predictions=kept))


def test_a_result_without_predictions_is_an_error():
    with pytest.raises(ValueError, match=r"b: zero_shot.view has no predictions .* evaluate again"):
        align(zero_shot("a", WRONG), zero_shot("b", None, predictions=None))


def test_more_images_to_learn_from_are_said():
    def learned(images):
        return DATA | {"stores": {"fit": {"split": "pool", "images": images}}}

    pair = align(zero_shot("a", WRONG, data=learned(90)), zero_shot("b", WRONG, data=learned(1200)))
    assert pair.notes == ("a and b had 90 and 1,200 images to learn from",)


def test_curves_keep_the_sizes_of_both():
    first = few_shot("a", (0.5, 0.3, 0.1))
    second = few_shot("b", (0.3, 0.1, 0.05), sizes=(4, 8, 16))
    pair = align(first, second)
    assert pair.first.predictions.runs.keys() == pair.second.predictions.runs.keys() == {"4", "8"}
    assert pair.notes == ("sizes that only one of them has are left out: 2 patients of a; "
                          "16 patients of b",)  # fmt: skip
    with pytest.raises(ValueError, match="no size is the same, 2, 4, 8 and 32 patients"):
        align(first, few_shot("b", (0.1,), sizes=(32,)))


def test_of_images_each_is_drawn_by_itself():
    protocol = PROTOCOL | {"resample_by": "image"}
    pair = align(*(zero_shot(n, WRONG, protocol=protocol) for n in "ab"))
    assert len(set(pair.groups.tolist())) == 120
