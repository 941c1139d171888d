"""tables/: the same figures as CSV and as LaTeX that compiles."""

import csv
import re

import pytest

from fetalclip_jax import reports
from fetalclip_jax.labels import PLANES
from fetalclip_jax.reports import tables
from tests.reports.conftest import (
    MODEL,
    PROTOCOL,
    REAL,
    ZERO_SHOT_LABELS,
    age_result,
    classification,
    few_shot_result,
    save,
)


def assert_compiles(text: str):
    """What can be checked without TeX: braces, environments, cells of each row, bare signs."""
    bare = re.sub(r"\\[&%$#_{}\\]", "", re.sub(r"(?<!\\)%.*", "", text))
    assert bare.count("{") == bare.count("}")
    begun, ended = (re.findall(rf"\\{word}{{(\w+)}}", text) for word in ("begin", "end"))
    assert begun == ended[::-1] == ["table", "tabular"]
    columns = len(re.search(r"begin{tabular}{(l+)}", text)[1])
    body = text[text.index(r"\toprule") : text.index(r"\bottomrule")]
    rows = [line for line in body.splitlines() if line.endswith(r"\\")]
    for row in rows:
        if r"\multicolumn" not in row:
            assert len(re.findall(r"(?<!\\)&", row)) == columns - 1
    caption = re.search(r"\\caption{(.*)}\n", text)[1]
    for words in (caption, *rows):
        assert not re.search(r"(?<!\\)[#$_^~]", words)


def build(tmp_path, *results):
    save(results, tmp_path / "results")
    reports.build([tmp_path / "results"], tmp_path / "page.html")
    return tmp_path / "tables"


def read(path):
    with path.open(newline="") as file:
        return list(csv.reader(file))


def planes(**fields):
    return classification("zero_shot.planes", PLANES, ZERO_SHOT_LABELS, **fields)


def test_every_sign_that_tex_reads_is_escaped():
    assert tables.escape("50 % & f_1 {x} #2 $") == r"50 \% \& f\_1 \{x\} \#2 \$"
    assert tables.escape(r"a\b~c^d<e>") == (
        r"a\textbackslash{}b\textasciitilde{}c\textasciicircum{}d\textless{}e\textgreater{}"
    )
    assert tables.escape("two\n  lines") == "two lines"


def test_names_from_data_do_not_break_a_table(tmp_path):
    bad = MODEL | {"name": r"50%_of{our}\input & $x$ #1~^"}
    folder = build(tmp_path, planes(model=bad), age_result(model=bad))
    for path in folder.glob("*.tex"):
        assert_compiles(path.read_text())
    assert read(folder / "headline.csv")[1][1] == bad["name"]


def test_the_headline_has_value_interval_n_patients_and_baseline(tmp_path):
    ours = planes()
    folder = build(tmp_path, ours, few_shot_result())
    head, first, *_ = rows = read(folder / "headline.csv")
    found = dict(zip(head, first, strict=True))
    estimate = ours.metrics["macro_f1"]
    assert found == {
        "Task": "Zero-shot planes",
        "Model": "quickstart",
        "Data": "phantom",
        "Split": "test",
        "Protocol": "default",
        "Metric": "macro F1",
        "Value": f"{estimate.value:.3f}",
        "95 % interval": f"{estimate.low:.3f} to {estimate.high:.3f}",
        "Images": "120",
        "Patients": "20",
        "Baseline": "0.111",
        "What it is": "chance",
    }
    assert [row[5] for row in rows[2:]] == ["macro F1, 2 patients", "macro F1, 16 patients"]
    text = (folder / "headline.tex").read_text()
    assert_compiles(text)
    assert r"\multicolumn{10}{l}{\textbf{Few-shot planes}} \\" in text
    assert f"{estimate.value:.3f} ({estimate.low:.3f} to {estimate.high:.3f}) & 120 & 20" in text
    assert "these numbers say nothing about patients" in text
    assert "bootstrap over support sets and patients" in text


def test_each_study_has_all_its_metrics_and_its_curve(tmp_path):
    folder = build(tmp_path, planes(data=REAL), few_shot_result(), age_result())
    metrics = [row[4] for row in read(folder / "zero_shot_planes.csv")]
    assert metrics == ["Metric", "macro F1", "accuracy"]
    text = (folder / "zero_shot_planes.tex").read_text()
    assert "nothing about patients" not in text
    # Accuracy has no interval, and none is made up.
    assert re.search(r"accuracy & 0\.\d{3} & 120 & 20 \\\\", text)
    curve = [row[4] for row in read(folder / "few_shot_planes.csv")]
    # A row without a size would repeat the last one.
    assert curve[1:] == [f"macro F1, {n} patients" for n in (2, 4, 8, 16)]
    assert "38." not in (folder / "age.csv").read_text()  # baselines are the headline's


def test_published_numbers_are_labelled(tmp_path):
    paper = PROTOCOL | {"name": "paper"}
    folder = build(tmp_path, planes(data=REAL, protocol=paper))
    text = (folder / "published.tex").read_text()
    assert_compiles(text)
    assert r"FetalCLIP, published & 97.27 \% \\" in text
    assert "were not measured here" in text
    assert not (build(tmp_path / "b", planes()) / "published.tex").exists()


def test_tables_of_an_earlier_report_go_and_those_of_the_user_stay(tmp_path):
    folder = build(tmp_path, age_result(), few_shot_result())
    (folder / "mine.tex").write_text("% my own")
    (folder / "mine.csv").write_text("a,b")
    (tmp_path / "results" / "quickstart" / "phantom" / "age.json").unlink()
    reports.build([tmp_path / "results"], tmp_path / "page.html")
    assert {path.name for path in folder.iterdir()} == {
        *("few_shot_planes.csv", "few_shot_planes.tex", "headline.csv", "headline.tex"),
        *("mine.csv", "mine.tex"),
    }


@pytest.mark.parametrize("task", [True, False])
def test_rows_stay_under_their_columns(task):
    head = ["Task"] * task + ["Metric", "Value", "95 % interval", "Images"]
    rows = [["A"] * task + ["m", "1", "0 to 2", "5"], ["B"] * task + ["m", "1", "none", "5"]]
    text = tables.latex([head, *rows], "c", "tab:x")
    assert_compiles(text)
    assert "m & 1 (0 to 2) & 5" in text
    assert "m & 1 & 5" in text
    assert text.count(r"\multicolumn") == 2 * task
