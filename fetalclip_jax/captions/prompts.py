"""Zero-shot prompts: files of the official format {class: [prompts]}, and the age prompts."""

import importlib.resources
import json
import os
import string
from collections.abc import Sequence
from numbers import Real

from fetalclip_jax import storage
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

_TEMPLATES = 'a list of templates such as ["A fetal head at {age}, {spacing}.", ...]'
_PLACEHOLDERS = ("age", "weeks", "days", "spacing", "pixel_spacing")


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
    path = storage.path(path_or_name)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ValueError(
            f"cannot read prompts file {path}: {error.strerror}; give a JSON file of the form "
            f"{_FORMAT} or a shipped set ({', '.join(SHIPPED)})"
        ) from error
    return _parsed(content, str(path))


def load_templates(path: str | os.PathLike[str]) -> tuple[str, ...]:
    """Age templates of a file: text with placeholders that `ga_prompts` fills in.

    Args:
      path: a JSON list of texts, a JSON object with one such list, or a .txt file with one template
        a line.

    Raises:
      ValueError: no such file, another form, a placeholder that is not known, or a template that
        does not state the age.
    """
    path = storage.path(path)
    try:
        text = path.read_bytes().decode("utf-8-sig")
        found = text.splitlines() if path.suffix.lower() == ".txt" else json.loads(text)
    except OSError as error:
        raise ValueError(
            f"cannot read templates file {path}: {error.strerror}; give {_TEMPLATES}"
        ) from error
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"{path}: not valid ({error}); expected {_TEMPLATES}") from error
    if isinstance(found, dict) and len(found) == 1:
        found = next(iter(found.values()))
    if not isinstance(found, list) or not all(isinstance(one, str) for one in found):
        raise ValueError(f"{path}: found {_described(found)}, expected {_TEMPLATES}")
    templates = tuple(one.strip() for one in found if one.strip())
    if not templates:
        raise ValueError(f"{path}: no template; expected {_TEMPLATES}")
    for template in templates:
        _check_template(path, template)
    return templates


def ga_prompts(
    days: Sequence[int], spacing_mm: Real, templates: Sequence[str] = GA_TEMPLATES
) -> list[list[str]]:
    """Age prompts for a fetal head, indexed [template][day].

    Args:
      days: candidate gestational ages in days.
      spacing_mm: *resized* pixel spacing in millimetres per pixel, written with two decimals.
      templates: texts with the placeholders {age} ("20 weeks and 1 day"), {weeks} and {days} (20
        and 1), {spacing} ("0.53 mm/pixel") and {pixel_spacing} ("0.53").
    """
    spacing = wording.pixel_spacing(spacing_mm)
    fields = [
        {
            "age": wording.age_long(day),
            "weeks": int(day) // wording.DAYS_PER_WEEK,
            "days": int(day) % wording.DAYS_PER_WEEK,
            "spacing": spacing,
            "pixel_spacing": f"{spacing_mm:.2f}",
        }
        for day in days
    ]
    return [[template.format(**one) for one in fields] for template in templates]


def _check_template(path: storage.Path, template: str) -> None:
    try:
        named = {name for _, name, _, _ in string.Formatter().parse(template) if name is not None}
    except ValueError as error:
        raise ValueError(
            f"{path}: template {template!r}: {error}; write a brace that is meant as text twice"
        ) from error
    unknown = sorted(named - set(_PLACEHOLDERS))
    known = ", ".join(f"{{{name}}}" for name in _PLACEHOLDERS)
    if unknown:
        raise ValueError(
            f"{path}: template {template!r} has the unknown placeholder {{{unknown[0]}}}; there "
            f"are {known}"
        )
    if "age" not in named and not {"weeks", "days"} <= named:
        raise ValueError(
            f"{path}: template {template!r} does not state the age; write {{age}}, or {{weeks}} "
            "and {days}"
        )
    try:
        template.format(age="", weeks=1, days=1, spacing="", pixel_spacing="")
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"{path}: template {template!r}: {error}; use the placeholders bare, as {known}"
        ) from error


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
