"""Subgroups, calibration and abstention on the page, in reliability.json and on the terminal."""

import csv
import dataclasses
import json

import numpy as np
import pytest

from fetalclip_jax import cli, reports
from fetalclip_jax.labels import BRAIN_PLANES, PLANES
from fetalclip_jax.reports import reading, reliability
from tests.reports.conftest import (
    MODEL,
    PROTOCOL,
    REAL,
    age_result,
    classification,
    few_shot_result,
    merged_result,
    save,
)
from tests.reports.pages import read_page

FEW = PROTOCOL | {"resamples": 50}


def brain(**fields):
    return classification("zero_shot.brain", BRAIN_PLANES, protocol=FEW, **fields)


def grouped(result, **groups):
    """The result with other group columns."""
    count = len(result.predictions.example_id)
    columns = {name: np.resize(np.repeat(values, 6), count) for name, values in groups.items()}
    return dataclasses.replace(
        result, predictions=dataclasses.replace(result.predictions, groups=columns)
    )


def analyse(tmp_path, *results, columns=()):
    return reliability.analyse(reading.read([save(results, tmp_path / "results")]), columns)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A page about two machines, of which one is better at brains, and what was said."""
    folder = tmp_path_factory.mktemp("built")
    one = brain(accuracy=1.0)
    found = one.predictions
    wrong = np.roll(np.array(BRAIN_PLANES), 1)
    answers = {name: other for name, other in zip(BRAIN_PLANES, wrong, strict=True)}
    own = found.groups["machine"] == "B"
    prediction = np.where(own, [answers[name] for name in found.label.tolist()], found.label)
    scores = np.where(prediction[:, None] == np.array(BRAIN_PLANES), 30.0, 20.0)
    one = dataclasses.replace(
        one, predictions=dataclasses.replace(found, prediction=prediction, scores=scores)
    )
    said = []
    save([one, age_result(protocol=FEW)], folder / "results")
    page = reports.build([folder / "results"], folder / "page.html", say=said.append)
    return folder, read_page(page), said


def test_the_largest_gap_is_said_with_its_verdict(built):
    _, page, said = built
    row = page.row("Zero-shot brain planes", "quickstart / phantom", "machine")
    assert row[3].startswith("macro F1: A ahead of B by 1.000 (")
    assert row[4] == "beyond chance"
    assert said[0].startswith("Largest gap beyond chance: zero_shot.brain of quickstart / phantom")
    assert "A ahead of B by 1.000" in said[0]
    assert page.row("Zero-shot brain planes", "quickstart / phantom", "machine", "B")[4:7] == [
        "macro F1",
        "0.000",
        "0.000 to 0.308",  # of ten patients each wrong: no zero width
    ]


def test_calibration_is_said_before_and_after(built):
    _, page, said = built
    before = page.row("Zero-shot brain planes", "quickstart / phantom", "as the model says")
    # Every answer has 2 logits more than the two others, e^2 / (e^2 + 2), and half are right.
    assert before[3] == "0.287"
    assert before[-2:] == ["120", "20"]
    after = next(r for r in page.rows if len(r) > 2 and r[2].startswith("temperature"))
    assert float(after[3]) <= float(before[3])
    sets = page.row("Zero-shot brain planes", "quickstart / phantom", "90 %")
    assert sets[3].endswith(")")
    assert said[1].startswith("Expected calibration error, the largest of 1: ")
    assert len(said) == 2


def test_the_same_figures_lie_beside_the_page(built):
    folder, _, _ = built
    found = json.loads((folder / "reliability.json").read_text())
    assert found.keys() == {"subgroups", "calibration", "left_out"}
    splits = {(one["study"], one["column"]): one for one in found["subgroups"]}
    assert set(splits) == {("zero_shot.brain", "machine"), ("age", "machine")}
    split = splits["zero_shot.brain", "machine"]
    assert split["largest"]["macro_f1"]["value"] == 1
    assert [group["patients"] for group in split["groups"]] == [10, 10]
    assert [one["study"] for one in found["calibration"]] == ["zero_shot.brain"]
    rows = list(csv.DictReader((folder / "reliability_subgroups.csv").open()))
    accuracies = {r["subgroup"]: r["value"] for r in rows if r["metric"] == "accuracy"}
    assert accuracies == {"A": "1.0", "B": "0.0"}
    rows = list(csv.DictReader((folder / "reliability_calibration.csv").open()))
    names = {(r["probabilities"], r["measure"]) for r in rows}
    assert ("as scored", "Brier score") in names
    assert ("at the temperature", "90% sets: coverage of machine A") in names


def test_chosen_columns_alone_split_results(tmp_path):
    one = grouped(brain(), machine=["A", "B"], operator=["x", "y", "z"])
    found = analyse(tmp_path, one, columns=["operator"])
    assert [split.found.column for split in found.splits] == ["operator"]
    both = analyse(tmp_path, one)
    assert {split.found.column for split in both.splits} == {"machine", "operator"}


def test_a_column_that_only_some_results_have_is_said(tmp_path):
    other = grouped(age_result(protocol=FEW), operator=["x", "y"])
    found = analyse(tmp_path, brain(), other, columns=["machine"])
    assert [split.found.study for split in found.splits] == ["zero_shot.brain"]
    assert "age of quickstart on phantom has no group column 'machine'" in " ".join(found.left_out)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (["machine", "centre"], "no group column 'centre'; there are machine"),
        (["single"], "'single' is 'S' wherever it is known"),
        (["data set"], "need one study of one model on two data sets"),
    ],
)
def test_a_column_by_which_nothing_can_be_split(tmp_path, columns, message):
    one = grouped(brain(), machine=["A", "B"], single=["S"])
    if "centre" in columns:
        one = grouped(brain(), machine=["A", "B"])
    with pytest.raises(ValueError, match=message):
        analyse(tmp_path, one, columns=columns)


def test_results_from_before_groups_were_kept_are_said_once(tmp_path):
    results = [grouped(brain()), grouped(age_result(protocol=FEW)), few_shot_result()]
    found = analyse(tmp_path, *results)
    assert found.splits == ()
    assert [line for line in found.left_out if "Subgroups" in line] == [
        "Subgroups: no group columns are kept with zero_shot.brain of quickstart / phantom, age of "
        "quickstart / phantom; if the data set has any, evaluate again."
    ]


def test_results_without_probabilities_are_said(tmp_path):
    found = brain().predictions
    extra = {"brain_label": found.label, "brain_prediction": found.prediction}
    bare = dataclasses.replace(found, scores=None, extra=extra)
    found = analyse(tmp_path, merged_result(predictions=bare, protocol=FEW))
    assert any("zero_shot.merged" in line and "no scores" in line for line in found.left_out)


def test_data_sets_stand_beside_one_another(tmp_path):
    results = [brain(), brain(accuracy=0.4, data=REAL), brain(data=REAL | {"name": "far"})]
    save(results, tmp_path / "results")
    page = read_page(reports.build([tmp_path / "results"], tmp_path / "page.html"))
    assert (tmp_path / "figures" / "subgroups_data_set.png").exists()
    row = page.row("Zero-shot brain planes", "quickstart", "data set")
    assert "far ahead of clinic by" in row[3]  # the two real ones; the phantom is not compared
    assert "simulated images are not compared with real ones" in page.text


def test_models_share_a_figure(tmp_path):
    other = MODEL | {"name": "other", "fingerprint": "beef"}
    save([brain(), brain(model=other, accuracy=0.4)], tmp_path / "results")
    reports.build([tmp_path / "results"], tmp_path / "page.html")
    names = {path.name for path in (tmp_path / "figures").iterdir()}
    assert {"subgroups_machine.png", "calibration_zero_shot_brain.png"} <= names
    assert not [n for n in names if n.startswith(("subgroups", "calibration")) and "other" in n]


def test_no_gap_is_said_to_be_none(tmp_path):
    found = analyse(tmp_path, brain(accuracy=1.0))
    assert reliability.lines(found)[0].startswith("No gap beyond chance between subgroups")


def test_the_command_takes_columns_and_says_what_is_wrong_with_them(tmp_path, capsys):
    folder = save([brain()], tmp_path / "results")
    given = ["report", str(folder), "--output", str(tmp_path / "page.html"), "--subgroup"]
    assert cli.main([*given, "machine"]) == 0
    assert "between subgroups; the largest: zero_shot.brain" in capsys.readouterr().out
    assert cli.main([*given, "centre"]) == 2
    assert "no group column 'centre'; there are machine" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["results", "comparison", "curves", "reliability"])
def test_a_file_of_the_users_is_not_overwritten(tmp_path, name):
    folder = save([brain()], tmp_path / "results")
    (tmp_path / f"{name}.json").write_text('{"mine": 1}')
    with pytest.raises(ValueError, match=rf"{name}\.json is not of a report"):
        reports.build([folder], tmp_path / "page.html")
    assert (tmp_path / f"{name}.json").read_text() == '{"mine": 1}'
    assert not (tmp_path / "figures").exists()


def test_a_column_that_is_named_twice_splits_once(tmp_path):
    one = grouped(brain(), machine=["A", "B"])
    assert len(analyse(tmp_path, one, columns=("machine", "machine")).splits) == 1


def test_constant_columns_and_columns_of_unknowns_are_said(tmp_path):
    one = grouped(brain(), machine=["Aloka", "Aloka"], centre=["unknown", "X", "", "Y"])
    found = analyse(tmp_path, one)
    assert any("machine is 'Aloka' alone in zero_shot.brain of" in line for line in found.left_out)
    (split,) = found.splits
    # What the data set calls unknown and what it leaves empty are one group.
    names = [group.name for group in split.found.groups]
    assert sorted(names) == ["X", "Y", "unknown"]


def test_the_largest_calibration_error_is_the_largest(tmp_path):
    found = analyse(tmp_path, brain(), classification("zero_shot.planes", PLANES, protocol=FEW))
    worst = max(c.before.expected_error for _, c in found.calibrations)
    (line,) = [line for line in reliability.lines(found) if "calibration error" in line]
    assert f"the largest of 2: {worst:.3f} (by chance alone" in line
