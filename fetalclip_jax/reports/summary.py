"""results.json: every program's figures in one file, under names that scripts may rely on."""

import json
import math
import os
import pathlib
from collections.abc import Mapping
from typing import Any

from fetalclip_jax.reports.run import Run

# `results/<group>_<task>.json` is found under `<group>.<task>`.
_GROUPS = ("zero_shot", "probe", "few_shot")


def summarise(run: Run, total_seconds: float | None = None) -> dict[str, Any]:
    """Merges the results of a run into one JSON-able mapping.

    Keys, where the program has run: `zero_shot.planes`, `zero_shot.brain`, `age`, `probe.planes`,
    `probe.raw_pixels`, `few_shot.planes` (patients -> mean, low, high and nothing else), `train`,
    and always `total.seconds` and `peak_rss_gib` (None where nothing was recorded). Values that
    are not finite become None, since JSON has no name for them.

    Args:
      run: what the working directory holds.
      total_seconds: wall-clock seconds of the whole run; None takes the sum over the programs.
    """
    summary: dict[str, Any] = {}
    for name, result in run.results.items():
        group = next((g for g in _GROUPS if name.startswith(f"{g}_")), None)
        if group is None:
            summary[name] = dict(result)
            continue
        task = name.removeprefix(f"{group}_")
        if group == "few_shot":
            result = few_shot_curve(result)
        summary.setdefault(group, {})[task] = dict(result)
    summary["total"] = {"seconds": _total_seconds(run) if total_seconds is None else total_seconds}
    peaks = [p for r in run.results.values() if (p := number(r.get("peak_rss_gib"))) is not None]
    summary["peak_rss_gib"] = max(peaks, default=None)
    return _finite(summary)


def write_json(value: Mapping[str, Any], path: pathlib.Path) -> None:
    """Writes `value` so that a reader sees the old file or the whole new one."""
    write_text(json.dumps(value, indent=2, allow_nan=False) + "\n", path)


def write_text(text: str, path: pathlib.Path) -> None:
    """Writes `text` as UTF-8, whole or not at all."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    part.write_text(text, encoding="utf-8")
    part.replace(path)


def few_shot_curve(result: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The points of a data-efficiency curve: patients -> mean, low, high, by rising patients."""
    points = {
        k: v
        for k, v in result.items()
        if str(k).isdigit() and isinstance(v, Mapping) and number(v.get("mean")) is not None
    }
    return {str(k): points[k] for k in sorted(points, key=int)}


def number(value: Any) -> float | None:
    """`value` as a finite float, or None."""
    try:
        value = float(value)
    except (TypeError, ValueError):
        return None
    return value if math.isfinite(value) else None


def _total_seconds(run: Run) -> float | None:
    seconds = [s for r in run.results.values() if (s := number(r.get("seconds"))) is not None]
    return sum(seconds) if seconds else None


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(k): _finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
