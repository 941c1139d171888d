"""build on a whole run, on subsets, on several models, and on what users get wrong."""

import base64
import dataclasses
import json
import re

import numpy as np
import pytest

from fetalclip_jax import reports
from fetalclip_jax.evaluation import confusions, examples
from fetalclip_jax.evaluation.result import Predictions
from fetalclip_jax.labels import BRAIN_PLANES, PLANES
from fetalclip_jax.reports import images, plots
from tests.evaluation import saved
from tests.reports.conftest import (
    DATA,
    MODEL,
    PROTOCOL,
    REAL,
    STORE,
    ZERO_SHOT_LABELS,
    age_result,
    classification,
    few_shot_result,
    merged_result,
    save,
    save_examples,
)
from tests.reports.pages import Page, read_page

NOTICE = "say nothing about patients"


def build(tmp_path, *results, **options) -> Page:
    """The page about results alone."""
    save(results, tmp_path / "results")
    return read_page(reports.build([tmp_path / "results"], tmp_path / "page.html", **options))


def test_a_whole_run_gives_a_self_contained_page(evaluated):
    path = reports.build([evaluated], evaluated / "report.html")
    text = path.read_text(encoding="utf-8")
    page = Page(text)
    assert path == evaluated / "report.html"
    assert not page.open
    assert len(text) < 3_000_000
    assert "Studies without a result: segmentation, heart defects." in page.text
    assert "Scores: 100 x cosine." in text
    # Nothing is loaded from anywhere: every picture is in the page, and there are no links out.
    assert len(page.sources) == 13
    assert all(s.startswith("data:image/png;base64,") for s in page.sources)
    assert not re.search(r"https?://|<script|<link|url\(", text)
    embedded = {base64.b64decode(s.split(",")[1]) for s in page.sources}
    figures = evaluated / "figures"
    assert embedded == {p.read_bytes() for p in figures.glob("*.png")}
    assert {p.stem for p in figures.iterdir()} == {
        "age",
        "calibration_probe_planes",
        "calibration_zero_shot_brain",
        "calibration_zero_shot_planes",
        "confusion_probe_planes",
        "confusion_zero_shot_brain",
        "confusion_zero_shot_planes",
        "examples_zero_shot_planes",
        "f1_per_class",
        "few_shot_planes",
        "mistakes_zero_shot_planes",
        "subgroups_machine",
        "training",
    }
    found = json.loads((evaluated / "results.json").read_text())
    assert found["zero_shot"]["planes"]["macro_f1"] > 0
    assert (evaluated / "results.csv").read_text().startswith("study,model,data,protocol,")


def test_the_same_run_gives_the_same_files(tmp_path):
    build(tmp_path, few_shot_result())
    first = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    build(tmp_path, few_shot_result())
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == first


def test_the_summary_of_results_alone_lies_beside_the_page(tmp_path):
    build(tmp_path, few_shot_result(), total_seconds=12.5)
    found = json.loads((tmp_path / "results.json").read_text())
    assert found["total"]["seconds"] == 12.5
    assert not list((tmp_path / "results").rglob("results.json"))


def test_the_summary_of_a_run_lies_in_the_run_wherever_the_page_is(workdir, tmp_path):
    reports.build([workdir], tmp_path / "elsewhere" / "page.html")
    assert (workdir / "results.json").exists()
    assert not (tmp_path / "elsewhere" / "results.json").exists()


def test_a_summary_of_more_does_not_replace_that_of_a_run(evaluated, tmp_path):
    save([age_result(data=REAL)], tmp_path / "more")
    with pytest.raises(ValueError, match=r"results\.json there is that of the run"):
        reports.build([evaluated, tmp_path / "more"], evaluated / "report.html")
    assert not (evaluated / "figures").exists()


def test_a_file_of_the_users_is_not_overwritten(tmp_path):
    mine = tmp_path / "results.json"
    for content in ("[1, 2]", '{"mine": 1}', "no json"):
        mine.write_text(content)
        with pytest.raises(ValueError, match=r"results\.json is not of a report"):
            build(tmp_path, age_result())
        assert mine.read_text() == content


@pytest.mark.parametrize("name", ["report", "report.json"])
def test_the_output_must_be_a_page(evaluated, tmp_path, name):
    with pytest.raises(ValueError, match=rf"{name} must be a file that ends in \.html"):
        reports.build([evaluated], tmp_path / name)


def test_the_notice_follows_the_facts_of_the_data_and_not_a_name(tmp_path):
    real = REAL | {"name": "phantom"}
    page = build(tmp_path / "a", few_shot_result(data=real))
    assert "Research use only" in page.text
    assert NOTICE not in page.text
    drawn = DATA | {"name": "clinic"}
    page = build(tmp_path / "b", few_shot_result(data=drawn), age_result(data=real))
    assert f"Simulated images (clinic): these numbers {NOTICE}." in page.text


def test_ages_alone_say_what_is_missing(tmp_path):
    page = build(tmp_path, age_result())
    assert len(page.sources) == 2
    absent = "zero-shot classification, linear probes, data efficiency, segmentation, heart defects"
    assert f"Studies without a result: {absent}." in page.text
    found = json.loads((tmp_path / "results.json").read_text())
    assert found.keys() == {"age", "results", "total", "peak_rss_gib"}


def test_training_alone_makes_a_report(workdir):
    page = read_page(reports.build([workdir], workdir / "report.html"))
    assert len(page.sources) == 1
    assert "1,200" in page.text


def test_training_says_where_its_time_went_and_what_went_wrong(workdir):
    text = read_page(reports.build([workdir], workdir / "report.html")).text
    assert "3 steps were skipped" in text
    assert "The loss jumped 1 time." in text
    assert "93 % of the time went into training steps" in text
    assert "0.8 % was waiting for data" in text
    assert "devices waiting for data" in text
    assert "372.0" in text
    assert "lost with a killed process" not in text  # nothing was
    # A run of an earlier version, which wrote none of it.
    path = workdir / "results" / "train.json"
    path.write_text(json.dumps({"steps": 1200}))
    text = read_page(reports.build([workdir], workdir / "report.html")).text
    assert "skipped" not in text
    assert "Where the time of training went" not in text


def test_a_run_without_losses_says_so(workdir):
    (workdir / "metrics.jsonl").unlink()
    page = read_page(reports.build([workdir], workdir / "report.html"))
    assert "Training curves: no losses in" in page.text


def test_results_without_predictions_or_examples_say_so(tmp_path):
    planes = classification("zero_shot.planes", PLANES, ZERO_SHOT_LABELS)
    page = build(tmp_path, age_result(predictions=None), planes)
    assert "Age chart of quickstart / phantom: no predictions beside" in page.text
    assert "Example images of quickstart / phantom: none were stored." in page.text


def test_ages_without_circumferences_say_so(tmp_path):
    ids = age_result().predictions.example_id
    page = build(tmp_path, age_result(predictions=Predictions(ids, ids, ids, ids)))
    assert "no image has a prediction and hc_mm" in page.text


def test_the_surest_mistakes_are_shown_with_patient_and_group(tmp_path):
    brain = classification("zero_shot.brain", BRAIN_PLANES, accuracy=0.7)
    save([brain], tmp_path / "results")
    rows = [
        dataclasses.replace(row, groups={"US_machine": "Voluson E6"})
        for row in examples.pick(brain.predictions)
    ]
    folder = tmp_path / "results" / "quickstart" / "phantom"
    examples.save(folder, brain.study, rows, [np.zeros((8, 8), np.uint8)] * len(rows))
    page = read_page(reports.build([tmp_path / "results"], tmp_path / "page.html"))
    found = brain.predictions
    wrong = (found.label != found.prediction).sum()
    assert f"Zero-shot brain planes: the surest of {wrong} wrong answers." in page.text
    best = examples.surest_mistakes(found, 1)[0]
    assert page.row(best.example_id, best.label, best.prediction)[3:] == [
        f"{best.margin:.3f}",
        best.patient_id,
        "US machine Voluson E6",
    ]
    # Those picked by a hash stay apart.
    stored = {row.example_id for row in rows}
    shown = [row[0] for row in page.rows if row[0] in stored and len(row) == 4]
    assert shown == [row.example_id for row in rows if not row.surest]


def test_examples_of_an_earlier_version_are_shown_and_their_lack_of_mistakes_is_said(tmp_path):
    brain = classification("zero_shot.brain", BRAIN_PLANES, accuracy=0.7)
    save([brain], tmp_path / "results")
    rows = [row for row in examples.pick(brain.predictions) if not row.surest]
    folder = tmp_path / "results" / "quickstart" / "phantom"
    path = examples.save(folder, brain.study, rows, [np.zeros((8, 8), np.uint8)] * len(rows))
    index = json.loads(path.read_text())
    for entry in index["examples"]:
        for name in ("margin", "surest", "patient_id", "groups"):
            del entry[name]
    path.write_text(json.dumps(index))
    page = read_page(reports.build([tmp_path / "results"], tmp_path / "page.html"))
    assert "evaluate again to see them: Zero-shot brain planes of quickstart" in page.text
    assert "A hash of the image id picks the images" in page.text


def test_what_is_mistaken_for_what_is_shown_pair_by_pair(tmp_path):
    brain = classification("zero_shot.brain", BRAIN_PLANES, accuracy=0.6)
    save([brain], tmp_path / "results")
    found, folder = brain.predictions, tmp_path / "results" / "quickstart" / "phantom"
    judged = saved.source(found.example_id.tolist())
    drawn = saved.source(["d0"], {"brain_plane": np.array([BRAIN_PLANES[0]])})
    confusions.keep(folder, brain.study, found, judged, ("simulated", drawn, "brain_plane"))
    pairs = confusions.pairs(found)
    assert len(pairs) > 2
    page = read_page(reports.build([tmp_path / "results"], tmp_path / "page.html"))
    for label, prediction, count in pairs:
        total = (found.label == label).sum()
        assert f"{count} of {total} images of {label} are taken for {prediction}." in page.text
    assert len(list((tmp_path / "figures").glob("confusion_zero_shot_brain_*.png"))) == len(pairs)
    assert "Images of simulated are not judged here; a hash picks them." in page.text
    (folder / "confusions" / brain.study / "confusions.json").write_text("{}")
    page = read_page(reports.build([tmp_path / "results"], tmp_path / "page.html"))
    assert "confusions.json cannot be used" in page.text


def test_a_model_without_mistakes_lacks_none(tmp_path):
    brain = classification("zero_shot.brain", BRAIN_PLANES, accuracy=1.0)
    save([brain], tmp_path / "results")
    save_examples(brain, tmp_path / "results")
    page = read_page(reports.build([tmp_path / "results"], tmp_path / "page.html"))
    assert "mistakes" not in page.text.lower()


def test_every_figure_says_what_it_stands_for(evaluated):
    text = reports.build([evaluated], evaluated / "report.html").read_text()
    captions = re.findall(r"<figcaption>(.*?)</figcaption>", text)
    training, *figures = captions
    assert "Validation loss" in training
    assert len(figures) == 12
    alts = re.findall(r'<img [^>]*alt="(.*?)"', text)[1:]
    for alt, caption in zip(alts, figures, strict=True):
        assert "images of" in caption
        assert "patients" in caption
        assert "split &#x27;test&#x27; of phantom (simulated)" in caption
        assert re.search(r"protocol (default|tuned)", caption)
        without = alt.startswith(("F1 of", "Worst", "Example"))
        assert ("95 % interval: bootstrap over" in caption) != without


def test_where_intervals_cover_less_is_said_on_the_page(tmp_path):
    by_image = PROTOCOL | {"resample_by": "image"}
    page = build(tmp_path / "a", classification("zero_shot.brain", BRAIN_PLANES, protocol=by_image))
    assert "Where intervals hold the truth less often than they say:" in page.text
    assert "Zero-shot brain planes: intervals redraw single images, 120 of 20" in page.text
    page = build(tmp_path / "b", classification("zero_shot.brain", BRAIN_PLANES))
    assert "hold the truth less often" not in page.text


def test_many_galleries_open_on_demand(tmp_path, monkeypatch):
    monkeypatch.setattr(images, "_MOST_OPEN", 1)
    models = [MODEL | {"name": name} for name in "ab"]
    results = [classification("zero_shot.brain", BRAIN_PLANES, model=one) for one in models]
    save(results, tmp_path / "results")
    for one in results:
        save_examples(one, tmp_path / "results")
    text = reports.build([tmp_path / "results"], tmp_path / "page.html").read_text()
    galleries = text[text.index('id="example-images"') :]
    assert galleries.index("<details>") < galleries.index("<img")
    assert "Zero-shot brain planes: 2 of them" in galleries


def test_damaged_examples_are_said_and_the_rest_is_shown(tmp_path):
    brain = classification("zero_shot.brain", BRAIN_PLANES)
    save([brain], tmp_path / "results")
    save_examples(brain, tmp_path / "results")
    next((tmp_path / "results").rglob("3.png")).unlink()
    page = read_page(reports.build([tmp_path / "results"], tmp_path / "page.html"))
    assert "examples.json cannot be used" in page.text
    assert len(page.sources) == 4


def test_where_ages_come_from_decides_their_name(tmp_path):
    implied = age_result(data=REAL | {"ages_from": "head circumference"})
    assert "WHO median at the true size" in build(tmp_path / "a", implied).text
    recorded = age_result(data=REAL | {"ages_from": "recorded"})
    assert "WHO median at the true size" not in build(tmp_path / "b", recorded).text


def test_a_table_of_classes_is_shown_as_it_is(tmp_path):
    page = build(tmp_path, merged_result())
    assert page.sources == []
    assert page.row("brain") == ["brain", "planes", "0.912", "0.500", "12"]
    assert page.row("macro F1", "0.756", "0.700 to 0.800")


def test_classes_without_images_are_distractors_in_zero_shot_alone(tmp_path):
    classes = ("brain", "femur", "cervix")
    zero_shot = classification("zero_shot.planes", classes, classes[:2])
    probe = classification("probe.planes", classes, classes[:2])
    page = build(tmp_path, zero_shot, probe)
    assert "Candidates without any image, offered as distractors: cervix." in page.text
    assert "Classes without any image: cervix." in page.text


def test_curves_and_baselines_show_no_examples(tmp_path):
    raw = classification("probe.raw_pixels", BRAIN_PLANES)
    curve = few_shot_result(predictions=raw.predictions)
    save([raw, curve], tmp_path / "results")
    for result in (raw, curve):
        save_examples(result, tmp_path / "results")
    page = read_page(reports.build([tmp_path / "results"], tmp_path / "page.html"))
    assert "Example images" not in page.text


def test_several_models_and_data_sets_keep_apart(tmp_path):
    other = MODEL | {"name": "../other model"}
    ours = classification("zero_shot.brain", BRAIN_PLANES)
    theirs = classification("zero_shot.brain", BRAIN_PLANES, accuracy=0.4, model=other, data=REAL)
    theirs.save(tmp_path / "results" / "theirs")
    page = build(tmp_path, ours)
    assert page.row("../other model / clinic", "macro F1")
    assert page.row("quickstart / phantom", "macro F1")
    assert {p.name for p in (tmp_path / "figures").iterdir()} == {
        "calibration_zero_shot_brain_clinic.png",
        "calibration_zero_shot_brain_phantom.png",
        "confusion_zero_shot_brain_other_model_clinic.png",
        "confusion_zero_shot_brain_quickstart_phantom.png",
        "f1_per_class_other_model_clinic.png",
        "f1_per_class_quickstart_phantom.png",
        "subgroups_machine_clinic.png",
        "subgroups_machine_phantom.png",
    }
    assert len(page.sources) == 8


def test_what_was_left_out_is_told_once_with_its_reason(tmp_path, workdir):
    part = STORE | {"missing_files": 11074}
    stores = {"images": part, "train": part | {"split": "train"}}
    bad = {f"x{k}": "truncated" for k in range(3)} | {"y": "not an image"}
    absent = "11074 of the 12400 images it lists are not there"
    data = REAL | {"stores": stores, "left_out": bad, "notes": [absent]}
    missing = "images of the_task that the data lacks, such as '003_2HC'"
    reasons = {"3 of 5 support sets lack a patient": 3, missing: 1}
    lacking = {"lacking": reasons, "notes": ["a remark"]}
    results = [age_result(data=data), few_shot_result(data=data, details=lacking)]
    # A second model on the same data says the same of them.
    save([*results, age_result(data=data, model=MODEL | {"name": "b"})], tmp_path / "results")
    folder = workdir / "records" / "train"
    folder.mkdir(parents=True)
    (folder / "bad_examples.csv").write_text("example_id,reason\nx7,truncated\n")
    sources = [workdir, tmp_path / "results"]
    page = read_page(reports.build(sources, tmp_path / "page.html"))
    tasks = "Zero-shot age, Few-shot planes"
    assert [row for row in page.rows if row[0] == "clinic"] == [
        ["clinic", absent, "", tasks],
        ["clinic", "truncated (x0, ...)", "3", tasks],
        ["clinic", "not an image (y)", "1", tasks],
    ]
    own = "quickstart / clinic"
    assert page.row(own, "images not judged: without hc mm")[2:] == ["3", "Zero-shot age"]
    assert page.row(own, "3 of 5 support sets lack a patient")[2:] == ["3", "Few-shot planes"]
    quoted = "images of the task that the data lacks, such as '003_2HC'"
    assert page.row(own, quoted)[2:] == ["1", "Few-shot planes"]
    assert page.row(own, "a remark")[2:] == ["", "Few-shot planes"]
    assert not any("without spacing" in row[1] for row in page.rows if row[0] == own)
    assert page.row("x7") == ["x7", "truncated"]


def test_protocols_are_told_in_words(tmp_path):
    paper = PROTOCOL | {"name": "paper", "resample_by": "image", "splits": "official", "copies": 5}
    stores = {
        "fit": STORE | {"split": "train", "copies": 5, "transform": "opencv"},
        "test": STORE,
    }
    page = build(tmp_path, age_result(protocol=paper, data=REAL | {"stores": stores}))
    words, settings = next(r[2:] for r in page.rows if r[2:] and r[2].startswith("Protocol: "))
    assert words == (
        "Protocol: paper. 80 images judged. fit: 400 images of 67 patients in split 'train', "
        "5 augmented copies of each, shrunk as opencv does. test: 400 images of 67 patients in "
        "split 'test'. Intervals redraw 14 images in 1,000 resamples. Seed of all draws: 0."
    )
    assert settings == "splits official; copies 5"


def test_names_from_data_cannot_write_html(tmp_path, workdir):
    bad = "<script>alert('x')</script> $\\frac"
    (workdir / "config.json").write_text(json.dumps({"name": bad, "data": {"source": bad}}))
    result = classification(
        "zero_shot.view",
        (bad, "plain"),
        model=MODEL | {"name": bad},
        data=REAL | {"name": bad, "left_out": {bad: bad}},
        protocol=PROTOCOL | {bad: bad},
    )
    folder = workdir / "results" / "x"
    result.save(folder)
    rows = examples.choose(result.predictions, 2, True)
    assert bad in [row.label for row in rows]
    examples.save(folder, "zero_shot.view", rows, [np.zeros((8, 8), np.uint8)] * len(rows))
    text = reports.build([workdir], workdir / "report.html").read_text(encoding="utf-8")
    assert "<script" not in text
    assert "&lt;script&gt;" in text


def test_a_run_beside_other_models_is_named_with_its_training(evaluated, tmp_path):
    alone = read_page(reports.build([evaluated], tmp_path / "a" / "page.html")).text
    assert "FetalCLIP run report: quickstart" in alone
    assert "Training steps1,200" in alone
    save([age_result(model=MODEL | {"name": "rival"})], tmp_path / "more")
    sources = [evaluated, tmp_path / "more"]
    page = read_page(reports.build(sources, tmp_path / "b" / "page.html")).text
    assert "FetalCLIP report: quickstart, rival" in page
    assert "Training steps of quickstart1,200" in page
    assert "Parameters of quickstart" in page
    # Judged in the folder of the run, another model is none of its.
    save([age_result(model=MODEL | {"name": "rival"})], evaluated / "results")
    page = read_page(reports.build([evaluated], tmp_path / "c" / "page.html")).text
    assert "FetalCLIP report: quickstart, rival" in page


def test_confusions_of_several_models_say_whose_they_are(tmp_path, monkeypatch):
    titles, draw = [], plots.confusion_matrix

    def drawn(counts, labels, classes, title, **options):
        titles.append(title)
        return draw(counts, labels, classes, title, **options)

    monkeypatch.setattr(plots, "confusion_matrix", drawn)
    brain = classification("zero_shot.brain", BRAIN_PLANES)
    build(tmp_path, brain)
    build(tmp_path, dataclasses.replace(brain, model=MODEL | {"name": "rival"}))
    title = "Zero-shot brain planes"
    assert titles == [title, f"{title}\nquickstart / phantom", f"{title}\nrival / phantom"]


def test_the_head_says_what_the_intervals_are(tmp_path):
    made = {"environment": {"python": "3.11"}}
    page = build(tmp_path / "a", classification("zero_shot.brain", BRAIN_PLANES, **made))
    assert "Intervals by Student's t are on the logit scale for rates" in page.text
    # Those of earlier versions are not.
    page = build(tmp_path / "b", classification("zero_shot.brain", BRAIN_PLANES))
    assert "Student's t" not in page.text
