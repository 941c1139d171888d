"""CLIP byte-pair encoding against ids that open_clip 3.3.0 gave for the same strings."""

import gzip
import hashlib
import json
import multiprocessing
import pathlib
import pickle

import numpy as np
import pytest

from fetalclip_jax.tokenizers import Tokenizer, clip_bpe, make_clip_bpe_table
from fetalclip_jax.tokenizers.clip_bpe import ClipBPETokenizer
from fetalclip_jax.tokenizers.protocol import check_texts

GOLDEN = json.loads(
    pathlib.Path(__file__).with_name("clip_bpe_golden.json").read_text(encoding="ascii")
)


@pytest.fixture(scope="module")
def tokenizer():
    return ClipBPETokenizer(77)


def test_it_is_a_tokenizer_with_the_ids_of_clip(tokenizer):
    assert isinstance(tokenizer, Tokenizer)
    assert (tokenizer.vocab_size, tokenizer.bos_id, tokenizer.eot_id) == (49408, 49406, 49407)
    assert tokenizer.pad_id == 0
    assert tokenizer.context_length == 77


@pytest.mark.parametrize("group", GOLDEN["groups"])
def test_ids_equal_those_of_open_clip(tokenizer, group):
    for text, ids in GOLDEN["groups"][group]:
        expected = ids + [0] * (77 - len(ids))
        assert tokenizer([text])[0].tolist() == expected, ascii(text)


def test_the_full_pattern_and_the_ascii_pattern_agree(tokenizer):
    full = clip_bpe._tables().pattern
    for texts in GOLDEN["groups"].values():
        for text, _ in texts:
            normalised = tokenizer.normalise(text)
            assert clip_bpe._words(normalised) == full.findall(normalised)


def test_a_batch_is_its_rows(tokenizer):
    texts = [text for texts in GOLDEN["groups"].values() for text, _ in texts]
    rows = tokenizer(texts)
    assert rows.dtype == np.int32
    assert rows.shape == (len(texts), 77)
    np.testing.assert_array_equal(rows, np.concatenate([tokenizer([text]) for text in texts]))
    assert tokenizer([]).shape == (0, 77)


@pytest.mark.parametrize("context_length", [8, 77, 117])
def test_truncation_forces_end_of_text_into_the_last_place(context_length):
    tokenizer = ClipBPETokenizer(context_length)
    ids = tokenizer.encode(["fetal heart " * 100])[0]
    row = tokenizer(["fetal heart " * 100])[0]
    assert row.tolist() == [49406, *ids[: context_length - 2], 49407]


def test_end_of_text_is_the_argmax_of_a_row(tokenizer):
    rows = tokenizer(["a fetal heart!", "", "word " * 100])
    np.testing.assert_array_equal(rows.argmax(1), [5, 1, 76])


def test_decoding_gives_the_words(tokenizer):
    row = tokenizer(["Thalami &amp; cavum, 0.5 \u00b5m \U0001f600"])[0]
    assert tokenizer.decode(row) == "thalami & cavum , 0 . 5 \u00b5m \U0001f600 "


def test_results_do_not_depend_on_what_was_tokenized_before(tokenizer, monkeypatch):
    texts = [f"word{i} thalamus{i}" for i in range(50)]
    expected = tokenizer(texts)
    monkeypatch.setattr(clip_bpe, "_MAX_CACHED_WORDS", 5)
    small = ClipBPETokenizer(77)
    for _ in range(2):
        np.testing.assert_array_equal(small(texts), expected)
    assert len(small._cache) == 5


def test_it_works_in_a_spawned_worker(tokenizer):
    texts = ["a fetal heart", "the thalami \u2014 cavum"]
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        rows = pool.apply(tokenizer, (texts,))
    np.testing.assert_array_equal(rows, tokenizer(texts))
    assert pickle.loads(pickle.dumps(tokenizer)).fingerprint == tokenizer.fingerprint


def test_fingerprint_follows_the_context_length(tokenizer):
    assert ClipBPETokenizer(77).fingerprint == tokenizer.fingerprint
    assert ClipBPETokenizer(117).fingerprint != tokenizer.fingerprint


def test_wrong_input_is_a_clear_error(tokenizer):
    with pytest.raises(ValueError, match="single string"):
        tokenizer("a fetal heart")
    with pytest.raises(ValueError, match="text 0 is 3"):
        check_texts([3])
    with pytest.raises(ValueError, match="context_length is 1"):
        ClipBPETokenizer(1)


def test_damaged_tables_are_noticed(monkeypatch):
    monkeypatch.setattr(clip_bpe, "TABLES_SHA256", "0" * 64)
    with pytest.raises(ValueError, match=r"clip_bpe\.npz.*damaged, install the package again"):
        clip_bpe._tables.__wrapped__()


def test_the_table_maker_refuses_another_vocabulary():
    with pytest.raises(ValueError, match=r"SHA-256 .* the published one 924691ac"):
        make_clip_bpe_table.merge_ids(gzip.compress(b"#version: 0.2\ni n\n"))


def test_the_table_maker_numbers_tokens_as_published(monkeypatch):
    # "\u0120" is how the published file writes byte 32, the 33rd of the bytes without a glyph.
    content = gzip.compress("#version: 0.2\ni n\nt h\nth e</w>\n\u0120 in\n".encode(), mtime=0)
    digest = hashlib.sha256(content).hexdigest()
    monkeypatch.setattr(make_clip_bpe_table, "SOURCE_SHA256", digest)
    monkeypatch.setattr(clip_bpe, "NUM_MERGES", 4)
    i, n, t, h, e = (ord(letter) - 33 for letter in "inthe")
    assert make_clip_bpe_table.merge_ids(content).tolist() == [
        [i, n],
        [t, h],
        [513, e + 256],
        [188 + 32, 512],
    ]
