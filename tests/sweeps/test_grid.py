import pytest

from fetalclip_jax import sweeps


def test_the_last_axis_of_a_product_changes_first():
    points = sweeps.product(sweeps.values("a", [1, 2]), sweeps.values("b", "xy"))
    assert points == [
        {"a": 1, "b": "x"},
        {"a": 1, "b": "y"},
        {"a": 2, "b": "x"},
        {"a": 2, "b": "y"},
    ]


def test_zipped_axes_go_together_within_a_product():
    tied = sweeps.zipped(sweeps.values("batch", [32, 64]), sweeps.values("steps", [800, 400]))
    assert tied == [{"batch": 32, "steps": 800}, {"batch": 64, "steps": 400}]
    assert len(sweeps.product(tied, sweeps.values("seed", range(3)))) == 6


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: sweeps.product([{"a": 1}], [{"a": 2}]), "two axes set a"),
        (lambda: sweeps.product([{"a": 1}], []), "axis 2 of product"),
        (lambda: sweeps.zipped([{"a": 1}], [{"b": 2}, {"b": 3}]), r"axes of \[1, 2\] values"),
        (lambda: sweeps.Sweep([{}], patients="train"), "patients='train' is not one of validation"),
        (lambda: sweeps.Sweep([{}], studies=()), r"studies=\(\) is no list"),
        (lambda: sweeps.Sweep([{}], score="age/x"), "score='age/x' is no study/metric"),
        (lambda: sweeps.Sweep([{}], options={"age": {}}), "options are for age"),
    ],
)
def test_what_cannot_be_meant_is_said(make, message):
    with pytest.raises(ValueError, match=message):
        make()
