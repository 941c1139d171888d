"""Where a report's files go: in the place of no file but those of a report before."""

import json

from fetalclip_jax import storage

# File -> a key that it has if a report wrote it.
_FILES = {
    "results.json": "peak_rss_gib",
    "comparison.json": "comparisons",
    "curves.json": "curves",
    "reliability.json": "calibration",
}


def check(folder: storage.Path) -> None:
    """Looks at everything that a report would write over.

    Raises:
      ValueError: one of the files is there and of something else.
    """
    for name, key in _FILES.items():
        path = folder / name
        if not path.exists():
            continue
        try:
            ours = key in json.loads(path.read_text(encoding="utf-8"))
        except (ValueError, TypeError):
            ours = False
        if not ours:
            raise ValueError(
                f"{path} is not of a report and would be overwritten; choose another folder for "
                "the output"
            )
