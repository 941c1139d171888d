"""FetalCLIP in JAX: pretraining and evaluation of CLIP models of fetal ultrasound."""

__version__ = "0.1.0"


def load(path, config=None):
    """Opens a trained run or a freshly initialised preset; see `fetalclip_jax.bundle.load`."""
    # Imported here: `import fetalclip_jax` must not start JAX.
    from fetalclip_jax import bundle

    return bundle.load(path, config)
