"""The vocabulary learned from captions."""

import pickle

import numpy as np
import pytest

from fetalclip_jax.captions.synthesis import caption_corpus
from fetalclip_jax.models import presets
from fetalclip_jax.tokenizers import Tokenizer
from fetalclip_jax.tokenizers.protocol import check_texts
from fetalclip_jax.tokenizers.sentencepiece import NUMBERS, SentencePieceTokenizer


@pytest.fixture(scope="module")
def captions():
    return list(caption_corpus(3000, 0))


@pytest.fixture(scope="module")
def tokenizer(captions):
    return SentencePieceTokenizer.train(captions, vocab_size=1000, context_length=48)


def test_it_is_a_tokenizer(tokenizer):
    assert isinstance(tokenizer, Tokenizer)
    assert 300 < tokenizer.vocab_size <= 1001
    assert tokenizer.pad_id == 0


def test_rows_begin_end_and_are_padded_with_zeros(tokenizer):
    texts = ["Fetal heart.", "", "Fetal head at 20 weeks and 3 days, 0.53 mm/pixel."]
    rows = tokenizer(texts)
    assert rows.shape == (3, 48)
    assert rows.dtype == np.int32
    for row, ids in zip(rows, tokenizer.encode(texts), strict=True):
        assert row.tolist() == [tokenizer.bos_id, *ids, tokenizer.eot_id] + [0] * (46 - len(ids))


def test_no_texts_are_no_rows(tokenizer):
    assert tokenizer([]).shape == (0, 48)


def test_end_of_text_is_the_largest_id_and_unique_in_its_row(tokenizer, captions):
    rows = tokenizer([*captions[:200], "Ωμέγα 漢字 😀", "word " * 100])
    assert tokenizer.eot_id == tokenizer.vocab_size - 1
    assert ((rows == tokenizer.eot_id).sum(1) == 1).all()
    last = (rows != 0).sum(1) - 1
    np.testing.assert_array_equal(rows.argmax(1), last)


def test_truncated_text_keeps_its_start_and_ends_in_end_of_text(tokenizer):
    row = tokenizer(["heart " * 100])[0]
    assert row[0] == tokenizer.bos_id
    assert row[-1] == tokenizer.eot_id
    assert row[1:-1].tolist() == tokenizer.encode(["heart " * 100])[0][:46]


def test_no_caption_is_truncated_at_48(tokenizer):
    unseen = list(caption_corpus(3000, 1))
    lengths = [len(ids) + 2 for ids in tokenizer.encode(unseen)]
    assert max(lengths) <= 48
    assert np.mean(lengths) < 36


def test_captions_survive_the_round_trip(tokenizer, captions):
    for text, row in zip(captions, tokenizer(captions), strict=True):
        # The normalised form of a caption: only letter case changes.
        assert tokenizer.decode(row) == tokenizer.normalise(text) == text.lower()


def test_unseen_characters_fall_back_to_bytes(tokenizer):
    text = "µ 漢字 😀"
    ids = tokenizer.encode([text])[0]
    assert 1 not in ids  # unknown
    assert tokenizer.decode(ids) == tokenizer.normalise(text)


@pytest.mark.parametrize("preset", ["ViT-Mi-16-96-conv", "ViT-Ti-16-96-conv"])
def test_numbers_have_rising_ids_where_the_small_models_expect_them(tokenizer, preset):
    number_ids = presets.get(preset).text_cfg.number_ids
    for (first, count), numbers in zip(number_ids, NUMBERS, strict=True):
        ids = [tokenizer.encode([f"pixel{number}"])[0][-1] for number in numbers]
        assert ids == list(range(first, first + count))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("20 weeks and 3 days", ["20", "3"]),
        ("0.53 mm/pixel", ["0.53"]),
        ("GA 20w3d", ["20", "3"]),
        # Not among the numbers: read in parts, none of them lost.
        ("12.345 of 678", ["1", "2.34", "5", "6", "78"]),
    ],
)
def test_a_number_of_a_caption_is_one_token(tokenizer, text, expected):
    numbers = range(3, 403)
    found = [tokenizer.decode([i]) for i in tokenizer.encode([text])[0] if i in numbers]
    assert found == expected


def test_letter_case_does_not_matter(tokenizer):
    np.testing.assert_array_equal(tokenizer(["FETAL Heart"]), tokenizer(["fetal heart"]))


def test_words_of_the_captions_are_one_token_each(tokenizer):
    # "fetal" comes in one form only, which the trainer alone would never make a piece of.
    text = "fetal heart brain femur kidneys cervix spine profile gestational weeks pixel spacing"
    assert len(tokenizer.encode([text])[0]) == len(text.split())


def test_training_is_deterministic(captions, tmp_path):
    models = set()
    for name in ("a", "b"):
        trained = SentencePieceTokenizer.train(captions[:500], vocab_size=900, context_length=48)
        trained.save(tmp_path / name)
        models.add((tmp_path / name / "tokenizer.model").read_bytes())
    assert len(models) == 1


def test_fingerprint_follows_vocabulary_and_context_length(tokenizer, captions, tmp_path):
    tokenizer.save(tmp_path)
    path = tmp_path / "tokenizer.model"
    assert SentencePieceTokenizer.from_file(path, 48).fingerprint == tokenizer.fingerprint
    assert SentencePieceTokenizer.from_file(path, 47).fingerprint != tokenizer.fingerprint
    other = SentencePieceTokenizer.train(captions[:400], vocab_size=900, context_length=48)
    assert other.fingerprint != tokenizer.fingerprint


def test_it_can_be_sent_to_a_worker(tokenizer, captions):
    copy = pickle.loads(pickle.dumps(tokenizer))
    assert copy.fingerprint == tokenizer.fingerprint
    np.testing.assert_array_equal(copy(captions[:50]), tokenizer(captions[:50]))


def test_wrong_texts_are_clear_errors(tokenizer):
    with pytest.raises(ValueError, match="single string 'fetal heart'; give a list"):
        tokenizer("fetal heart")
    with pytest.raises(ValueError, match="text 1 is None"):
        check_texts(["a", None])


def test_training_errors_say_what_to_change():
    with pytest.raises(ValueError, match="larger vocab_size"):
        SentencePieceTokenizer.train(["fetal heart"], vocab_size=20, context_length=48)
    with pytest.raises(ValueError, match="no text to train on"):
        SentencePieceTokenizer.train([], vocab_size=500, context_length=48)
    with pytest.raises(ValueError, match="context_length is 2"):
        SentencePieceTokenizer.train(["fetal heart"], vocab_size=500, context_length=2)


def test_a_file_that_is_no_model_is_a_clear_error(tmp_path):
    with pytest.raises(ValueError, match=r"cannot read .*absent\.model"):
        SentencePieceTokenizer.from_file(tmp_path / "absent.model", 48)
    path = tmp_path / "damaged.model"
    for content in (b"", b"not a model"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"damaged\.model: not a SentencePiece model"):
            SentencePieceTokenizer.from_file(path, 48)


def test_a_model_with_other_special_ids_is_refused(captions, tmp_path):
    import sentencepiece

    prefix = tmp_path / "foreign"
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(captions[:300]),
        model_prefix=str(prefix),
        vocab_size=100,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    with pytest.raises(ValueError, match=r"ids are \(-1, 0, 1\), expected \(0, 1, 2\)"):
        SentencePieceTokenizer.from_file(prefix.with_suffix(".model"), 48)
