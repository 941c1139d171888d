"""Metrics and their intervals, under the names that other people's code leans on."""

from fetalclip_jax.evaluation.statistics.bootstrap import bootstrap_interval
from fetalclip_jax.evaluation.statistics.metrics import (
    balanced_accuracy,
    chance_macro_f1,
    confusion_matrix,
    f1_per_class,
    macro_f1,
    majority_macro_f1,
    recall_per_class,
    top_k_hits,
)

__all__ = [
    "balanced_accuracy",
    "bootstrap_interval",
    "chance_macro_f1",
    "confusion_matrix",
    "f1_per_class",
    "macro_f1",
    "majority_macro_f1",
    "recall_per_class",
    "top_k_hits",
]
