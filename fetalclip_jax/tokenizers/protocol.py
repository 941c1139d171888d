"""What the rest of the project asks of a tokenizer."""

import os
from collections.abc import Iterable, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int32


@runtime_checkable
class Tokenizer(Protocol):
    """Text to rows of token ids: begin, text, end of text, padding.

    Attributes:
      vocab_size: ids are below this.
      context_length: length of a row.
      pad_id: 0.
      eot_id: ends every row's text and is the largest id, for the text tower pools the output at
        the argmax of the ids, as CLIP does.
      fingerprint: changes whenever any text could give other ids.

    Implementations are picklable (data workers receive them) and use no threads.
    """

    vocab_size: int
    context_length: int
    pad_id: int
    eot_id: int
    fingerprint: str

    def __call__(self, texts: Sequence[str]) -> Int32[np.ndarray, "n context"]:
        """Token ids; a text that is too long is cut and still ends in `eot_id`."""
        ...

    def save(self, directory: str | os.PathLike[str]) -> None:
        """Write what `tokenizers.load` needs into `directory`."""
        ...


def check_texts(texts: Iterable[Any]) -> list[str]:
    """The texts as a list; a bare string or a non-string is an error.

    Raises:
      ValueError: with the position and the value found.
    """
    if isinstance(texts, str):
        raise ValueError(f"texts is the single string {texts[:60]!r}; give a list of strings")
    texts = list(texts)
    for index, text in enumerate(texts):
        if not isinstance(text, str):
            raise ValueError(f"text {index} is {text!r}, expected a string")
    return texts


def padded_rows(
    token_ids: Iterable[Sequence[int]], *, context_length: int, bos_id: int, eot_id: int
) -> Int32[np.ndarray, "n context"]:
    """Rows of `bos_id`, the ids, `eot_id`, zeros; cut so that `eot_id` always fits."""
    token_ids = list(token_ids)
    rows = np.zeros((len(token_ids), context_length), np.int32)  # n context
    for row, ids in zip(rows, token_ids, strict=True):
        kept = [bos_id, *ids[: context_length - 2], eot_id]
        row[: len(kept)] = kept
    return rows


def check_context_length(context_length: int) -> int:
    """At least 3: begin, one token, end.

    Raises:
      ValueError: with the value found.
    """
    if context_length < 3:
        raise ValueError(
            f"context_length is {context_length}; it must be at least 3 (begin, one token, end)"
        )
    return int(context_length)
