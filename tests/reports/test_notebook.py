"""The quickstart notebook: clean, compilable, and calling only what exists."""

import ast
import importlib
import json
import pathlib

import pytest

NOTEBOOK = pathlib.Path(__file__).resolve().parents[2] / "notebooks" / "quickstart.ipynb"
CELLS = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
CODE = ["".join(cell["source"]) for cell in CELLS if cell["cell_type"] == "code"]


def test_no_outputs_are_stored():
    for cell in CELLS:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None


@pytest.mark.parametrize("source", CODE)
def test_cells_compile(source):
    assert compile(source, "cell", "exec").co_names


def test_imported_names_exist():
    found = 0
    for node in ast.walk(ast.parse("\n".join(CODE))):
        if isinstance(node, ast.ImportFrom):
            module = importlib.import_module(node.module)
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                assert hasattr(module, alias.name) or importlib.import_module(inner)
                found += 1
        elif isinstance(node, ast.Import):
            for alias in node.names:
                assert importlib.import_module(alias.name)
                found += 1
    assert found >= 8
