"""Every call of the text tower has the same number of rows, whatever the number of texts."""

import numpy as np
import pytest

from fetalclip_jax.evaluation import text_features
from fetalclip_jax.evaluation.text_features import encode_texts


def test_texts_are_encoded_in_batches_of_one_size(lookup_model):
    model = lookup_model(lambda text: np.array([float(text)]))
    found = encode_texts(model, [str(i) for i in range(10)], batch_size=4)
    assert found[:, 0].tolist() == list(range(10))
    assert model.calls == [4, 4, 4]
    with pytest.raises(ValueError, match="no text"):
        encode_texts(model, [])


def test_a_text_that_becomes_nan_is_refused(lookup_model):
    model = lookup_model(lambda text: np.array([float(text)]))
    with pytest.raises(ValueError, match=r"1 of 3 are not finite .*first row 1"):
        encode_texts(model, ["1", "nan", "2"])


def test_the_bar_counts_prompts_that_were_encoded(lookup_model, progress_bars):
    bars = progress_bars(text_features)
    model = lookup_model(lambda text: np.array([float(text)]))
    encode_texts(model, [str(i) for i in range(10)], batch_size=4, progress=True)
    assert (bars[0].total, bars[0].moves) == (10, [0, 4, 8, 10])
