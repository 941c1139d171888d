"""Split files in the official form."""

import json
import types

import pytest

# A model whose stores are already made: probes ask for nothing but who it is.
MODEL = types.SimpleNamespace(fingerprint="m")


@pytest.fixture(scope="session")
def model():
    return MODEL


@pytest.fixture
def write_splits(tmp_path):
    """Writes training and test lists for one task below the layout's root; returns the root."""

    def write(kind, task, lists, test_ids=None):
        folder = tmp_path / kind / task
        folder.mkdir(parents=True)
        (folder / "train_val_split.json").write_text(json.dumps(lists))
        if test_ids is not None:
            (folder / "test_split.json").write_text(json.dumps(test_ids))
        return tmp_path

    return write
