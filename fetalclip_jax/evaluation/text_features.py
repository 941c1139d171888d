"""Prompts to text features in batches of one fixed size."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from tqdm import tqdm

_LENGTH_STEP = 8


def encode_texts(
    model, texts: Sequence[str], *, batch_size: int = 256, progress: bool = False
) -> Float[np.ndarray, "n d"]:
    """Projected text features, not normalised.

    Every call of the text tower has the same shape, so it is compiled once: the last batch is
    filled up with copies of its last text, and padding that no text needs is cut. A causal tower
    read at the end of the text gives the same features without it.

    Args:
      model: anything with `tokenize(list of str)` and `encode_text(int32 [n, context])`.
      texts: at least one text.
      batch_size: rows per call; fewer texts than this make one call of their own size.
      progress: show a progress bar.

    Raises:
      ValueError: if there is no text.
    """
    if not texts:
        raise ValueError("there is no text to encode")
    tokens = np.asarray(model.tokenize(list(texts)))
    # A few lengths only, so that calls for other texts find the program compiled.
    longest = int(tokens.argmax(axis=1).max()) + 1  # the end of text is the largest id
    tokens = tokens[:, : -(-longest // _LENGTH_STEP) * _LENGTH_STEP]
    size = min(batch_size, len(texts))
    features = []
    for start in tqdm(range(0, len(texts), size), desc="prompts", disable=not progress):
        batch = tokens[start : start + size]
        filled = np.pad(batch, ((0, size - len(batch)), (0, 0)), mode="edge")
        features.append(np.asarray(model.encode_text(filled))[: len(batch)])
    return np.concatenate(features)
