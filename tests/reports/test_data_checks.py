import dataclasses

import numpy as np

from fetalclip_jax.evaluation import comparisons
from fetalclip_jax.evaluation.pictures import Picture
from fetalclip_jax.evaluation.result import Baseline, Estimate, Predictions, Result
from fetalclip_jax.reports import data_checks, headline
from fetalclip_jax.reports.frame import Report
from fetalclip_jax.reports.reading import Contents, Evaluated
from tests.reports.conftest import DATA, MODEL, PROTOCOL
from tests.reports.pages import Page

PAIR = {
    "first": "a", "second": "b", "cosine": 0.98765, "correlation": 0.9, "splits": "fit, test",
    "same_split": False, "same_patient": None, "labels_differ": ["brain_plane"],
}  # fmt: skip
LABEL = {
    "example_id": "x<1>", "patient_id": "", "split": "fit", "label": "femur", "suggested": "brain",
    "probability_of_label": 0.01, "probability_of_suggested": 0.9,
}  # fmt: skip


def result(study, metric, details, **fields):
    return Result(
        study, {metric: Estimate(0.1, 0.05, 0.2, 40, 9)}, model=MODEL, data=DATA,
        protocol=PROTOCOL, details={"count": 40, "patients": 9} | details, **fields,
    )  # fmt: skip


def duplicates(pairs, **fields):
    counts = {f"pairs{kind}": len(pairs) for kind in ("", "_across_splits", "_across_patients")}
    details = counts | {"list": pairs, "tells_of": "the data"}
    return result("near_duplicates", "near_duplicate_share", details, **fields)


def mislabels(listed, **fields):
    details = {"flagged": len(listed), "planted": 2, "list": listed}
    return result("mislabels.planes", "planted_f1", details, **fields)


def read(tmp_path, *results):
    ones = []
    for number, one in enumerate(results):
        folder = tmp_path / str(number)
        one.save(folder)
        ones.append(Evaluated(one, folder, "quickstart / phantom"))
    report = Report(Contents((), tuple(ones)), tmp_path / "figures")
    return Page("".join(data_checks.parts(report))), report


def test_lists_stand_below_their_pictures(tmp_path):
    picture = Picture("pairs", np.zeros((5, 9), np.uint8), "Pairs, numbered.", "Pairs")
    page, report = read(tmp_path, duplicates([PAIR], pictures=[picture]), mislabels([LABEL]))
    assert page.row("1", "a")[2:] == [
        "b", "0.988", "0.900", "fit, test", "not known", "differ: brain plane"
    ]  # fmt: skip
    assert page.row("1", "x<1>")[2:] == ["femur (0.010)", "brain (0.900)", "not known", "fit"]
    assert len(page.sources) == 1
    assert "Pairs, numbered." in page.text
    assert "1 pair among 40 images, 1 across splits" in page.text
    assert "1 of 40 labels are flagged; 2 labels were changed on purpose" in page.text
    assert report.missing == []


def test_an_empty_list_and_a_long_one(tmp_path):
    page, _ = read(tmp_path, duplicates([]), mislabels([LABEL] * 30))
    assert "Near-duplicates: none among 40 images." in page.text
    assert "the first 30 as a table" in page.text


def test_pairs_of_which_no_patient_is_known(tmp_path):
    unknown = duplicates([PAIR])
    unknown.details["pairs_across_patients"] = None
    page, _ = read(tmp_path, unknown)
    assert "1 across splits, no patient is known." in page.text


def test_a_damaged_picture_is_said_and_the_list_is_shown(tmp_path):
    picture = Picture("pairs", np.zeros((5, 9), np.uint8), "Pairs.", "Pairs")
    one = duplicates([PAIR], pictures=[picture])
    one.save(tmp_path / "0")
    (tmp_path / "0/pictures/near_duplicates/pairs.png").write_bytes(b"no")
    report = Report(Contents((), (Evaluated(one, tmp_path / "0", "m / d"),)), tmp_path)
    page = Page("".join(data_checks.parts(report)))
    assert page.row("1", "a")
    assert "Near-duplicates of m / d" in report.missing[0]


def test_findings_of_the_data_are_nothing_to_beat(tmp_path):
    share = Baseline("near_duplicate_share", Estimate(0.5), "by features alone")
    one = dataclasses.replace(duplicates([PAIR]), baselines={"features": share})
    (row,) = headline.rows(Contents((), (Evaluated(one, tmp_path, ""),)))
    assert row.verdict == ("a finding", "unknown")
    assert row.metric.show(row.value) == "10.0 %"
    ids = np.array(["a", "b"])
    predictions = Predictions(ids, ids, np.array(["", ""]), np.array(["b", "a"]))
    models = [
        dataclasses.replace(one, model={"name": name, "fingerprint": name}, predictions=predictions)
        for name in ("first", "second")
    ]
    found = comparisons.compare_all(models)
    assert not found.compared
    assert any("tells of the data" in reason for reason in found.left_out)
