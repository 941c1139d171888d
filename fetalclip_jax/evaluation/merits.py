"""Of which metrics one value is better than another: not of all that a study tells."""

import re

_SIGNED = re.compile(r"(^|_)(bias|lower_limit|upper_limit)(_|$)")


def is_finding(metric: str) -> bool:
    """Whether it is true of the data, and no merit of the model that found it."""
    return metric == "label_noise" or metric.startswith("near_duplicate_share")


def is_signed(metric: str) -> bool:
    """Whether it may be too high as well as too low: a mean error, a limit of agreement."""
    return bool(_SIGNED.search(metric))


def has_better(metric: str) -> bool:
    """Whether a model, or a subgroup, can be better in it."""
    return not (is_finding(metric) or is_signed(metric))
