"""Zero-shot prompts: files of the official format {class: [prompts]}, and the age prompts."""

import importlib.resources
import json
import os
import pathlib
from collections.abc import Sequence

from fetalclip_jax.captions import wording

# Shipped prompt sets by name; our own sentences, the official class names in their order.
SHIPPED = {"planes": "planes_prompts.json", "brain": "brain_prompts.json"}

# Age prompts speak of a head in the words of the captions: HC18 images show nothing else.
GA_TEMPLATES = (
    "Ultrasound image of the fetal head at {age}, pixel spacing of {spacing}.",
    "Fetal ultrasound of the fetal brain, gestational age of {age}, pixel spacing {spacing}.",
    "Ultrasound scan showing the fetal head at a gestational age of {age} with a pixel spacing of "
    "{spacing}.",
    "A transverse section of the fetal brain at {age} with a pixel spacing of {spacing}.",
    "Prenatal ultrasound: the fetal head, gestational age {age}, pixel spacing of {spacing}.",
)

_FORMAT = '{"class name": ["a prompt", "another prompt"], ...}'


def load_prompts(path_or_name: str | os.PathLike[str]) -> dict[str, list[str]]:
    """Prompts by class, in the order of the file.

    Args:
      path_or_name: "planes" or "brain" for the shipped sets, or a JSON file of the official format
        {class: [prompts]}.

    Raises:
      ValueError: no such file, unreadable JSON, or contents of another shape; the message names the
        file, what was found and where.
    """
    if path_or_name in SHIPPED:
        resource = importlib.resources.files("fetalclip_jax.captions") / SHIPPED[path_or_name]
        return _parsed(resource.read_bytes(), resource.name)
    path = pathlib.Path(path_or_name)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ValueError(
            f"cannot read prompts file {path}: {error.strerror}; give a JSON file of the form "
            f"{_FORMAT} or a shipped set ({', '.join(SHIPPED)})"
        ) from error
    return _parsed(content, str(path))


def ga_prompts(days: Sequence[int], spacing_mm: float) -> list[list[str]]:
    """Age prompts for a fetal head, indexed [template][day].

    Args:
      days: candidate gestational ages in days.
      spacing_mm: *resized* pixel spacing in millimetres per pixel, written with two decimals.
    """
    spacing = wording.pixel_spacing(spacing_mm)
    ages = [wording.age_long(day) for day in days]
    return [
        [template.format(age=age, spacing=spacing) for age in ages] for template in GA_TEMPLATES
    ]


def _parsed(content: bytes, file: str) -> dict[str, list[str]]:
    """The checked prompts; `file` is named in every error."""
    try:
        found = json.loads(content.decode("utf-8-sig"), object_pairs_hook=_unique_keys)
    except _DuplicateKeyError as error:
        raise ValueError(
            f"{file}: class {error.key!r} is given twice; merge its prompts into one list"
        ) from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{file}: not UTF-8 text ({error}); save it as UTF-8 JSON") from error
    except json.JSONDecodeError as error:
        raise ValueError(f"{file}: not valid JSON ({error}); expected {_FORMAT}") from error
    except RecursionError as error:
        raise ValueError(f"{file}: nested too deeply; expected {_FORMAT}") from error
    if not isinstance(found, dict):
        raise ValueError(f"{file}: found {_described(found)}, expected {_FORMAT}")
    if not found:
        raise ValueError(f"{file}: no classes; expected {_FORMAT}")
    for name, prompts in found.items():
        _check_class(file, name, prompts)
    return found


def _check_class(file: str, name: str, prompts: object) -> None:
    if not name.strip():
        raise ValueError(f"{file}: a class name is empty; every list of prompts needs a name")
    if not isinstance(prompts, list):
        raise ValueError(
            f"{file}: class {name!r} holds {_described(prompts)}, expected a list of prompts; "
            f"the form is {_FORMAT}"
        )
    if not prompts:
        raise ValueError(f"{file}: class {name!r} has no prompts; give at least one or remove it")
    for index, prompt in enumerate(prompts):
        if not isinstance(prompt, str):
            raise ValueError(
                f"{file}: prompt {index} of class {name!r} is {_described(prompt)}, expected text"
            )
        if not prompt.strip():
            raise ValueError(f"{file}: prompt {index} of class {name!r} is blank; write or drop it")


class _DuplicateKeyError(Exception):
    def __init__(self, key: str):
        super().__init__(key)
        self.key = key


def _unique_keys(pairs: list[tuple[str, object]]) -> dict[str, object]:
    # json.loads would silently keep the last of two classes of one name.
    result = {}
    for key, value in pairs:
        if key in result:
            raise _DuplicateKeyError(key)
        result[key] = value
    return result


def _described(value: object) -> str:
    names = {dict: "an object", list: "a list", str: "text", bool: "a boolean", type(None): "null"}
    text = json.dumps(value)
    shown = text if len(text) <= 60 else f"{text[:57]}..."
    return f"{names.get(type(value), 'a number')} ({shown})"
