"""Reading a working directory: killed writers, resumed runs, wrong tables."""

import json

import pytest

from fetalclip_jax.reports.run import load_run


def test_a_half_written_line_is_skipped_and_counted(workdir):
    path = workdir / "metrics.jsonl"
    complete = load_run(workdir).metrics
    path.write_text(path.read_text() + '{"step": 1210, "lo')
    run = load_run(workdir)
    assert run.metrics == complete
    assert run.skipped_metric_lines == 1


def test_a_resumed_run_counts_what_it_logged_last(workdir):
    lines = [{"step": 1, "loss": 4.0}, {"step": 2, "loss": 3.0}, {"step": 2, "val_loss": 3.5}]
    lines += [{"step": 2, "loss": 2.5}, {"step": 3, "loss": 2.0}]
    (workdir / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    metrics = load_run(workdir).metrics
    assert [m["step"] for m in metrics] == [1, 2, 3]
    assert metrics[1] == {"step": 2, "loss": 2.5, "val_loss": 3.5}


def test_a_prediction_table_without_predictions_is_named(workdir):
    (workdir / "results" / "predictions_planes.csv").write_text("example_id,answer\na,b\n")
    with pytest.raises(ValueError, match=r"predictions_planes\.csv has the columns \['answer'"):
        load_run(workdir)
