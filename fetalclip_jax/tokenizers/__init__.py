"""Tokenizers: CLIP's byte-pair vocabulary and SentencePiece, behind one protocol."""

import os

from ml_collections import ConfigDict

from fetalclip_jax import storage
from fetalclip_jax.models.presets import TextConfig
from fetalclip_jax.tokenizers import description
from fetalclip_jax.tokenizers.description import FILE_NAME
from fetalclip_jax.tokenizers.protocol import Tokenizer

__all__ = ["FILE_NAME", "Tokenizer", "check_fits", "load", "new"]

# Captions a vocabulary is learned from: enough to see every word and number format.
_CORPUS_CAPTIONS = 8000


def load(directory: str | os.PathLike[str]) -> Tokenizer:
    """The tokenizer that was saved to `directory`.

    Raises:
      ValueError: a missing or damaged folder, an unknown kind, or files that are not the ones
        described (by fingerprint).
    """
    directory = storage.path(directory)
    found = description.read(directory)
    path = directory / FILE_NAME
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


def new(kind: str, text: TextConfig | ConfigDict, seed: int = 0) -> Tokenizer:
    """CLIP's own vocabulary, or one learned from synthetic captions.

    Raises:
      ValueError: an unknown kind.
    """
    from fetalclip_jax.captions.synthesis import caption_corpus
    from fetalclip_jax.tokenizers.clip_bpe import ClipBPETokenizer
    from fetalclip_jax.tokenizers.sentencepiece import SentencePieceTokenizer

    if kind == "clip_bpe":
        return ClipBPETokenizer(context_length=text.context_length)
    if kind == "sentencepiece":
        return SentencePieceTokenizer.train(
            caption_corpus(_CORPUS_CAPTIONS, seed),
            vocab_size=text.vocab_size,
            context_length=text.context_length,
        )
    raise ValueError(f"config.tokenizer.kind={kind!r} is not one of sentencepiece, clip_bpe")


def check_fits(tokenizer: Tokenizer, text: TextConfig | ConfigDict) -> None:
    """That a text tower knows every id of a tokenizer, and takes rows of its length.

    Raises:
      ValueError: it does not.
    """
    if tokenizer.vocab_size > text.vocab_size:
        raise ValueError(
            f"the tokenizer has {tokenizer.vocab_size} ids, the model's text_cfg.vocab_size is "
            f"{text.vocab_size}; set config.model.text_cfg.vocab_size to at least that, or use the "
            "tokenizer that belongs to the model"
        )
    if tokenizer.context_length != text.context_length:
        raise ValueError(
            f"the tokenizer's context_length is {tokenizer.context_length}, the model's "
            f"{text.context_length}; set config.model.text_cfg.context_length to the former"
        )
