"""Results on disk: JSON for the numbers, CSV for the predictions."""

import csv
import json
import os
import pathlib


def save(result: dict, path: str | os.PathLike, predictions_path: str | os.PathLike) -> dict:
    """Write a study's result; its `predictions`, if any, go to a CSV of their own.

    Args:
      result: what an `evaluate` returned.
      path: the JSON file.
      predictions_path: the CSV file.

    Returns:
      The result without its predictions.
    """
    summary = {key: value for key, value in result.items() if key != "predictions"}
    _replace(path, json.dumps(summary, indent=2, allow_nan=False) + "\n")
    rows = result.get("predictions")
    if rows:
        path = pathlib.Path(predictions_path)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        with open(partial, "w", newline="") as file:
            writer = csv.DictWriter(file, fieldnames=list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
        partial.replace(path)
    return summary


def _replace(path, text):
    # A reader never sees half a file.
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(text)
    partial.replace(path)
