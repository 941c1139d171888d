"""The section of comparisons: what it says, which pairs, and what is refused."""

import csv
import json

import pytest
from PIL import Image

from fetalclip_jax import reports
from fetalclip_jax.cli import main
from fetalclip_jax.reports import comparison
from tests.evaluation.paired import DATA, PROTOCOL, few_shot, misses, zero_shot
from tests.reports.conftest import age_result, save
from tests.reports.pages import Page, read_page

GOOD = misses(0.15, seed=1)
BAD = GOOD | misses(0.3, seed=2)


def models(*names):
    """Every other model is worse."""
    return [zero_shot(name, (GOOD, BAD)[k % 2]) for k, name in enumerate(names)]


def build(tmp_path, results, **options) -> Page:
    save(results, tmp_path / "results")
    return read_page(reports.build([tmp_path / "results"], tmp_path / "page.html", **options))


def test_two_models_are_compared_without_being_asked(tmp_path):
    said = []
    page = build(tmp_path, [*models("a", "b"), few_shot("a", (0.5, 0.3, 0.1)),
                            few_shot("b", (0.6, 0.5, 0.3))], say=said.append)  # fmt: skip
    row = page.row("Zero-shot view, macro F1", "clinic")
    assert [cell[:4] for cell in row[2:4]] == ["a 0.", "b 0."]
    assert " to +0." in row[4]
    assert row[5:] == ["< 0.001", "120 / 40", "better"]
    assert page.row("a against b", "real")[2:6] == ["2", "0", "0", "0"]
    assert "2 two-sided tests" in page.text
    assert "exclude a difference of 0.02 in rates" in page.text
    assert "Few-shot view: also at chance: 5 support sets (the same for both)." in page.text
    assert (tmp_path / "figures" / "comparison.png").exists()
    assert said[0].startswith("zero_shot.view on clinic, macro F1: a 0.")
    found = json.loads((tmp_path / "comparison.json").read_text())
    assert [one["verdict"] for one in found["comparisons"]] == ["better", "better"]
    rows = list(csv.DictReader((tmp_path / "comparison.csv").open()))
    assert {row["first"] for row in rows} == {"a"}


def test_curves_are_compared_at_a_size_that_is_named(tmp_path):
    results = [few_shot("a", (0.5, 0.3, 0.1))]
    results.append(few_shot("b", (0.6, 0.5, 0.3, 0.2), sizes=(2, 4, 8, 16)))
    page = build(tmp_path, results)
    assert page.row("Few-shot view, macro F1, 8 patients", "clinic")[-1] == "better"
    assert "compared at 8 patients to learn from, the largest number that both have" in page.text
    found = json.loads((tmp_path / "comparison.json").read_text())
    assert found["comparisons"][0]["differences"][0]["patients_to_learn_from"] == 8


def test_the_forest_says_what_the_table_says(tmp_path, monkeypatch):
    drawn = []
    forest = comparison.forest.forest
    monkeypatch.setattr(
        comparison.forest, "forest", lambda *given: drawn.append(given) or forest(*given)
    )
    ages = [age_result(model={"name": n, "fingerprint": f"print of {n}"}) for n in "ab"]
    page = build(tmp_path, [*ages, *(few_shot(n, (0.5, 0.3, 0.1)) for n in "ab")])
    ((rows, names, *_),) = drawn
    assert [name.partition("\n")[0] for name in names] == ["Zero-shot age", "Few-shot view"]
    age, curve = rows.values()
    assert age.words == page.row("Zero-shot age, valid prediction rate")[4]
    assert age.words.endswith(" points")
    assert age.basis.startswith("valid prediction rate; ")
    assert curve.basis.startswith("macro F1, 8 patients; ")


def test_differences_of_percentages_are_points_and_no_shares():
    error = "mean_implied_hc_error_percent"
    assert comparison.change(error, -1.4, -2.0, -0.8) == "-1.4 (-2.0 to -0.8) points"
    assert comparison.change("mae_days", 1.0, None, None) == "+1.0, no interval days"
    assert comparison.change("macro_f1", 0.1, 0.0, 0.2) == "+0.100 (+0.000 to +0.200)"


def test_every_pair_has_a_picture_that_a_phone_can_show(tmp_path):
    page = build(tmp_path, models("a", "b", "c"))
    pictures = [Image.open(path) for path in sorted((tmp_path / "figures").glob("comparison*"))]
    assert len(pictures) == 3
    assert all(picture.width < 640 for picture in pictures)
    assert page.text.count("120 images of 40 patients") >= 1


def test_cells_of_the_tables_say_their_column_where_they_are_stacked(tmp_path):
    build(tmp_path, models("a", "b"))
    source = (tmp_path / "page.html").read_text()
    for column in ("Difference (95 % interval)", "p / Holm&#x27;s p", "First is", "Undecided"):
        assert f'data-label="{column}"' in source


def test_results_that_name_no_model_are_said_to_be_indistinct(tmp_path):
    for k, wrong in enumerate((GOOD, BAD)):
        zero_shot("", wrong, model={}).save(tmp_path / "results" / str(k))
    said = []
    sources = [tmp_path / "results" / str(k) for k in range(2)]
    path = reports.build(sources, tmp_path / "page.html", say=said.append)
    words = "2 results of zero_shot.view on clinic have no name of a model"
    assert words in read_page(path).text
    assert said[0].startswith(f"not compared: {words}")


def test_tables_of_an_earlier_comparison_go(tmp_path):
    build(tmp_path, models("a", "b"))
    save(models("a"), tmp_path / "alone")
    assert (tmp_path / "comparison.csv").exists()
    reports.build([tmp_path / "alone"], tmp_path / "page.html")
    assert not (tmp_path / "comparison.json").exists()
    assert not (tmp_path / "comparison.csv").exists()


def test_one_model_has_no_comparison(tmp_path):
    (tmp_path / "comparison.csv").write_text("mine")
    page = build(tmp_path, models("a"))
    assert (tmp_path / "comparison.csv").read_text() == "mine"
    assert "Tasks in which" not in page.text
    assert not (tmp_path / "comparison.json").exists()


def test_a_margin_that_is_none_is_refused_whatever_there_is_to_compare(tmp_path):
    with pytest.raises(ValueError, match=r"margin must lie between 0 and 1, .* found -0\.1"):
        build(tmp_path, models("a"), margin=-0.1)


def test_the_margin_and_the_pairs_are_those_that_were_asked_for(tmp_path):
    page = build(tmp_path, models("a", "b", "c"), compare=[("c", "a")], margin=0.1)
    assert "exclude a difference of 0.1 in rates" in page.text
    assert page.row("Zero-shot view, macro F1", "clinic")[2].startswith("c 0.")
    assert page.row("Zero-shot view, macro F1", "clinic")[-1] == "equivalent"
    assert not [row for row in page.rows if row[0] == "a against b"]


def test_pairs_of_many_models_have_to_be_named(tmp_path):
    page = build(tmp_path, models(*"abcdef"))
    assert (
        "Comparison of 6 models: more than 5; name pairs by fetalclip report --compare" in page.text
    )
    assert not (tmp_path / "comparison.json").exists()


def test_models_without_anything_in_common_are_said(tmp_path):
    apart = [zero_shot("a", GOOD), zero_shot("b", BAD, data=DATA | {"name": "hospital"})]
    page = build(tmp_path, apart)
    assert "Comparison: a and b have no study and data set in common." in page.text
    with pytest.raises(ValueError, match="nothing can be compared; a and b have no study"):
        build(tmp_path, apart, compare=[("a", "b")])


def test_what_was_not_compared_is_on_the_page(tmp_path):
    results = [
        *models("a", "b"),
        zero_shot("a", GOOD, study="zero_shot.x"),
        zero_shot("b", BAD, study="zero_shot.x", protocol=PROTOCOL | {"name": "paper"}),
    ]
    page = build(tmp_path, results)
    assert "Not compared: a and b cannot be compared in zero_shot.x: protocols" in page.text


def test_a_file_of_the_users_is_not_overwritten(tmp_path):
    mine = tmp_path / "comparison.json"
    mine.write_text('{"mine": 1}')
    with pytest.raises(ValueError, match=r"comparison\.json is not of a report"):
        build(tmp_path, models("a", "b"))
    assert mine.read_text() == '{"mine": 1}'


def test_the_command_compares_and_refuses_in_one_line(tmp_path, capsys):
    save(models("a", "b"), tmp_path / "results")
    command = ["report", str(tmp_path / "results"), "--output", str(tmp_path / "page.html")]
    assert main([*command, "--compare", "b", "a", "--margin", "0.1"]) == 0
    out = capsys.readouterr().out
    assert "b against a: worse in 1" in out
    assert json.loads((tmp_path / "comparison.json").read_text())["margin"] == 0.1
    assert main([*command, "--compare", "b", "nobody"]) == 2
    error = capsys.readouterr().err
    assert error == ("fetalclip report: no model 'nobody' is among the results; there are a, b\n")
    assert main([*command, "--margin", "0"]) == 2
    assert "margin must lie between 0 and 1" in capsys.readouterr().err
