"""Many runs of one experiment: their points, their processes, and what they found together.

`sweep()` of a file in `configs/` is written with `values`, `product` and `zipped`; importing them
does not import JAX.
"""

from fetalclip_jax.sweeps.grid import Sweep, product, values, zipped

__all__ = ["Sweep", "product", "values", "zipped"]
