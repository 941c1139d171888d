"""Studies over stored features: zero-shot, gestational age, probes, few-shot."""

import importlib

_MODULES = (
    "features",
    "few_shot",
    "gestational_age",
    "linear_probe",
    "metrics",
    "probes",
    "splits",
    "tasks",
    "text_features",
    "who_chart",
    "zero_shot",
)


def __getattr__(name: str):
    # Loaded on use: data sources need the growth chart in workers, where JAX must not start.
    if name in _MODULES:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
