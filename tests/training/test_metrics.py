import json
import sys
import types

import numpy as np
import pytest

from fetalclip_jax.training import metrics
from fetalclip_jax.training.metrics import MetricsWriter


def lines(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def test_lines_of_lost_steps_are_dropped_and_cut_ones_too(tmp_path):
    first = MetricsWriter(tmp_path)
    for step in (2, 4, 6):
        first.write(step, {"loss": 1.0 / step})
    first.close()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 8, "lo')
    again = MetricsWriter(tmp_path, resume_step=4)
    again.write(6, {"loss": 0.25, "skipped_steps": 3})
    again.close()
    assert [line["step"] for line in lines(tmp_path)] == [2, 4, 6]
    assert lines(tmp_path)[-1] == {"step": 6, "loss": 0.25, "skipped_steps": 3}
    assert list((tmp_path / "tensorboard").glob("events.out.tfevents*"))


def test_what_is_not_finite_is_left_out(tmp_path):
    writer = MetricsWriter(tmp_path)
    writer.write(1, {"loss": float("nan"), "norm": np.float32(np.inf), "rate": np.float32(0.5)})
    writer.close()
    assert lines(tmp_path) == [{"step": 1, "rate": 0.5}]


def test_only_the_lead_process_writes(tmp_path, monkeypatch):
    monkeypatch.setattr(metrics, "is_lead", lambda: False)
    writer = MetricsWriter(tmp_path, wandb_project="not asked for here")
    writer.write(1, {"loss": 1.0})
    writer.close()
    assert not list(tmp_path.iterdir())


@pytest.fixture
def wandb(monkeypatch):
    """Weights & Biases, without its servers: what is sent to it."""
    sent = []
    run = types.SimpleNamespace(
        log=lambda values, step: sent.append((step, values)),
        finish=lambda: sent.append("finished"),
    )
    module = types.ModuleType("wandb")
    module.init = lambda **options: sent.append(options) or run
    monkeypatch.setitem(sys.modules, "wandb", module)
    return sent


def test_weights_and_biases_get_the_numbers_under_the_name_of_the_folder(tmp_path, wandb):
    for resume_step in (0, 4):  # the second goes on with the same run there
        writer = MetricsWriter(
            tmp_path / "run", resume_step, wandb_project="ultrasound", settings={"seed": 1}
        )
        writer.write(resume_step + 2, {"loss": 1.5, "bad": float("nan")})
        writer.close()
    options, again = wandb[0], wandb[3]
    assert options == again
    assert (options["project"], options["name"]) == ("ultrasound", "run")
    assert (options["resume"], options["config"]) == ("allow", {"seed": 1})
    assert wandb[1:3] == [(2, {"loss": 1.5}), "finished"]
    assert wandb[4] == (6, {"loss": 1.5})


def test_nothing_is_sent_unless_asked(tmp_path, wandb):
    writer = MetricsWriter(tmp_path)
    writer.write(1, {"loss": 1.0})
    writer.close()
    assert wandb == []


def test_weights_and_biases_that_are_not_installed_are_an_error(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)  # as if it were not there
    with pytest.raises(ValueError, match=r"wandb_project='mine' needs .* pip install wandb"):
        MetricsWriter(tmp_path, wandb_project="mine")
    assert not list(tmp_path.iterdir())
