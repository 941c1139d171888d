"""Reading sources: killed writers, resumed runs, damaged results, names that collide."""

import dataclasses
import json

import pytest

from fetalclip_jax.evaluation.result import load_all
from fetalclip_jax.reports.reading import read
from tests.reports.conftest import (
    DATA,
    MODEL,
    PROTOCOL,
    REAL,
    age_result,
    few_shot_result,
    save,
    write_run,
)


def test_a_half_written_line_is_skipped_and_counted(workdir):
    path = workdir / "metrics.jsonl"
    complete = read([workdir]).runs[0].metrics
    path.write_text(path.read_text() + '{"step": 1210, "lo')
    (run,) = read([workdir]).runs
    assert run.metrics == complete
    assert run.skipped_metric_lines == 1


def test_a_resumed_run_counts_what_it_logged_last(workdir):
    lines = [{"step": 1, "loss": 4.0}, {"step": 2, "loss": 3.0}, {"step": 2, "val_loss": 3.5}]
    lines += [{"step": 2, "loss": 2.5}, {"step": 3, "loss": 2.0}]
    (workdir / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    metrics = read([workdir]).runs[0].metrics
    assert [m["step"] for m in metrics] == [1, 2, 3]
    assert metrics[1] == {"step": 2, "loss": 2.5, "val_loss": 3.5}


def test_a_run_has_the_results_below_it_and_a_folder_of_results_its_own(evaluated, tmp_path):
    of_run = read([evaluated])
    assert len(of_run.runs) == 1
    alone = read([evaluated / "results"])
    assert alone.runs == ()
    studies = [one.result.study for one in alone.evaluated]
    assert studies == [one.result.study for one in of_run.evaluated]
    assert studies[0] == "zero_shot.planes"
    assert alone.evaluated[0].label == "quickstart / phantom"
    assert alone.evaluated[0].folder == evaluated / "results" / "quickstart" / "phantom"


def test_a_result_through_two_sources_counts_once(evaluated):
    both = read([evaluated, evaluated / "results", evaluated])
    assert len(both.runs) == 1
    assert len(both.evaluated) == 6


def test_stored_features_are_passed_over(tmp_path):
    save([age_result()], tmp_path)
    folder = tmp_path / "quickstart" / "phantom" / "features" / "test"
    folder.mkdir(parents=True)
    (folder / "meta.json").write_text("{not json")
    assert len(read([tmp_path]).evaluated) == 1


def test_labels_say_as_much_as_tells_results_apart(tmp_path):
    paper = PROTOCOL | {"name": "paper"}
    save([age_result(), few_shot_result()], tmp_path / "a")
    save([age_result(protocol=paper), age_result(data=REAL)], tmp_path / "b")
    labels = [one.label for one in read([tmp_path / "a", tmp_path / "b"]).evaluated]
    assert sorted(labels) == [
        "quickstart / clinic",
        "quickstart / phantom",
        "quickstart / phantom (default)",
        "quickstart / phantom (paper)",
    ]
    save([age_result()], tmp_path / "c")
    labels = [one.label for one in read([tmp_path / "a", tmp_path / "c"]).evaluated]
    folder = tmp_path / "c" / MODEL["name"] / DATA["name"]
    assert f"quickstart / phantom (default) in {folder}" in labels


def test_a_damaged_result_is_named_and_not_passed_over(tmp_path):
    save([age_result()], tmp_path)
    path = tmp_path / "quickstart" / "phantom" / "age.json"
    path.write_text(path.read_text()[:200])
    for reader in (load_all, lambda folder: read([folder])):
        with pytest.raises(ValueError, match=r"age\.json is not valid JSON"):
            reader(tmp_path)


def test_what_cannot_be_reported_is_named(tmp_path, workdir):
    with pytest.raises(ValueError, match="absent is not a folder"):
        read([tmp_path / "absent"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"empty has neither metrics\.jsonl nor results"):
        read([tmp_path / "empty"])
    with pytest.raises(ValueError, match="nothing to report"):
        read([])
    (workdir / "config.json").write_text("[1]")
    with pytest.raises(ValueError, match=r"config\.json holds a list, not a JSON object"):
        read([workdir])


def test_bad_examples_of_the_records_are_read(workdir):
    folder = workdir / "records" / "train"
    folder.mkdir(parents=True)
    (folder / "bad_examples.csv").write_text('example_id,reason\nx7,"truncated, 3 of 9 bytes"\n')
    (run,) = read([workdir]).runs
    assert run.bad_examples == {"train": [("x7", "truncated, 3 of 9 bytes")]}


def test_a_baseline_study_belongs_to_the_same_model_and_data(tmp_path):
    other = dataclasses.replace(age_result(), data=REAL)
    save([few_shot_result(), other], tmp_path)
    contents = read([tmp_path, write_run(tmp_path / "run")])
    (curve,) = [one for one in contents.evaluated if one.result.curve]
    assert contents.beside(curve, "age") is None
    (age,) = [one for one in contents.evaluated if one.result.study == "age"]
    assert contents.beside(age, "age") is age.result


def test_of_two_baselines_the_one_under_the_same_label_counts(tmp_path):
    for name in ("paper", "tuned"):
        protocol = PROTOCOL | {"name": name}
        save([age_result(protocol=protocol), few_shot_result(protocol=protocol)], tmp_path / name)
    contents = read([tmp_path / "paper", tmp_path / "tuned"])
    curves = [one for one in contents.evaluated if one.result.curve]
    assert len(curves) == 2
    for one in curves:
        assert contents.beside(one, "age").protocol == one.result.protocol
