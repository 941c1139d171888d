"""Padding is cut before encoding, and that changes nothing but the work."""

import numpy as np

from fetalclip_jax.evaluation.text_features import encode_texts


class _CountingModel:
    """Rows of `len(text)` ones and the end of text, 9; a feature is the sum up to that end."""

    def __init__(self):
        self.lengths = []

    def tokenize(self, texts):
        rows = np.zeros((len(texts), 44), np.int32)
        for row, text in zip(rows, texts, strict=True):
            row[: len(text)] = 1
            row[len(text)] = 9
        return rows

    def encode_text(self, tokens):
        self.lengths.append(tokens.shape[1])
        return tokens.sum(axis=1, keepdims=True).astype(np.float32)


def test_texts_are_cut_to_the_longest_rounded_up():
    model = _CountingModel()
    features = encode_texts(model, ["a" * 3, "a" * 12, "a"], batch_size=2)
    assert features[:, 0].tolist() == [12, 21, 10]
    assert model.lengths == [16, 16]


def test_texts_as_long_as_the_context_are_not_cut():
    model = _CountingModel()
    assert encode_texts(model, ["a" * 43])[0, 0] == 52
    assert model.lengths == [44]
