"""The section of heart defects."""

import dataclasses

import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

from fetalclip_jax.evaluation import examples
from fetalclip_jax.evaluation.features import FeatureStore
from fetalclip_jax.evaluation.studies import create
from fetalclip_jax.reports import claim_data, heart, naming, provenance, published
from fetalclip_jax.reports.frame import Report
from fetalclip_jax.reports.reading import Contents, Evaluated

FRAMES = 2


class Model:
    fingerprint = "m"


def clips(count, prefix):
    rng = np.random.default_rng(count)
    finding = np.array(["normal", "normal", "vsd"])[np.arange(count) % 3]
    features = rng.normal(size=(count, FRAMES, 4)) + (finding == "vsd")[:, None, None]
    text = {name: np.full(count, "") for name in ("plane", "brain_plane")}
    numbers = {n: np.full(count, np.nan) for n in ("ga_days", "hc_mm", "resized_spacing_mm")}
    return FeatureStore(
        image_features=features.reshape(count, -1).astype(np.float32),
        columns=text | numbers | {
            "label": finding,
            "example_id": np.char.add(prefix, np.arange(count).astype(str)),
            "patient_id": np.char.add(prefix, np.arange(count).astype(str)),
            "frames": np.r_[1.0, np.full(count - 1, 9)],
        },
        raw_pixels=rng.integers(0, 255, (count, FRAMES * 256)).astype(np.uint8),
        copy=np.zeros(count, np.int32),
        fingerprint={"model": "m", "image_size": 96},
    )  # fmt: skip


def evaluated(folder, stores, simulated=True, **options):
    options = {"num_frames": FRAMES, "resamples": 50, "progress": False} | options
    found = create("chd.mean", **options).run(stores, Model)
    data = {
        "name": "clips",
        "simulated": simulated,
        "stores": {name: {"split": name, "images": len(one)} for name, one in stores.items()},
    }
    found = dataclasses.replace(found, model={"name": "m"}, data=data)
    return Evaluated(found, folder, "m / clips")


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    stores = {"fit": clips(60, "a"), "test": clips(45, "b")}
    return evaluated(tmp_path_factory.mktemp("r"), stores, penalties=(1e-2,))


def drawn(tmp_path, *ones):
    report = Report(Contents((), ones), tmp_path / "figures")
    return "".join(heart.parts(report)), report


def test_the_curve_is_that_of_scikit_learn_and_inside_its_band(one):
    found = heart.curve(one.result)
    predictions = one.result.predictions
    abnormal = predictions.label == "abnormal"
    scores = predictions.scores[:, predictions.candidates.index("abnormal")]
    false_alarms, hits, _ = sklearn_metrics.roc_curve(abnormal, scores, drop_intermediate=False)
    expected = [hits[false_alarms <= x + 1e-9].max() for x in found.false_alarms]
    np.testing.assert_allclose(found.sensitivity, expected)
    assert (found.low <= found.sensitivity).mean() > 0.9
    assert (found.high >= found.sensitivity).mean() > 0.9
    assert (found.high - found.low).max() > 0.1


def test_the_section_says_what_was_measured_and_of_what(tmp_path, one):
    html, report = drawn(tmp_path, one)
    details = one.result.details
    for text in (
        "Thresholds chosen on validation patients",
        "Sensitivity to each finding, specificity asked for 90 %",
        "nothing here says what is found in patients",
        "Compared with the same head on 16 x 16 raw pixels",
        "2 clips of fewer than 2 frames, some read twice",
        "n = 45 clips of 45 patients",
        f"{100 * details['findings']['vsd']['value']:.1f} %",
        f"{details['against_raw_pixels']['auroc']['value']:+.3f}",
    ):
        assert text in html, text
    assert [path.name for path in (tmp_path / "figures").iterdir()] == ["roc_chd_mean.png"]
    assert report.missing == []


def test_clips_are_nowhere_called_images(tmp_path, one):
    stores = {"test": {"split": "test", "images": 45, "patients": 45}}
    data = one.result.data | {"stores": stores, "left_out": {"a": "is empty"}}
    one = dataclasses.replace(one, result=dataclasses.replace(one.result, data=data))
    report = Report(Contents((), (one,)), tmp_path / "figures")
    answers = (claim_data.missing, claim_data.partitions, claim_data.level, claim_data.included)
    told = [provenance.in_words(one), *(line for of in answers for line in of(report))]
    for text in (
        "45 clips judged",
        "test: 45 clips of 45 patients in split 'test'",
        "clips: 1 clip of those used could not be read.",
        "Splits, folds and support sets keep the clips of one patient",
        "45 clips of 45 patients judged",
    ):
        assert any(text in line for line in told), text
    assert not [line for line in told if "images" in line]


def test_real_clips_are_not_called_simulated(tmp_path, one):
    real = dataclasses.replace(one, result=dataclasses.replace(
        one.result, data=one.result.data | {"simulated": False}))  # fmt: skip
    assert "simulated" not in drawn(tmp_path, real)[0]


def test_results_without_predictions_are_named(tmp_path, one):
    bare = dataclasses.replace(one, result=dataclasses.replace(one.result, predictions=None))
    html, report = drawn(tmp_path, bare)
    assert "<img" not in html
    assert "Thresholds chosen" in html
    assert "no predictions beside" in report.missing[0]
    assert drawn(tmp_path)[0] == ""


def test_where_each_fold_is_tested_the_judged_split_is_said(tmp_path):
    folds = evaluated(tmp_path, {"fit": clips(60, "a")}, protocol="paper", runs=2, epochs=2)
    assert provenance.splits(folds) == ["fit"]
    assert "split 'fit' of clips (simulated)" in provenance.where(folds)
    html, _ = drawn(tmp_path, folds)
    assert "Thresholds chosen on the judged clips" in html
    assert "Standard deviation of the AUROC over 10 runs" in html


def test_metrics_are_called_as_in_the_field():
    assert naming.metric("auroc").show(0.7872) == "0.787"
    found = naming.metric("sensitivity_at_95_specificity")
    assert (found.words, found.show(0.25)) == ("sensitivity at 95 % specificity", "25.0 %")
    assert naming.title("chd.mean") == "Heart defects, mean over frames"


def test_published_areas_stand_beside_the_papers_protocol_on_real_clips_alone(tmp_path):
    stores = {"fit": clips(60, "a"), "test": clips(45, "b")}
    changed = {"protocol": "paper", "runs": 1, "epochs": 1}
    simulated = evaluated(tmp_path, stores, **changed)
    paper = dataclasses.replace(
        simulated.result,
        study="chd.concatenated",
        protocol={"name": "paper"},
        data=simulated.result.data | {"simulated": False},
    )
    assert "FetalCLIP 0.787" in published.beside(paper)
    assert "private four-chamber clips" in published.beside(paper)
    assert published.beside(dataclasses.replace(paper, study="chd.mean")) == ""
    assert published.beside(simulated.result) == ""


def test_examples_of_clips_are_four_frames(tmp_path, one):
    class Source:
        facts = type("Facts", (), {"group_columns": ()})

        def metadata(self):
            return {"example_id": one.result.predictions.example_id}

        def __getitem__(self, index):
            frames = [np.full((40, 60), 10 * k, np.uint8) for k in range(8)]
            frames[3] = np.full((40, 60, 3), (30, 200, 30), np.uint8)
            return examples.Example(f"b{index}", frames[4], frames=frames)

    examples.keep(tmp_path, "chd.mean", one.result.predictions, Source())
    _, image = examples.load(tmp_path, "chd.mean")[0]
    assert image.shape == (80, 120, 3)
    corners = [image[20, 30, 0], image[20, 90, 0], image[60, 30, 0], image[60, 90, 0]]
    assert corners == [10, 30, 50, 70]
