"""What a study calls the protocol it was made with."""

import pytest

from fetalclip_jax.evaluation import studies


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("probe.planes", {}, "tuned"),
        ("probe.planes", {"protocol": "paper", "resample_by": "patient", "seed": 1}, "paper"),
        ("probe.planes", {"protocol": "paper", "copies": 5}, "paper"),
        ("probe.planes", {"protocol": "paper", "copies": 0}, "paper, changed: copies"),
        ("zero_shot.planes", {"protocol": "paper", "role": "test"}, "paper, changed: role"),
    ],
)
def test_a_protocol_that_was_changed_says_so(name, options, expected):
    assert studies.create(name, **options).settings.to_json()["name"] == expected


def test_a_solver_without_seeds_is_run_once():
    options = {"protocol": "paper", "solver": "logistic", "feature_scaling": "unit"}
    assert studies.create("probe.planes", **options).settings.runs == 1
