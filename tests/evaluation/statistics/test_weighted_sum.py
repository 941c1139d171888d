import numpy as np
import pytest

from fetalclip_jax.evaluation.statistics import measure
from fetalclip_jax.evaluation.statistics.bootstrap import Bootstrap
from fetalclip_jax.evaluation.statistics.weighted_sum import Term, weighted_sum


@pytest.fixture
def terms():
    rng = np.random.default_rng(0)
    groups = np.repeat([f"p{k}" for k in range(30)], 4)
    first = measure.mean(rng.random(120) < 0.7)
    # The second judges some of the images only.
    rows = np.flatnonzero(rng.random(120) < 0.6)
    second = measure.mean((rng.random(120) < 0.4)[rows])
    return Term(0.25, first, groups), Term(0.75, second, groups[rows])


def test_its_value_is_the_weighted_sum(terms):
    summed, names = weighted_sum(terms, "unit")
    assert summed.value == pytest.approx(
        0.25 * terms[0].measure.value + 0.75 * terms[1].measure.value
    )
    assert names.tolist() == sorted({f"p{k}" for k in range(30)})


def test_patients_are_drawn_for_all_terms_alike(terms):
    groups = terms[0].groups
    same = measure.mean(np.arange(120) % 3 == 0)
    # A measure and the opposite of it cancel in every draw, if these are the same patients.
    nothing, names = weighted_sum([Term(1.0, same, groups), Term(-1.0, same, groups)], "real")
    assert Bootstrap(names, 50).spread(nothing).variance == pytest.approx(0, abs=1e-20)
    # Two halves of one measure vary as the whole does.
    halves, names = weighted_sum([Term(0.5, same, groups), Term(0.5, same, groups)], "unit")
    alone = Bootstrap(groups, 50).spread(same).variance
    assert Bootstrap(names, 50).spread(halves).variance == pytest.approx(alone, rel=0.5)
