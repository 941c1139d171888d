"""Anyone's predictions, scored."""

import json

import pytest

from fetalclip_jax.evaluation import scoring, terminal
from fetalclip_jax.evaluation.result import Result

ROWS = [
    {"example_id": "a", "patient_id": "p", "label": "brain", "prediction": "brain"},
    {"example_id": "b", "patient_id": "p", "label": "femur", "prediction": "brain"},
    {"example_id": "c", "patient_id": "q", "label": "femur", "prediction": "femur"},
    {"example_id": "d", "patient_id": "r", "label": "femur", "prediction": "kidney"},
]


@pytest.fixture
def write(tmp_path):
    def write(rows, name="predictions.json"):
        path = tmp_path / name
        if name.endswith(".json"):
            path.write_text(json.dumps(rows))
        else:
            lines = [";".join(rows[0]), *(";".join(map(str, row.values())) for row in rows)]
            path.write_text("\n".join(lines))
        return path

    return write


@pytest.mark.parametrize("name", ["predictions.json", "predictions.csv"])
def test_classes(write, name):
    result = scoring.score(write(ROWS, name), resamples=50)
    metrics = result.metrics
    # brain: one of two right answers; femur: precision 1, recall 1/3; kidney is only predicted.
    assert metrics["macro_f1"].value == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert metrics["accuracy"].value == 0.5
    assert metrics["balanced_accuracy"].value == pytest.approx((1 + 1 / 3) / 2)
    assert metrics["accuracy"].groups == 3
    assert "top2_accuracy" not in metrics
    text = terminal.lines(result)
    assert text.startswith("classification: macro F1 0.583 [")
    assert "of 3 patients" in text
    assert result.details["labels"] == ["brain", "femur"]
    assert result.environment["packages"]
    matrix = [line.split() for line in text.splitlines() if line.split()[0] == "femur"]
    assert matrix == [["femur", "1", "1", "1"]]


def test_scores_give_top_k(write):
    scored = [
        {**row, "score.brain": brain, "score.femur": femur, "score.kidney": kidney}
        for row, (brain, femur, kidney) in zip(
            ROWS, [(3, 2, 1), (3, 2, 1), (1, 3, 2), (1, 2, 3)], strict=True
        )
    ]
    result = scoring.score(write(scored), resamples=50)
    assert result.metrics["top2_accuracy"].value == 1.0
    # The right answer is always among all three.
    assert "top3_accuracy" not in result.metrics
    scored[2]["score.kidney"] = 9
    with pytest.raises(ValueError, match=r"1 predictions are not the class.*first c"):
        scoring.score(write(scored))


def test_ages(write):
    rows = [
        {"prediction": 140, "hc_mm": 173.4, "label": ""},  # 20 weeks: the median
        {"prediction": 140, "hc_mm": 300.0, "label": ""},
        {"prediction": 100, "hc_mm": 60.0, "label": ""},  # not judged
    ]
    result = scoring.score(write(rows), resamples=50)
    estimate = result.metrics["valid_prediction_rate"]
    assert (estimate.value, estimate.n) == (0.5, 2)
    assert result.details["left_out"] == {"hc_mm_out_of_range": 1}
    assert result.environment["packages"]  # tells its intervals from those of earlier versions


def test_a_point_without_an_interval_is_shown():
    curve = [{"patients": 2, "mean": 0.5, "low": None, "high": None}]
    assert terminal.lines(Result("few_shot.planes", {}, curve=curve)).endswith("2 patients: 0.500")


def test_ids_that_a_reason_quotes_are_shown_as_they_are():
    lacking = {"of_the f1: images, such as '003_f1'": 2}
    text = terminal.lines(Result("few_shot.planes", {}, details={"lacking": lacking}))
    assert text.endswith("lacking: of the F1: images, such as '003_f1': 2")


def test_one_patient_has_no_interval(write):
    result = scoring.score(write([row | {"patient_id": "p"} for row in ROWS]))
    assert result.metrics["accuracy"].low is None
    assert "accuracy 0.500\n" in terminal.lines(result)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "holds no prediction"),
        ({"a": 1}, "expected a list of objects"),
        ([{"label": "x"}], "the fields are label; needed are prediction and label"),
        ([{"label": "", "prediction": "x"}], "row 1 has no label"),
        ([ROWS[0], ROWS[0]], "example_id 'a' occurs twice"),
        ([{"prediction": "soon", "hc_mm": 170}], "prediction of row 1 is 'soon', not a finite"),
        ([{"prediction": 140, "hc_mm": "nan"}], "hc_mm of row 1 is 'nan', not a finite"),
    ],
)
def test_files_of_another_kind_are_named(write, rows, message):
    with pytest.raises(ValueError, match=rf"predictions\.json.*{message}"):
        scoring.score(write(rows))
