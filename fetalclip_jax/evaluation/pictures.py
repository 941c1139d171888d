"""Pictures that a study shows of what it found, kept beside its result.

<folder>/pictures/<study>/pictures.json   name, caption and alternative text of each, in order
                          <name>.png
"""

import dataclasses
import io
import json
import pathlib
from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from fetalclip_jax import run, storage

_INDEX = "pictures.json"


@dataclasses.dataclass(frozen=True)
class Picture:
    """One picture.

    Attributes:
      name: of its file, such as "outlines_head"; unique within the study.
      image: uint8 [H, W] or [H, W, 3].
      caption: how it is to be read, in whole sentences.
      alt: what it shows, for those who cannot see it.
    """

    name: str
    image: UInt8[np.ndarray, "..."]
    caption: str
    alt: str

    def png(self) -> bytes:
        """The picture as a PNG file."""
        buffer = io.BytesIO()
        Image.fromarray(self.image).save(buffer, format="PNG")
        return buffer.getvalue()


def save(folder: storage.Path, study: str, pictures: Sequence[Picture]) -> None:
    """Writes the pictures of a study in place of those of an earlier result.

    Args:
      folder: where `Result.save` writes the result.

    Raises:
      ValueError: two pictures of one name.
    """
    names = [one.name for one in pictures]
    if len(set(names)) < len(names):
        raise ValueError(f"{study}: pictures are named {names}; each needs a name of its own")
    folder = storage.path(folder) / "pictures" / study
    # The index goes first and comes back last: killed in between, none has another's caption.
    (folder / _INDEX).unlink(missing_ok=True)
    for leftover in folder.glob("*.png"):
        if leftover.stem not in names:
            leftover.unlink()
    if not pictures:
        return
    for one in pictures:
        run.write_bytes(folder / f"{one.name}.png", one.png())
    entries = [{"name": one.name, "caption": one.caption, "alt": one.alt} for one in pictures]
    run.write_json(folder / _INDEX, {"study": study, "pictures": entries})


def load(folder: storage.Path, study: str) -> list[Picture]:
    """What `save` wrote; empty if it wrote nothing.

    Raises:
      ValueError: the index or a picture is damaged or missing.
    """
    path = storage.path(folder) / "pictures" / study / _INDEX
    if not path.exists():
        return []
    try:
        found = []
        for entry in json.loads(path.read_text(encoding="utf-8"))["pictures"]:
            file = path.with_name(pathlib.PurePath(entry["name"]).name + ".png")
            with file.open("rb") as opened, Image.open(opened) as picture:
                image = np.asarray(picture)
            found.append(Picture(entry["name"], image, entry["caption"], entry["alt"]))
        return found
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} cannot be used ({error}); evaluate again") from error
