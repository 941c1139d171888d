import dataclasses

from fetalclip_jax.evaluation.result import Baseline, Estimate, Result
from fetalclip_jax.reports import headline, retrieval
from fetalclip_jax.reports.frame import Report
from fetalclip_jax.reports.reading import Contents, Evaluated
from tests.reports.conftest import DATA, MODEL, PROTOCOL, REAL
from tests.reports.pages import Page


def result(**fields):
    values = {"recall_at_1": (0.25, 0.2, 0.31), "median_rank": (3.0, 2.0, 4.5)}
    metrics = {
        f"{way}_{name}": Estimate(*edges, 100, 20)
        for way in ("image_to_text", "text_to_image")
        for name, edges in values.items()
    }
    chance = {"recall_at_1": 0.01, "median_rank": 50.0}
    baselines = {
        f"chance_{name}": Baseline(
            name, Estimate(chance[name.split("_", 3)[3]]), "a list in random order"
        )
        for name in metrics
    }
    details = {"captions": 90, "meanings": 80, "count": 100, "patients": 20}
    return Result(
        "retrieval", metrics, model=MODEL, data=DATA, protocol=PROTOCOL, baselines=baselines,
        details=details, environment={"python": "3"}, **fields,
    )  # fmt: skip


def evaluated(tmp_path, *results):
    return Contents(
        (),
        tuple(Evaluated(one, tmp_path, f"quickstart / {one.data['name']}") for one in results),
    )


def test_recalls_of_both_ways_stand_beside_guesses(tmp_path):
    page = Page("".join(retrieval.parts(Report(evaluated(tmp_path, result()), tmp_path))))
    first, guess, second, _ = page.rows[1:]
    assert page.rows[0] == ["Looked for", "recall at 1", "median rank"]
    assert first == ["captions of an image", "25.0 % (20.0 to 31.0)", "3.0 (2.0 to 4.5)"]
    assert guess == ["guess: a list in random order", "1.0 %", "50.0"]
    assert second[0] == "images of a caption"
    assert "90 captions with 80 meanings" in page.text
    assert "n = 100 images of 20 patients" in page.text


def test_two_data_sets_have_a_table_each(tmp_path):
    results = result(), dataclasses.replace(result(), data=REAL)
    page = Page("".join(retrieval.parts(Report(evaluated(tmp_path, *results), tmp_path))))
    assert page.text.count("captions of an image") == 2
    assert "quickstart / clinic" in page.text
    assert not "".join(retrieval.parts(Report(evaluated(tmp_path), tmp_path)))


def test_a_lower_rank_and_a_higher_recall_are_better(tmp_path):
    rows = headline.rows(evaluated(tmp_path, result()))
    assert {(row.metric.words, row.verdict[0]) for row in rows} == {
        (f"{way} {name}", "better")
        for way in ("image to text", "text to image")
        for name in ("recall at 1", "median rank")
    }
