"""A small vocabulary learned from the captions, for models trained from scratch."""

import hashlib
import io
import os
import re
from collections.abc import Iterable, Sequence

import numpy as np
import sentencepiece as spm
from jaxtyping import Int, Int32

from fetalclip_jax import storage
from fetalclip_jax.tokenizers import description
from fetalclip_jax.tokenizers.protocol import check_context_length, check_texts, padded_rows

KIND = "sentencepiece"
MODEL_NAME = "tokenizer.model"
_WORD = re.compile(r"[^\W\d_]+")
_PAD_ID, _UNKNOWN_ID, _BOS_ID = 0, 1, 2

# Numbers that are one token wherever they stand, in runs of rising value whose ids follow one
# another from 3 on: "0.00" to "2.99", "10" to "99", "0" to "9". The order of the ids is what
# `text_cfg.number_ids` of a model leans on.
NUMBERS = (
    [f"{hundredths / 100:.2f}" for hundredths in range(300)],
    [str(number) for number in range(10, 100)],
    [str(number) for number in range(10)],
)


class SentencePieceTokenizer:
    """Unigram SentencePiece behind the `Tokenizer` protocol.

    Text is case-folded and NFKC-normalised. A pixel spacing or a number of weeks or days is one
    token each (`NUMBERS`), any other number a few of them; characters the training captions lack
    fall back to bytes. Ids: 0 padding, 1 unknown, 2 begin, the numbers, the pieces, and last the
    end of text, which is ours: SentencePiece would put it among the first.
    """

    pad_id = _PAD_ID
    bos_id = _BOS_ID

    def __init__(self, model: bytes, context_length: int):
        """From the bytes of a SentencePiece model.

        Raises:
          ValueError: bytes that are no SentencePiece model, or one with other special ids.
        """
        self.context_length = check_context_length(context_length)
        self._model = bytes(model)
        self._processor = spm.SentencePieceProcessor()
        try:
            self._processor.LoadFromSerializedProto(self._model)
        except RuntimeError as error:
            raise ValueError(f"not a SentencePiece model: {error}") from error
        special = (self._processor.pad_id(), self._processor.unk_id(), self._processor.bos_id())
        if special != (_PAD_ID, _UNKNOWN_ID, _BOS_ID):
            raise ValueError(
                f"the model's (pad, unknown, begin) ids are {special}, expected "
                f"{(_PAD_ID, _UNKNOWN_ID, _BOS_ID)}; train it with SentencePieceTokenizer.train"
            )
        self.eot_id = self._processor.vocab_size()
        self.vocab_size = self.eot_id + 1
        digest = hashlib.sha256(self._model)
        digest.update(f"{KIND} {self.context_length}".encode())
        self.fingerprint = digest.hexdigest()

    @classmethod
    def train(
        cls, texts: Iterable[str], vocab_size: int = 1000, context_length: int = 48
    ) -> "SentencePieceTokenizer":
        """Learn a vocabulary; the same texts give the same bytes on any machine.

        Args:
          texts: training captions.
          vocab_size: upper limit (end of text excluded); a small corpus yields fewer pieces. 256
            of them are the bytes that unseen characters fall back to, 400 the numbers.
          context_length: length of a token row.

        Raises:
          ValueError: no texts, or a `vocab_size` too small for the characters of the texts.
        """
        check_context_length(context_length)
        texts = check_texts(texts)
        if not any(text.strip() for text in texts):
            raise ValueError(f"there is no text to train on in {len(texts)} texts; give captions")
        # The trainer considers only pieces that occur in two distinct words; a word that comes in
        # one form only would be cut up however frequent it is. A second form of each cures that.
        words = dict.fromkeys(word for text in texts for word in _WORD.findall(text))
        model = io.BytesIO()
        try:
            spm.SentencePieceTrainer.train(
                sentence_iterator=iter([*texts, *(f"{word}|" for word in words)]),
                model_writer=model,
                model_type="unigram",
                vocab_size=vocab_size,
                hard_vocab_limit=False,
                character_coverage=1.0,
                byte_fallback=True,
                user_defined_symbols=[piece for run in NUMBERS for piece in run],
                split_by_unicode_script=False,  # "mm/pixel" is one piece, not three
                normalization_rule_name="nmt_nfkc_cf",
                pad_id=_PAD_ID,
                unk_id=_UNKNOWN_ID,
                bos_id=_BOS_ID,
                eos_id=-1,
                # One thread and no shuffling: the result must not depend on the machine.
                num_threads=1,
                shuffle_input_sentence=False,
                minloglevel=2,
            )
        except RuntimeError as error:
            raise ValueError(
                f"SentencePiece cannot train a vocabulary of {vocab_size} on these texts: {error}; "
                "give more texts or a larger vocab_size"
            ) from error
        return cls(model.getvalue(), context_length)

    @classmethod
    def from_file(
        cls, path: str | os.PathLike[str], context_length: int
    ) -> "SentencePieceTokenizer":
        """From a model file that `save` or `train` made.

        Raises:
          ValueError: a missing or damaged file.
        """
        path = storage.path(path)
        try:
            model = path.read_bytes()
        except OSError as error:
            raise ValueError(f"cannot read SentencePiece model {path}: {error.strerror}") from error
        try:
            return cls(model, context_length)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error

    def __call__(self, texts: Sequence[str]) -> Int32[np.ndarray, "n context"]:
        """Token ids; a text that is too long is cut and still ends in `eot_id`."""
        return padded_rows(
            self.encode(texts),
            context_length=self.context_length,
            bos_id=self.bos_id,
            eot_id=self.eot_id,
        )

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of the pieces alone: no begin, no end, no padding, no cut."""
        # The default is a thread per core, which a forked data worker must not start.
        return self._processor.encode(check_texts(texts), num_threads=1)

    def decode(self, ids: Sequence[int] | Int[np.ndarray, "n"]) -> str:
        """The normalised text of one row; padding, begin and end are skipped."""
        special = (self.pad_id, self.bos_id, self.eot_id)
        return self._processor.decode([int(i) for i in ids if int(i) not in special])

    def normalise(self, text: str) -> str:
        """The text as the vocabulary sees it: case-folded, NFKC, single spaces."""
        return self._processor.normalize(text).replace("▁", " ").strip()

    def save(self, directory: str | os.PathLike[str]) -> None:
        """Write `tokenizer.model` and `tokenizer.json` into `directory` (made if needed)."""
        directory = storage.path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        (directory / MODEL_NAME).write_bytes(self._model)
        description.write(
            directory, kind=KIND, context_length=self.context_length, fingerprint=self.fingerprint
        )

    def __reduce__(self):
        return type(self), (self._model, self.context_length)
