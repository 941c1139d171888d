"""`tokenizer.json`: which tokenizer a folder holds, so that the right one comes back."""

import json
import os

from fetalclip_jax import storage

FILE_NAME = "tokenizer.json"


def write(
    directory: str | os.PathLike[str], *, kind: str, context_length: int, fingerprint: str
) -> None:
    """Describe a tokenizer; `directory` exists."""
    text = json.dumps(
        {"kind": kind, "context_length": context_length, "fingerprint": fingerprint}, indent=2
    )
    (storage.path(directory) / FILE_NAME).write_text(text + "\n", encoding="utf-8")


def read(directory: str | os.PathLike[str]) -> dict[str, str | int]:
    """The description: kind (str), context_length (int), fingerprint (str).

    Raises:
      ValueError: missing or damaged file, or a key that is missing or of another type.
    """
    path = storage.path(directory) / FILE_NAME
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(
            f"cannot read {path}: {error.strerror}; give a folder that a tokenizer was saved to"
        ) from error
    except ValueError as error:
        raise ValueError(f"{path}: not valid JSON ({error}); save the tokenizer again") from error
    for key, kind in (("kind", str), ("context_length", int), ("fingerprint", str)):
        value = found.get(key) if isinstance(found, dict) else found
        if not isinstance(value, kind) or isinstance(value, bool):
            raise ValueError(
                f"{path}: {key} is {value!r}, expected {kind.__name__}; save the tokenizer again"
            )
    return found
