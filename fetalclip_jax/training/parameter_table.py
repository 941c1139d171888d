"""A table of regular expressions over parameter names: what is trained, how fast, with what decay.

Names are paths, such as `text/token_embedding` or `visual/transformer/blocks/3/mlp_in/kernel`: a
block has its number in it, from 0, although all blocks of a tower are stored as one array.
"""

import dataclasses
import math
import re
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

# Parameters below this name are stacked along the layers.
_STACK = "blocks"
# Parameters of a tower that stand after its blocks.
_AFTER_BLOCKS = "transformer/|ln_post/|ln_final/|squeeze/|projection"


@dataclasses.dataclass(frozen=True)
class Table:
    """Rows of a pattern and a factor; the first that matches a whole name decides.

    Attributes:
      field: of the configuration, for errors.
      rows: in order.
      held: matches the whole names of parameters whose factor is 0 where no row decides; that of
        the others is 1.
    """

    field: str
    rows: tuple[tuple[re.Pattern, float], ...]
    held: re.Pattern | None = None

    def map(self, function: Callable, *trees: Any) -> Any:
        """`function(factor, *leaves)` for each parameter of trees of one structure.

        The factor is a number, or where blocks differ an array [layers, 1, ...] to multiply with.
        """

        def one(path, leaf, *others):
            return function(self._factor(path, np.shape(leaf)), leaf, *others)

        return jax.tree_util.tree_map_with_path(one, *trees)

    def check(self, params: Any) -> None:
        """Raises ValueError for a row that decides over no parameter."""
        names = [
            name
            for path, leaf in jax.tree_util.tree_leaves_with_path(params)
            for name in _names(path, np.shape(leaf))
        ]
        decided = {self._row(name) for name in names}
        for number, (pattern, _) in enumerate(self.rows):
            if number not in decided:
                raise ValueError(
                    f"{self.field}: {pattern.pattern!r} matches no parameter that no earlier row "
                    f"matches; names are such as {names[0]}, {names[-1]}; a pattern has to match "
                    "the whole of one"
                )

    def _factor(self, path, shape: tuple[int, ...]) -> float | np.ndarray:
        factors = [self._factor_of(name) for name in _names(path, shape)]
        if len(set(factors)) == 1:
            return factors[0]
        return np.array(factors, np.float32).reshape(-1, *[1] * (len(shape) - 1))

    def _factor_of(self, name: str) -> float:
        row = self._row(name)
        if row is not None:
            return self.rows[row][1]
        return 0.0 if self.held and self.held.fullmatch(name) else 1.0

    def _row(self, name: str) -> int | None:
        matches = (i for i, (pattern, _) in enumerate(self.rows) if pattern.fullmatch(name))
        return next(matches, None)


def read(config: ConfigDict, name: str, held: str = "") -> Table:
    """The table in the field `name` of `config.optimizer`: pairs of pattern and factor.

    Args:
      held: pattern of what has factor 0 where no row says otherwise; "": nothing.

    Raises:
      ValueError: something else, a pattern that is no regular expression, a factor below 0 or not
        finite.
    """
    field, rows = f"config.optimizer.{name}", []
    for row in config[name]:
        if not isinstance(row, (tuple, list)) or len(row) != 2 or not isinstance(row[0], str):
            raise ValueError(
                f"{field}: {row!r} is not a pair of a pattern and a factor, as in "
                '(("visual/.*", 0.0),)'
            )
        pattern, factor = row
        if not isinstance(factor, (int, float)) or not 0 <= factor < math.inf:
            raise ValueError(f"{field}: the factor of {pattern!r} is {factor!r}; use 0 or above")
        try:
            rows.append((re.compile(pattern), float(factor)))
        except re.error as error:
            raise ValueError(f"{field}: {pattern!r} is no regular expression ({error})") from error
    return Table(field, tuple(rows), re.compile(held) if held else None)


def layer_wise_decay(tower: str, layers: int, decay: float) -> tuple[tuple[str, float], ...]:
    """Learning rate factors that fall by `decay` from each block to the one below (Clark 2020).

    What stands after the blocks keeps the whole rate, the last block has `decay` of it, and what
    stands before the first has `decay ** (layers + 1)`.

    Args:
      tower: "visual" or "text".
      layers: blocks of the tower.
    """
    blocks = [
        (f"{tower}/transformer/{_STACK}/{number}/.*", decay ** (layers - number))
        for number in range(layers)
    ]
    return (*blocks, (f"{tower}/(?!{_AFTER_BLOCKS}).*", decay ** (layers + 1)))


def _names(path, shape: tuple[int, ...]) -> Iterator[str]:
    """The name of a parameter; where layers are stacked, that of each layer."""
    # Below the name there may be the box that holds the logical axes.
    parts = [key.key for key in path if isinstance(key, jax.tree_util.DictKey)]
    if _STACK not in parts:
        yield "/".join(parts)
        return
    after = parts.index(_STACK) + 1
    for number in range(shape[0]):
        yield "/".join([*parts[:after], str(number), *parts[after:]])
