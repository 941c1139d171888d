"""What a tile of logits adds to each loss, and how each loss changes with a logit.

A tile is some rows (images) by some columns (texts) of the matrix of all logits. Of each row and
column a few numbers are kept, which tiles update in any order.
"""

import dataclasses
from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

# Less than any logit, and still finite: differences of it are numbers.
LOWEST = -1e30

Statistics = dict[str, Float[Array, "_"]]
Tile = Float[Array, "rows columns"]
Pairs = Bool[Array, "rows columns"]


@runtime_checkable
class Terms(Protocol):
    """A loss as a sum over tiles. Equal ones are the same loss, so that it compiles once.

    Attributes:
      independent: whether `gradient` needs nothing of the other tiles.
    """

    independent: bool

    def columns(self, count: int) -> Statistics:
        """Statistics of columns that no tile has been seen of."""
        ...

    def rows(self, count: int) -> Statistics:
        """The same of rows."""
        ...

    def update(
        self, rows: Statistics, columns: Statistics, logits: Tile, positive: Pairs
    ) -> tuple[Statistics, Statistics]:
        """Both with one more tile in them."""
        ...

    def join(self, columns: Statistics, axes: tuple[str, ...]) -> Statistics:
        """Statistics of columns whose rows lie on the devices along `axes`."""
        ...

    def finish(
        self, rows: Statistics, columns: Statistics
    ) -> tuple[Float[Array, ""], Statistics, Statistics]:
        """The sum to average over images, and what `gradient` needs of rows and columns."""
        ...

    def gradient(
        self, rows: Statistics, columns: Statistics, logits: Tile, positive: Pairs
    ) -> Tile:
        """Derivative of that sum by each logit of a tile."""
        ...


def _new_rows(count: int) -> Statistics:
    """Best logits of both kinds of pair, for the accuracy and as the running maximum."""
    return {
        "best": jnp.full(count, LOWEST, jnp.float32),
        "best_other": jnp.full(count, LOWEST, jnp.float32),
        "count": jnp.zeros(count, jnp.float32),
    }


def _update_rows(rows: Statistics, logits: Tile, positive: Pairs) -> Statistics:
    best = jnp.where(positive, logits, LOWEST).max(axis=1)
    best_other = jnp.where(positive, LOWEST, logits).max(axis=1)
    return {
        "best": jnp.maximum(rows["best"], best),
        "best_other": jnp.maximum(rows["best_other"], best_other),
        "count": rows["count"] + positive.sum(axis=1),
    }


@dataclasses.dataclass(frozen=True)
class Softmax:
    """Both cross entropies of an image-text pair; half their sum is averaged."""

    independent = False

    def columns(self, count):
        return {"best": jnp.full(count, LOWEST, jnp.float32), "sum": jnp.zeros(count, jnp.float32)}

    def rows(self, count):
        return _new_rows(count) | {
            "sum": jnp.zeros(count, jnp.float32),
            "positives": jnp.zeros(count, jnp.float32),
        }

    def update(self, rows, columns, logits, positive):
        new = _update_rows(rows, logits, positive)
        before, now = (jnp.maximum(r["best"], r["best_other"]) for r in (rows, new))
        new["sum"] = rows["sum"] * jnp.exp(before - now)
        new["sum"] += jnp.exp(logits - now[:, None]).sum(axis=1)
        new["positives"] = rows["positives"] + jnp.where(positive, logits, 0.0).sum(axis=1)
        best = jnp.maximum(columns["best"], logits.max(axis=0))
        total = columns["sum"] * jnp.exp(columns["best"] - best)
        return new, {"best": best, "sum": total + jnp.exp(logits - best).sum(axis=0)}

    def join(self, columns, axes):
        best = jax.lax.pmax(columns["best"], axes)
        return {
            "best": best,
            "sum": jax.lax.psum(columns["sum"] * jnp.exp(columns["best"] - best), axes),
        }

    def finish(self, rows, columns):
        row = jnp.maximum(rows["best"], rows["best_other"]) + jnp.log(rows["sum"])
        column = columns["best"] + jnp.log(columns["sum"])
        # Positives are symmetric, so their mean logits over rows and over columns have one sum.
        total = 0.5 * (row.sum() + column.sum()) - (rows["positives"] / rows["count"]).sum()
        return total, {"logsumexp": row, "count": rows["count"]}, {"logsumexp": column}

    def gradient(self, rows, columns, logits, positive):
        by_image = jnp.exp(logits - rows["logsumexp"][:, None])
        by_text = jnp.exp(logits - columns["logsumexp"])
        # Rows that only fill a tile count no positives.
        target = jnp.where(positive, 1.0 / jnp.maximum(rows["count"], 1.0)[:, None], 0.0)
        return 0.5 * (by_image + by_text) - target


@dataclasses.dataclass(frozen=True)
class Sigmoid:
    """The logistic loss of every pair."""

    independent = True

    def columns(self, count):
        return {}

    def rows(self, count):
        return _new_rows(count) | {"sum": jnp.zeros(count, jnp.float32)}

    def update(self, rows, columns, logits, positive):
        new = _update_rows(rows, logits, positive)
        wrong = jnp.where(positive, -logits, logits)
        # softplus(wrong); that of `jax.nn` looks for infinities with two more passes.
        each = jnp.maximum(wrong, 0.0) + jnp.log1p(jnp.exp(-jnp.abs(wrong)))
        new["sum"] = rows["sum"] + each.sum(axis=1)
        return new, columns

    def join(self, columns, axes):
        return columns

    def finish(self, rows, columns):
        return rows["sum"].sum(), {}, {}

    def gradient(self, rows, columns, logits, positive):
        # Not sigmoid - 1 for the positives: near 1 its digits would be lost.
        return jnp.where(positive, -1.0, 1.0) * jax.nn.sigmoid(jnp.where(positive, -logits, logits))
