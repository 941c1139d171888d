"""FetalCLIP in JAX: pretraining and evaluation of CLIP models of fetal ultrasound."""

import importlib

__version__ = "0.1.0"


def load(path, config=None, **options):
    """Opens a run, weights of open_clip or transformers, or a preset.

    Arguments and errors are those of `fetalclip_jax.model.load`.
    """
    # Imported here: `import fetalclip_jax` must not start JAX.
    from fetalclip_jax import model

    return model.load(path, config, **options)


def __getattr__(name: str):
    # On use, for the same reason.
    if name in ("evaluation", "losses"):
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
