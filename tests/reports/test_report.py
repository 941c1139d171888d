"""build_report on a whole run, on partial runs, and on what users get wrong."""

import base64
import html.parser
import json
import re
import shutil

import pytest

from fetalclip_jax.data import records
from fetalclip_jax.reports import tables
from fetalclip_jax.reports.html import build_report
from fetalclip_jax.reports.run import load_run
from fetalclip_jax.reports.summary import summarise

PHANTOM_NOTICE = "Phantom images are simulated; these numbers say nothing about patients."
PNG_START = b"\x89PNG\r\n\x1a\n"


class Page(html.parser.HTMLParser):
    """Table cells, picture sources and whether every tag is closed."""

    def __init__(self, text: str):
        super().__init__()
        self.rows, self.sources, self.open, self.text = [], [], [], ""
        self._cell = None
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        if tag in ("meta", "img"):
            self.sources += [v for k, v in attrs if k == "src"]
            return
        self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("th", "td"):
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data
        if {"th", "td"} & set(self.open):
            self.rows[-1][-1] += data

    def row(self, task: str, metric: str = "") -> list[str]:
        return next(r for r in self.rows if r and r[0] == task and metric in r[1])


def read(path) -> Page:
    return Page(path.read_text(encoding="utf-8"))


def headline(workdir) -> Page:
    return Page(tables.headline_table(tables.headline_rows(load_run(workdir))))


def keep_only(workdir, part: str) -> None:
    """Leaves the results and predictions whose names contain `part`, and no training."""
    for path in (workdir / "results").iterdir():
        if part not in path.name:
            path.unlink()
    (workdir / "metrics.jsonl").unlink()


@pytest.fixture
def with_records(workdir, image_source):
    records.prepare(
        image_source, workdir / "records" / "test", image_size=48, progress=False, name="test"
    )
    return workdir


def test_a_whole_run_gives_a_self_contained_page(with_records):
    path = build_report(with_records)
    text = path.read_text(encoding="utf-8")
    page = Page(text)
    assert path == with_records / "report.html"
    assert not page.open
    assert len(text) < 3_000_000
    assert "Not in this run" not in text
    # Nothing is loaded from anywhere: every picture is in the page, and there are no links out.
    assert len(page.sources) == 8
    assert all(s.startswith("data:image/png;base64,") for s in page.sources)
    assert not re.search(r"https?://|<script|<link|url\(", text)
    embedded = {base64.b64decode(s.split(",")[1]) for s in page.sources}
    assert embedded == {p.read_bytes() for p in (with_records / "figures").glob("*.png")}
    assert all(png.startswith(PNG_START) for png in embedded)


def test_results_json_has_the_promised_keys(workdir):
    build_report(workdir, total_seconds=650.5)
    found = json.loads((workdir / "results.json").read_text())
    stored = {p.stem: json.loads(p.read_text()) for p in (workdir / "results").glob("*.json")}
    assert found["zero_shot"]["planes"]["macro_f1"] == stored["zero_shot_planes"]["macro_f1"]
    assert found["zero_shot"]["brain"]["macro_f1"] == stored["zero_shot_brain"]["macro_f1"]
    for key in ("valid_prediction_rate", "constant_baseline", "mae_days"):
        assert found["age"][key] == stored["age"][key]
    assert found["probe"]["planes"]["macro_f1"] == stored["probe_planes"]["macro_f1"]
    assert found["probe"]["raw_pixels"]["macro_f1"] == stored["probe_raw_pixels"]["macro_f1"]
    assert list(found["few_shot"]["planes"]) == ["2", "4", "8", "16", "32"]
    assert all(p.keys() == {"mean", "low", "high"} for p in found["few_shot"]["planes"].values())
    assert found["train"]["seconds"] == 412.7
    assert found["total"]["seconds"] == 650.5
    assert found["peak_rss_gib"] == 2.31


def test_total_seconds_default_to_the_sum_of_the_programs(workdir):
    expected = 14.2 + 2.1 + 21.5 + 8.0 + 30.5 + 9.4 + 412.7
    assert summarise(load_run(workdir))["total"]["seconds"] == pytest.approx(expected)


def test_every_figure_stands_beside_its_baseline(workdir):
    page = headline(workdir)
    age = page.row("Zero-shot age", "valid prediction rate")
    assert age[3].startswith("21.3 %")
    assert "22 weeks 5 days" in age[3]
    raw = json.loads((workdir / "results" / "probe_raw_pixels.json").read_text())["macro_f1"]
    assert page.row("Linear probe, six planes")[3].startswith(f"{raw:.3f}")
    assert page.row("Zero-shot planes")[3].startswith("0.111")
    assert page.row("Few-shot planes, 2 patients")[3].startswith(f"{raw:.3f}")


def test_the_harder_of_chance_and_majority_is_the_baseline(workdir):
    edit(workdir, "zero_shot_planes", chance_macro_f1=0.1, majority_macro_f1=0.15)
    assert headline(workdir).row("Zero-shot planes")[3] == ("0.150 always the most frequent class")


@pytest.mark.parametrize(
    ("value", "interval", "verdict"),
    [
        (0.6, [0.55, 0.65], "better"),
        (0.6, [0.45, 0.65], "within the interval"),
        (0.4, [0.3, 0.6], "not better"),
    ],
)
def test_the_verdict_heeds_the_interval(workdir, value, interval, verdict):
    edit(
        workdir, "zero_shot_planes", macro_f1=value, macro_f1_interval=interval, chance_macro_f1=0.5
    )
    assert headline(workdir).row("Zero-shot planes")[-1] == verdict


def test_an_error_is_better_when_it_is_lower(workdir):
    for mae, verdict in ((20.0, "better"), (50.0, "not better")):
        edit(workdir, "age", mae_days=mae, mae_constant_days=38.0)
        assert headline(workdir).row("Zero-shot age", "error")[-1] == verdict


def test_the_valid_prediction_rate_is_withheld_without_its_constant_baseline(workdir):
    rate = json.loads((workdir / "results" / "age.json").read_text())["valid_prediction_rate"]
    keep_only(workdir, "age")
    edit(workdir, "age", constant_baseline=None)
    page = read(build_report(workdir))
    assert f"{100 * rate:.1f} %" not in [cell for row in page.rows for cell in row]
    assert "Valid prediction rate: withheld" in page.text


def test_notices_depend_on_the_data(workdir):
    keep_only(workdir, "few_shot")
    assert PHANTOM_NOTICE in read(build_report(workdir)).text
    (workdir / "config.json").write_text('{"data": {"source": "hc18"}}')
    page = read(build_report(workdir))
    assert "Research use only" in page.text
    assert PHANTOM_NOTICE not in page.text


def test_a_run_with_ages_only_says_what_is_missing(workdir):
    keep_only(workdir, "age")
    edit(workdir, "age", mae_days=None, mae_days_interval=None, mae_constant_days=None)
    page = read(build_report(workdir))
    found = json.loads((workdir / "results.json").read_text())
    assert found.keys() == {"age", "total", "peak_rss_gib"}
    assert found["age"]["mae_days"] is None
    assert len(page.sources) == 1
    for words in ("no results/zero_shot_planes.json", "Training curves", "Example images"):
        assert words in page.text


def test_training_alone_makes_a_report(workdir):
    shutil.rmtree(workdir / "results")
    page = read(build_report(workdir))
    found = json.loads((workdir / "results.json").read_text())
    assert found == {"total": {"seconds": None}, "peak_rss_gib": None}
    assert len(page.sources) == 1


def test_names_from_data_cannot_write_html(workdir, image_source):
    bad = "<script>alert('x')</script> $\\frac"
    rows = (workdir / "results" / "predictions_planes.csv").read_text().replace("p0007", bad)
    (workdir / "results" / "predictions_planes.csv").write_text(rows)
    edit(
        workdir,
        "probe_brain",
        macro_f1=0.5,
        classes=[bad],
        per_class_f1={bad: 0.5},
        confusion=[[3]],
    )
    (workdir / "config.json").write_text(json.dumps({"name": bad, "data": {"source": bad}}))
    records.prepare(image_source, workdir / "records" / "test", image_size=48, progress=False)
    text = build_report(workdir).read_text(encoding="utf-8")
    assert "<script" not in text
    assert "&lt;script&gt;" in text


def test_values_that_json_cannot_hold_become_null(workdir):
    keep_only(workdir, "zero_shot_brain")
    path = workdir / "results" / "zero_shot_brain.json"
    path.write_text('{"macro_f1": NaN, "per_class_f1": {"a": Infinity}, "seconds": 1.0}')
    build_report(workdir)
    text = (workdir / "results.json").read_text()
    assert "NaN" not in text
    assert json.loads(text)["zero_shot"]["brain"]["macro_f1"] is None


def test_the_same_run_gives_the_same_files(workdir):
    keep_only(workdir, "age")
    build_report(workdir)
    first = {p: p.read_bytes() for p in workdir.rglob("*") if p.is_file()}
    build_report(workdir)
    assert {p: p.read_bytes() for p in workdir.rglob("*") if p.is_file()} == first


def test_errors_name_the_file(workdir, tmp_path):
    with pytest.raises(ValueError, match="absent is not a directory"):
        build_report(tmp_path / "absent")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="nothing to report"):
        build_report(tmp_path / "empty")
    (workdir / "results" / "age.json").write_text('{"mae_days": 3')
    with pytest.raises(ValueError, match=r"age\.json is not valid JSON"):
        build_report(workdir)


def edit(workdir, name, **values):
    path = workdir / "results" / f"{name}.json"
    result = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(result | values))
