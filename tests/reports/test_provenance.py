"""What a figure stands for: said of one result, of many alike, and of many that differ."""

import dataclasses
import pathlib

from fetalclip_jax.evaluation.result import Estimate
from fetalclip_jax.labels import BRAIN_PLANES, SIX_PLANES
from fetalclip_jax.reports import provenance
from fetalclip_jax.reports.reading import Contents, Evaluated
from tests.reports.conftest import (
    DATA,
    MODEL,
    PROTOCOL,
    REAL,
    STORE,
    age_result,
    classification,
    few_shot_result,
)


def evaluated(result):
    label = f"{result.model['name']} / {result.data['name']}"
    return Evaluated(result, pathlib.Path("nowhere"), label)


def brain(**fields):
    return evaluated(classification("zero_shot.brain", BRAIN_PLANES, **fields))


BOOTSTRAP = "95 % interval: bootstrap over patients in 1,000 resamples"


def test_one_result_says_images_patients_split_protocol_and_interval():
    assert provenance.stands_for(brain()) == (
        "n = 120 images of 20 patients, split 'test' of phantom (simulated), protocol default, "
        f"{BOOTSTRAP}."
    )
    assert provenance.stands_for() == ""


def test_features_of_several_views_are_said():
    several = brain(model=MODEL | {"name": "ten", "test_time_views": 10})
    averaged = "features averaged over 10 views of each image"
    assert f"protocol default, {averaged}, {BOOTSTRAP}" in provenance.stands_for(several)
    assert provenance.stands_for(brain(), several).startswith(f"{MODEL['name']}: protocol default;")
    assert "Features averaged over 10 views of each image." in provenance.in_words(several)
    assert "views" not in provenance.in_words(brain())


def test_images_and_views_that_differ_apart_are_each_said_once():
    ten = MODEL | {"name": "ten", "test_time_views": 10}

    def several(real):
        return [
            brain(model=model, data=data, count=count)
            for model in (MODEL, ten)
            for data, count in ((DATA, 120), (real, 60))
        ]

    words = provenance.stands_for(*several(REAL))
    for once in ("n = 120", "n = 60", "over 10 views", "ten: protocol default, features"):
        assert words.count(once) == 1, words
    # A name that is a model's and a data set's would not say of which.
    words = provenance.stands_for(*several(REAL | {"name": "ten"}))
    assert "ten / ten: n = 60 images" in words


def test_results_that_stand_for_the_same_say_it_once():
    other = brain(model=MODEL | {"name": "other"})
    assert provenance.stands_for(brain(), other) == provenance.stands_for(brain())


def test_results_that_differ_are_both_said_and_what_they_share_is_said_once():
    few = brain(count=60)
    few = dataclasses.replace(few, result=dataclasses.replace(few.result, study="zero_shot.view"))
    assert provenance.stands_for(brain(), few) == (
        "Zero-shot brain planes: n = 120 images of 20 patients; Zero-shot view: n = 60 images of "
        "10 patients; all: split 'test' of phantom (simulated), protocol default, "
        f"{BOOTSTRAP}."
    )


def test_results_of_two_data_sets_are_told_apart_by_them():
    words = provenance.stands_for(brain(), brain(data=REAL))
    assert words.startswith(
        "phantom: split 'test' of phantom (simulated); clinic: split 'test' of clinic; all: n = 120"
    )


def test_models_and_tasks_together_tell_apart_what_neither_does_alone():
    ours, theirs = MODEL | {"name": "a"}, MODEL | {"name": "b"}
    paper = PROTOCOL | {"name": "paper"}
    words = provenance.stands_for(
        brain(model=ours),
        brain(model=theirs, protocol=paper),
        evaluated(age_result(model=ours, protocol=paper)),
        evaluated(age_result(model=theirs)),
    )
    for line in ("brain planes of a / phantom: n = 120", "age of b / phantom: n = 80"):
        assert line in words


def test_probes_say_what_they_were_fitted_on_and_ages_do_not():
    stores = {"fit": STORE | {"split": "pool"}, "test": STORE}
    probe = classification("probe.planes", SIX_PLANES, data=DATA | {"stores": stores})
    assert "split 'test' of phantom (simulated), fitted on split 'pool'," in provenance.stands_for(
        evaluated(probe)
    )
    stores = {"images": STORE, "train": STORE | {"split": "train"}}
    age = evaluated(age_result(data=DATA | {"stores": stores}))
    assert "train" not in provenance.stands_for(age)
    assert provenance.splits(age) == ["test"]


def test_lists_of_images_are_named_where_both_sides_are_of_the_whole_data_set():
    whole = STORE | {"split": "all"}
    probe = classification(
        "probe.planes",
        SIX_PLANES,
        data=DATA | {"stores": {"fit": whole, "test": whole}},
        protocol=PROTOCOL | {"splits": "/data/official/head"},
    )
    words = provenance.stands_for(evaluated(probe))
    assert (
        "split 'all' of phantom (simulated), the test images of the lists in head, fitted on the "
        "other listed images,"
    ) in words
    assert "fitted on split" not in words


def test_intervals_say_what_they_redraw_and_that_there_is_none():
    images = PROTOCOL | {"resample_by": "image", "resamples": 200}
    assert provenance.interval(brain(protocol=images)) == (
        "95 % interval: bootstrap over images in 200 resamples"
    )
    curve = evaluated(few_shot_result())
    assert "bootstrap over support sets and patients" in provenance.interval(curve)
    redrawn = brain()
    details = {**redrawn.result.details, "redraws": {"macro_f1": [0.5, 0.6]}}
    redrawn = dataclasses.replace(
        redrawn, result=dataclasses.replace(redrawn.result, details=details)
    )
    assert "over patients and draws of augmented copies in" in provenance.interval(redrawn)
    without = brain(metrics={"macro_f1": Estimate(0.5, n=120, groups=20)})
    assert provenance.interval(without) == "no interval recorded"
    alone = brain(metrics={"macro_f1": Estimate(0.5, n=6, groups=1)})
    assert provenance.interval(alone) == "no interval: a single patient shows no spread"


def test_counts_come_from_whatever_says_them():
    whole = brain()
    assert provenance.counts(whole) == (120, 20)
    by_image = brain(
        protocol=PROTOCOL | {"resample_by": "image"},
        metrics={"macro_f1": Estimate(0.5, 0.4, 0.6, 120, 120)},
    )
    # Resampled by image, the groups are no patients: those of the predictions are.
    assert provenance.counts(by_image) == (120, 20)
    bare = brain(metrics={"macro_f1": Estimate(0.5)}, predictions=None)
    assert provenance.counts(bare) == (None, None)
    assert provenance.stands_for(bare).startswith("images not counted, patients not recorded,")


def test_intervals_by_t_say_every_source_of_their_variance():
    made = {"environment": {"python": "3.11"}}
    assert provenance.interval(brain(**made)) == (
        "95 % interval: Student's t, variance of 1,000 bootstrap resamples of patients"
    )
    curve = evaluated(few_shot_result(**made, details={"redraws": {"macro_f1": [0.5, 0.6]}}))
    assert provenance.interval(curve) == (
        "95 % interval: Student's t, variances of 1,000 bootstrap resamples of patients and of "
        "support sets and of redrawn augmented copies"
    )
    assert "95 % interval: Student's t, variance of" in provenance.in_words(brain(**made))
    alone = {"metrics": {"macro_f1": Estimate(0.5, n=6, groups=1)}} | made
    assert "No interval: a single patient shows no spread." in provenance.in_words(brain(**alone))


def test_pictures_without_intervals_do_not_describe_any():
    assert provenance.stands_for(brain(), intervals=False) == (
        "n = 120 images of 20 patients, split 'test' of phantom (simulated), protocol default."
    )
    resampled = PROTOCOL | {"resamples": 5}
    words = provenance.stands_for(brain(), brain(protocol=resampled), intervals=False)
    assert words == provenance.stands_for(brain(), intervals=False)


def test_classes_that_no_image_shows_are_named():
    few = SIX_PLANES[:4]
    missing = f"in 4 of 6 classes (none of {', '.join(SIX_PLANES[4:])}), split"
    probe = classification("probe.planes", SIX_PLANES, few)
    assert missing in provenance.stands_for(evaluated(probe))
    # A curve keeps no list of judged classes, but its predictions.
    details = {"classes": list(SIX_PLANES)}
    curve = few_shot_result(predictions=probe.predictions, details=details)
    assert missing in provenance.stands_for(evaluated(curve))
    assert " of 6 classes" not in provenance.stands_for(evaluated(few_shot_result(details=details)))


def test_distractors_are_no_missing_classes():
    protocol = PROTOCOL | {"distractors": list(BRAIN_PLANES[2:])}
    result = classification("zero_shot.brain", BRAIN_PLANES, BRAIN_PLANES[:2], protocol=protocol)
    assert "classes" not in provenance.stands_for(evaluated(result))
    result = dataclasses.replace(result, protocol=PROTOCOL | {"distractors": []})
    assert "in 2 of 3 classes" in provenance.stands_for(evaluated(result))


def test_models_and_data_of_all_results_are_listed_once():
    stores = {"images": STORE | {"images": 7}}
    results = [
        brain(),
        brain(model=MODEL | {"name": "other"}),
        brain(data=DATA | {"stores": stores}),
        brain(data=REAL),
    ]
    page = "".join(provenance.environment(Contents((), tuple(results))))
    # Each of them twice: `name` of two models, and of two data sets.
    for name in ("quickstart", "other", "phantom", "clinic"):
        assert page.count(f"&quot;name&quot;: &quot;{name}&quot;") == 1


def test_stores_of_another_shape_are_told_as_far_as_they_go():
    assert provenance.store("fit", {"images": "many"}) == (
        "fit: unknown images of unknown patients in split None"
    )
