"""Ridge regression on frozen features, its penalty chosen by cross-validation.

    loss = mean squared error + penalty x |weight|^2, the bias free

With the singular values s of the centred inputs X = U diag(s) V' of n rows, the weights of every
penalty are V diag(s / (s^2 + n penalty)) U' y: one decomposition serves all of them (Hoerl and
Kennard 1970). scikit-learn's alpha is n times this penalty.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

PENALTIES = tuple(float(f"{10**exponent:.2g}") for exponent in np.arange(3, -6.1, -0.5))
# Inputs that vary less than this, relatively, are constants written in floating point.
_CONSTANT = 1e-6


@dataclasses.dataclass(frozen=True)
class Ridge:
    """A fitted regression.

    Attributes:
      weight, bias: of the inputs as they are given.
      penalty: that the folds chose.
      errors: mean squared error over the held-out rows of all folds, of every penalty tried.
      out_of_fold: what the chosen penalty predicts for each row while it is held out; nan for rows
        that no fold holds out.
    """

    weight: Float[np.ndarray, "d"]
    bias: float
    penalty: float
    errors: Float[np.ndarray, "penalties"]
    out_of_fold: Float[np.ndarray, "n"]

    def __call__(self, inputs: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n"]:
        return inputs @ self.weight + self.bias


def fit_cross_validated(
    inputs: Float[np.ndarray, "n d"],
    targets: Float[np.ndarray, "n"],
    folds: Sequence[tuple[Int[np.ndarray, "_"], Int[np.ndarray, "_"]]],
    *,
    penalties: Sequence[float] = PENALTIES,
    standardise: bool = True,
) -> Ridge:
    """A regression of all rows with the penalty of the lowest error on held-out rows.

    Args:
      inputs: float64.
      targets: what is predicted.
      folds: rows to train on and rows to hold out, of each fold.
      penalties: that are tried; of equal errors the first is kept.
      standardise: scale the inputs to the deviation of the rows that are trained on; one that does
        not vary there is left out of the fit.

    Raises:
      ValueError: a fold without a row to train on or to hold out.
    """
    held_out = np.full((len(penalties), len(targets)), np.nan)
    for fold, (train, validation) in enumerate(folds):
        for what, rows in (("train on", train), ("hold out", validation)):
            if len(rows) == 0:
                raise ValueError(f"fold {fold} has no image to {what} with a known value")
        weight, bias = _path(inputs[train], targets[train], penalties, standardise)
        held_out[:, validation] = weight @ inputs[validation].T + bias[:, None]
    judged = np.isfinite(held_out).all(0)
    errors = ((held_out[:, judged] - targets[judged]) ** 2).mean(1)
    chosen = int(errors.argmin())
    weight, bias = _path(inputs, targets, penalties[chosen : chosen + 1], standardise)
    return Ridge(weight[0], float(bias[0]), float(penalties[chosen]), errors, held_out[chosen])


def _path(inputs, targets, penalties, standardise):
    """Weights [penalties, d] and biases [penalties]."""
    mean = inputs.mean(0)
    centred = inputs - mean
    if standardise:
        deviation = centred.std(0)
        varies = deviation > _CONSTANT * np.maximum(np.abs(mean), np.finfo(np.float64).tiny)
        scale = np.where(varies, 1 / np.where(varies, deviation, 1), 0.0)
    else:
        scale = np.ones(inputs.shape[1])
    left, values, right = np.linalg.svd(centred * scale, full_matrices=False)
    projected = left.T @ (targets - targets.mean())
    shrunk = values / (values**2 + len(targets) * np.asarray(penalties, np.float64)[:, None])
    weight = (shrunk * projected) @ right * scale
    return weight, targets.mean() - weight @ mean
