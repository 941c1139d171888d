import pytest

from fetalclip_jax.evaluation.statistics.multiplicity import holm


def test_known_values():
    # Holm (1979), by hand: 4 x .01, 3 x .02, 2 x .03 (below the one before it: raised), 1 x .5.
    assert holm([0.01, 0.02, 0.03, 0.5]) == pytest.approx([0.04, 0.06, 0.06, 0.5])
    # R: p.adjust(c(.04, .01, .3, .005), "holm")
    assert holm([0.04, 0.01, 0.3, 0.005]) == pytest.approx([0.08, 0.03, 0.3, 0.02])


def test_none_is_above_one_and_one_test_stays_as_it_is():
    assert holm([0.9, 0.8, 0.7]) == [1.0, 1.0, 1.0]
    assert holm([0.03]) == [0.03]
    assert holm([]) == []


def test_a_number_that_is_no_probability_is_refused():
    with pytest.raises(ValueError, match=r"between 0 and 1, found 1\.2"):
        holm([0.1, 1.2])
