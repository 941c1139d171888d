"""Splits by patient: folds, few-shot support sets, and the official split files.

A split is a pair (training ids, validation ids). The ids are patients of FETAL_PLANES_DB or image
numbers of HC18; the test ids are a list of their own.
"""

import json
import os
from collections.abc import Sequence

import numpy as np

from fetalclip_jax import storage

Split = tuple[np.ndarray, np.ndarray]


def folds_by_patient(
    patient_ids: Sequence[str] | np.ndarray,
    folds: int = 5,
    seed: int = 0,
    classes: np.ndarray | None = None,
) -> list[Split]:
    """Splits of the distinct patients; each patient validates exactly once.

    Args:
      classes: [n] of each image: folds then share out the patients of every class as evenly as can
        be, so that a rare one is in each. A patient's class is the highest of its images.

    Raises:
      ValueError: if there are fewer patients than folds, or fewer than two folds.
    """
    patients = np.unique(np.asarray(patient_ids, np.str_))
    if not 2 <= folds <= len(patients):
        raise ValueError(
            f"folds must lie between 2 and the number of patients ({len(patients)}), found {folds}"
        )
    drawn = np.random.default_rng([seed, folds]).permutation(patients)
    if classes is None:
        parts = np.array_split(drawn, folds)
    else:
        highest: dict[str, int] = {}
        for patient, one in zip(np.asarray(patient_ids, np.str_).tolist(), classes, strict=True):
            highest[patient] = max(highest.get(patient, one), one)
        of_patient = np.array([highest[patient] for patient in drawn.tolist()])
        dealt = drawn[np.argsort(of_patient, kind="stable")]
        parts = [dealt[start::folds] for start in range(folds)]
    return [
        (np.sort(np.concatenate(parts[:held_out] + parts[held_out + 1 :])), np.sort(validation))
        for held_out, validation in enumerate(parts)
    ]


def support_sets(
    patient_ids: Sequence[str] | np.ndarray, size: int, count: int = 5, seed: int = 0
) -> list[Split]:
    """`count` draws of `size` training and as many other validation patients.

    Raises:
      ValueError: if there are fewer than 2 x `size` patients, or `size` is below 1.
    """
    patients = np.unique(np.asarray(patient_ids, np.str_))
    if size < 1 or 2 * size > len(patients):
        raise ValueError(
            f"a support set of {size} patients needs {size} more to validate on, "
            f"but the pool has {len(patients)}: choose sizes up to {len(patients) // 2}"
        )
    draws = []
    for draw in range(count):
        chosen = np.random.default_rng([seed, size, draw]).permutation(patients)[: 2 * size]
        draws.append((chosen[:size], chosen[size:]))
    return draws


def read_folds(path: str | os.PathLike) -> list[Split]:
    """An official probing file: {"0": [training ids, validation ids], "1": ...}.

    Raises:
      ValueError: naming the file and what is wrong with it.
    """
    path = storage.path(path)
    content = _read_object(path)
    return [_split(path, f"fold {key!r}", content[key]) for key in _by_number(path, content)]


def read_support_sets(path: str | os.PathLike) -> dict[int, list[Split]]:
    """An official few-shot file: {"2": [[training ids, validation ids], ...], "4": ...}.

    Raises:
      ValueError: naming the file and what is wrong with it, such as a set of another size.
    """
    path = storage.path(path)
    content = _read_object(path)
    sizes = {}
    for key in _by_number(path, content):
        if not isinstance(content[key], list) or not content[key]:
            raise ValueError(f"{path}: size {key!r} must hold a list of support sets")
        sizes[int(key)] = []
        for draw, pair in enumerate(content[key]):
            where = f"size {key!r}, support set {draw}"
            split = _split(path, where, pair)
            if len(split[0]) != int(key):
                raise ValueError(f"{path}: {where} trains on {len(split[0])} ids, not on {key}")
            sizes[int(key)].append(split)
    return sizes


def read_test_ids(path: str | os.PathLike) -> np.ndarray:
    """An official test file: a list of ids, or for HC18 {id: "test"}.

    Raises:
      ValueError: naming the file and what is wrong with it.
    """
    path = storage.path(path)
    content = _read(path)
    if isinstance(content, dict):
        strays = [key for key, value in content.items() if value != "test"]
        if strays:
            raise ValueError(f"{path}: {strays[0]!r} is {content[strays[0]]!r}, not 'test'")
        content = list(content)
    return _ids(path, "the test set", content)


def _read(path):
    try:
        return json.loads(path.read_text())
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror})") from error
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path}: is not JSON ({error})") from error


def _read_object(path):
    content = _read(path)
    if not isinstance(content, dict) or not content:
        raise ValueError(f"{path}: must hold a JSON object, found {type(content).__name__}")
    return content


def _by_number(path, content):
    strays = [key for key in content if not key.isdigit()]
    if strays:
        raise ValueError(f"{path}: key {strays[0]!r} must be a number")
    return sorted(content, key=int)


def _split(path, where, pair):
    if not isinstance(pair, list) or len(pair) != 2:
        raise ValueError(f"{path}: {where} must be a pair [training ids, validation ids]")
    train, validation = _ids(path, where, pair[0]), _ids(path, where, pair[1])
    both = np.intersect1d(train, validation)
    if len(both):
        raise ValueError(f"{path}: {where} has {str(both[0])!r} in training and in validation")
    return train, validation


def _ids(path, where, ids):
    if not isinstance(ids, list) or not ids or not all(isinstance(one, str) for one in ids):
        raise ValueError(f"{path}: {where} must be a non-empty list of id strings")
    repeated = len(ids) - len(set(ids))
    if repeated:
        raise ValueError(f"{path}: {where} repeats {repeated} of its ids")
    return np.array(ids, np.str_)
