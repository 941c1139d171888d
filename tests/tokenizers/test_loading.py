"""Tokenizers saved to a folder come back, or a clear error does."""

import json

import numpy as np
import pytest

from fetalclip_jax import tokenizers
from fetalclip_jax.captions.synthesis import caption_corpus
from fetalclip_jax.tokenizers.clip_bpe import ClipBPETokenizer
from fetalclip_jax.tokenizers.sentencepiece import SentencePieceTokenizer

TEXTS = ["The fetal head at 20 weeks and 3 days.", "word " * 200]


@pytest.fixture(scope="module")
def learned():
    return SentencePieceTokenizer.train(caption_corpus(500, 0), vocab_size=900, context_length=40)


@pytest.fixture
def folder(learned, tmp_path):
    learned.save(tmp_path / "run" / "tokenizer")
    return tmp_path / "run" / "tokenizer"


def edit(folder, **changes):
    path = folder / "tokenizer.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_sentencepiece_comes_back(learned, folder):
    loaded = tokenizers.load(folder)
    assert isinstance(loaded, SentencePieceTokenizer)
    assert loaded.fingerprint == learned.fingerprint
    np.testing.assert_array_equal(loaded(TEXTS), learned(TEXTS))


def test_clip_bpe_comes_back(tmp_path):
    saved = ClipBPETokenizer(117)
    saved.save(tmp_path)
    loaded = tokenizers.load(str(tmp_path))
    assert isinstance(loaded, ClipBPETokenizer)
    assert loaded.context_length == 117
    np.testing.assert_array_equal(loaded(TEXTS), saved(TEXTS))


def test_the_description_is_readable(folder, learned):
    assert json.loads((folder / "tokenizer.json").read_text()) == {
        "kind": "sentencepiece",
        "context_length": 40,
        "fingerprint": learned.fingerprint,
    }


def test_an_absent_folder(tmp_path):
    with pytest.raises(ValueError, match=r"cannot read .*absent.tokenizer\.json: No such file"):
        tokenizers.load(tmp_path / "absent")


def test_an_absent_model(folder):
    (folder / "tokenizer.model").unlink()
    with pytest.raises(ValueError, match=r"cannot read .*tokenizer\.model: No such file"):
        tokenizers.load(folder)


def test_a_model_of_another_run(folder, tmp_path):
    other = SentencePieceTokenizer.train(caption_corpus(400, 9), vocab_size=900, context_length=40)
    other.save(tmp_path / "other")
    (tmp_path / "other" / "tokenizer.model").replace(folder / "tokenizer.model")
    with pytest.raises(ValueError, match="files were mixed up"):
        tokenizers.load(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "wordpiece"}, "kind is 'wordpiece', expected 'sentencepiece' or 'clip_bpe'"),
        ({"kind": None}, "kind is None, expected str"),
        ({"context_length": "40"}, "context_length is '40', expected int"),
        ({"context_length": True}, "context_length is True, expected int"),
        ({"context_length": 41}, "files were mixed up"),
        ({"fingerprint": None}, "fingerprint is None, expected str"),
    ],
)
def test_a_description_that_does_not_fit(folder, changes, message):
    edit(folder, **changes)
    with pytest.raises(ValueError, match=message) as error:
        tokenizers.load(folder)
    assert "tokenizer.json" in str(error.value)


@pytest.mark.parametrize(
    ("content", "message"), [("{", "not valid JSON"), ("[1]", r"kind is \[1\]")]
)
def test_a_damaged_description(folder, content, message):
    (folder / "tokenizer.json").write_text(content)
    with pytest.raises(ValueError, match=message):
        tokenizers.load(folder)
