"""The quickstart notebook runs from top to bottom, on a model that knows nothing."""

import json
import pathlib

import matplotlib
import numpy as np
import pytest

import fetalclip_jax
from fetalclip_jax.evaluation import result
from tests.tiny import TINY

NOTEBOOK = pathlib.Path(__file__).resolve().parents[2] / "notebooks" / "quickstart.ipynb"
CELLS = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
CODE = ["".join(cell["source"]) for cell in CELLS if cell["cell_type"] == "code"]


@pytest.fixture(scope="module")
def tiny_model(tmp_path_factory) -> pathlib.Path:
    """Random weights with CLIP's vocabulary, as a folder of open_clip."""
    fields = TINY.to_dict()
    fields["vision_cfg"]["image_size"] = 32
    fields["text_cfg"] |= {"context_length": 48, "vocab_size": 49408}
    folder = tmp_path_factory.mktemp("notebook") / "model"
    fetalclip_jax.load("ViT-B-16", fields).export(folder)
    return folder


def test_no_outputs_are_stored():
    for cell in CELLS:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None


def test_cells_run_in_order(tiny_model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    matplotlib.use("Agg")
    names = {}
    # The first cell holds what a reader may change, and nothing else.
    exec(CODE[0], names)
    assert {"MODEL", "OUTPUT", "PATIENTS"} == {name for name in names if name.isupper()}
    names |= {"MODEL": str(tiny_model), "OUTPUT": "out", "PATIENTS": 4}
    for number, source in enumerate(CODE[1:], start=2):
        exec(compile(source, f"code cell {number}", "exec"), names)
    stored = result.load_all(tmp_path / "out")
    assert {one.study for one in stored} == {"zero_shot.planes", "age"}
    # What the notebook computes by hand is what the study says of the same image.
    planes = names["planes"].predictions
    (row,) = np.flatnonzero(planes.example_id == names["brain"].example_id)
    by_hand = [names["scores"][name] for name in planes.candidates]
    np.testing.assert_allclose(by_hand, planes.scores[row], atol=2e-3)
    assert (tmp_path / "out" / "report.html").is_file()
