"""Prompts to text features in batches of one fixed size."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int
from tqdm import tqdm

from fetalclip_jax.evaluation.statistics.finite import require_finite


def encode_texts(
    model, texts: Sequence[str], *, batch_size: int = 256, progress: bool = False
) -> Float[np.ndarray, "n d"]:
    """Projected text features, not normalised.

    Every call of the text tower has the same number of rows: the last batch is filled up with
    copies of its last text.

    Args:
      model: anything with `tokenize(list of str)` and `encode_text(int32 [n, context])`.
      texts: at least one text.
      batch_size: rows per call; fewer texts than this make one call of their own size.
      progress: show a progress bar.

    Raises:
      ValueError: if there is no text, or the features of one are not finite.
    """
    if not texts:
        raise ValueError("there is no text to encode")
    tokens = np.asarray(model.tokenize(list(texts)))
    return encode_tokens(model, tokens, batch_size=batch_size, progress=progress)


def encode_tokens(
    model, tokens: Int[np.ndarray, "n context"], *, batch_size: int = 256, progress: bool = False
) -> Float[np.ndarray, "n d"]:
    """`encode_texts` of texts that were tokenized already.

    Raises:
      ValueError: the features of a text are not finite.
    """
    size = min(batch_size, len(tokens))
    features = []
    with tqdm(total=len(tokens), desc="prompts", disable=not progress) as bar:
        for start in range(0, len(tokens), size):
            batch = tokens[start : start + size]
            filled = np.pad(batch, ((0, size - len(batch)), (0, 0)), mode="edge")
            features.append(np.asarray(model.encode_text(filled))[: len(batch)])
            bar.update(len(batch))
    found = np.concatenate(features)
    require_finite("the text features of the prompts", found)
    return found
