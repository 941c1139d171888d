"""Studies of a model on data sets: `studies.create` makes one, `result.Result` is what it finds."""

import importlib

_MODULES = (
    *("age", "calibration", "config", "embedding", "evaluate", "examples", "features", "heads"),
    *("metrics", "result", "scoring", "sources", "statistics", "studies", "study", "subgroups"),
    "terminal",
    "validation",
)


def __getattr__(name: str):
    # Loaded on use: `import fetalclip_jax` must not start JAX.
    if name in _MODULES:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
