"""Tokenizers: CLIP's byte-pair vocabulary and SentencePiece, behind one protocol."""

import os
import pathlib

from fetalclip_jax.tokenizers import description
from fetalclip_jax.tokenizers.protocol import Tokenizer

__all__ = ["Tokenizer", "load"]


def load(directory: str | os.PathLike[str]) -> Tokenizer:
    """The tokenizer that was saved to `directory`.

    Raises:
      ValueError: a missing or damaged folder, an unknown kind, or files that are not the ones
        described (by fingerprint).
    """
    directory = pathlib.Path(directory)
    found = description.read(directory)
    path = directory / description.FILE_NAME
    # Imported here: each kind brings its own library.
    if found["kind"] == "sentencepiece":
        from fetalclip_jax.tokenizers.sentencepiece import MODEL_NAME, SentencePieceTokenizer

        tokenizer = SentencePieceTokenizer.from_file(
            directory / MODEL_NAME, found["context_length"]
        )
    elif found["kind"] == "clip_bpe":
        from fetalclip_jax.tokenizers.clip_bpe import ClipBPETokenizer

        tokenizer = ClipBPETokenizer(found["context_length"])
    else:
        raise ValueError(
            f"{path}: kind is {found['kind']!r}, expected 'sentencepiece' or 'clip_bpe'"
        )
    if tokenizer.fingerprint != found["fingerprint"]:
        raise ValueError(
            f"{path}: the tokenizer in this folder has fingerprint {tokenizer.fingerprint}, the "
            f"description says {found['fingerprint']}; the files were mixed up, restore the "
            "originals"
        )
    return tokenizer
