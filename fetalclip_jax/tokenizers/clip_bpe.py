"""CLIP's byte-pair tokenizer: the ids of open_clip's for every string.

Source of the vocabulary and its rules: https://github.com/openai/CLIP (MIT licence, see
`clip_bpe.LICENSE.txt`). `make_clip_bpe_table.py` makes the tables that are shipped here.
"""

import functools
import hashlib
import html
import importlib.resources
import os
import re
from collections.abc import Mapping, Sequence

import ftfy
import numpy as np
from jaxtyping import Int, Int32
from tokenizers import models

from fetalclip_jax import storage
from fetalclip_jax.tokenizers import description
from fetalclip_jax.tokenizers.protocol import check_context_length, check_texts, padded_rows

KIND = "clip_bpe"
TABLE_NAME = "clip_bpe.npz"
TABLES_SHA256 = "b0eb2be837b58b58877cea9532ce7d0749d86257f0c62289c761be89478ee1f1"

# Ids 0-255 are the bytes in this order, 256-511 the same bytes at the end of a word, then the
# merges, then begin and end of text.
VISIBLE_BYTES = (*range(33, 127), *range(161, 173), *range(174, 256))
HIDDEN_BYTES = tuple(byte for byte in range(256) if byte not in VISIBLE_BYTES)
BYTE_ORDER = VISIBLE_BYTES + HIDDEN_BYTES
NUM_MERGES = 48894
_BOS, _EOT = "<start_of_text>", "<end_of_text>"
# Any character that is no byte may mark the end of a word.
_WORD_END = chr(256)
_MAX_CACHED_WORDS = 2**16
_MAX_CACHED_LENGTH = 64


class ClipBPETokenizer:
    """CLIP byte-pair encoding behind the `Tokenizer` protocol; 49,408 ids, lower-cased text.

    Padding shares id 0 with "!", as in CLIP; what follows the end of text is padding.
    """

    pad_id = 0
    bos_id = 512 + NUM_MERGES
    eot_id = bos_id + 1
    vocab_size = eot_id + 1

    def __init__(self, context_length: int = 77):
        """A tokenizer of rows of `context_length` ids (CLIP 77, FetalCLIP 117)."""
        self.context_length = check_context_length(context_length)
        text = f"{KIND} {TABLES_SHA256} {self.context_length}"
        self.fingerprint = hashlib.sha256(text.encode()).hexdigest()
        # The specials can be typed in a text; they are ids there too.
        self._cache = {_BOS: [self.bos_id], _EOT: [self.eot_id]}

    def __call__(self, texts: Sequence[str]) -> Int32[np.ndarray, "n context"]:
        """Token ids; a text that is too long is cut and still ends in `eot_id`."""
        return padded_rows(
            self.encode(texts),
            context_length=self.context_length,
            bos_id=self.bos_id,
            eot_id=self.eot_id,
        )

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of the text alone: no begin, no end, no padding, no cut."""
        return [
            [i for word in _words(self.normalise(text)) for i in self._word_ids(word)]
            for text in check_texts(texts)
        ]

    def decode(self, ids: Sequence[int] | Int[np.ndarray, "n"]) -> str:
        """The text of one row up to its end of text, a space after each word."""
        tokens = _tables().tokens
        kept = []
        for i in map(int, ids):
            if i == self.eot_id:
                break
            if i != self.bos_id:
                kept.append(tokens[i])
        parts = "".join(kept).split(_WORD_END)
        return " ".join(part.encode("latin-1").decode("utf-8", errors="replace") for part in parts)

    def normalise(self, text: str) -> str:
        """The text as the vocabulary sees it: mojibake and HTML entities resolved, lower case."""
        # Plain ASCII has nothing to mend, and mending takes most of the time.
        if not (text.isascii() and text.isprintable() and "&" not in text):
            text = html.unescape(html.unescape(ftfy.fix_text(text)))
        return " ".join(text.split()).lower()

    def save(self, directory: str | os.PathLike[str]) -> None:
        """Write `tokenizer.json` into `directory` (made if needed); the vocabulary is shipped."""
        storage.path(directory).mkdir(parents=True, exist_ok=True)
        description.write(
            directory, kind=KIND, context_length=self.context_length, fingerprint=self.fingerprint
        )

    def _word_ids(self, word: str) -> list[int]:
        ids = self._cache.get(word)
        if ids is None:
            symbols = word.encode("utf-8").decode("latin-1")
            # The model alone, not a `tokenizers.Tokenizer`: no thread pool, hence nothing that a
            # forked data worker could hang on.
            ids = [token.id for token in _tables().model.tokenize(symbols)]
            if len(word) <= _MAX_CACHED_LENGTH and len(self._cache) < _MAX_CACHED_WORDS:
                self._cache[word] = ids
        return ids

    def __reduce__(self):
        return type(self), (self.context_length,)


class _Tables:
    """The merges and the word pattern, built once per process from the shipped file."""

    def __init__(self, tables: Mapping[str, np.ndarray]):
        tokens = [chr(byte) for byte in BYTE_ORDER]
        tokens += [token + _WORD_END for token in tokens]
        merges = []
        for first, second in tables["merges"].tolist():
            merges.append((tokens[first], tokens[second]))
            tokens.append(tokens[first] + tokens[second])
        self.tokens = tokens
        vocabulary = {token: i for i, token in enumerate(tokens)}
        self.model = models.BPE(vocabulary, merges, end_of_word_suffix=_WORD_END)
        letters, numbers = _class(tables["letters"]), _class(tables["numbers"])
        # open_clip matches without regard to case; in lower-cased text only the long s (U+017F)
        # still has a variant, and the iota subscript (U+0345), a mark whose capital is a letter,
        # matches nothing and is dropped.
        self.pattern = re.compile(
            f"<[s\u017f]tart_of_text>|{_EOT}|'(?:[s\u017ftmd]|re|ve|ll)"
            f"|[{letters}]+|[{numbers}]|[^\\s\u0345{letters}{numbers}]+"
        )


# The same for ASCII text, in a seventh of the time.
_ASCII_PATTERN = re.compile(f"{_BOS}|{_EOT}|'(?:[stmd]|re|ve|ll)|[a-z]+|[0-9]|[^\\sa-z0-9]+")


def _words(normalised: str) -> list[str]:
    pattern = _ASCII_PATTERN if normalised.isascii() else _tables().pattern
    return pattern.findall(normalised)


def _class(runs: np.ndarray) -> str:
    return "".join(f"\\U{first:08x}-\\U{last:08x}" for first, last in runs.tolist())


@functools.cache
def _tables() -> _Tables:
    resource = importlib.resources.files("fetalclip_jax.tokenizers") / TABLE_NAME
    with resource.open("rb") as file, np.load(file) as archive:
        tables = dict(archive)
    if tables_sha256(tables) != TABLES_SHA256:
        raise ValueError(
            f"{resource}: SHA-256 of the tables is {tables_sha256(tables)}, expected "
            f"{TABLES_SHA256}; the file is damaged, install the package again"
        )
    return _Tables(tables)


def tables_sha256(tables: Mapping[str, np.ndarray]) -> str:
    """Checksum of the tables' contents (a zip file's bytes vary with the zlib that packed it)."""
    digest = hashlib.sha256()
    for name in ("merges", "letters", "numbers"):
        table = tables[name]
        digest.update(f"{name} {table.dtype.str} {table.shape}".encode())
        digest.update(table.tobytes())
    return digest.hexdigest()
