"""What every section of a report is built with: pictures that say what they stand for."""

import pathlib
from collections.abc import Sequence

from fetalclip_jax.reports import page, provenance
from fetalclip_jax.reports.naming import slug
from fetalclip_jax.reports.reading import Contents, Evaluated


class Report:
    """Collects the sections of a page and the names of what is missing.

    Attributes:
      contents: what the sources hold.
      sections: (heading, HTML) in the order of the page.
      missing: sentences about absent parts.
    """

    def __init__(self, contents: Contents, figures: pathlib.Path):
        self.contents = contents
        self.sections: list[tuple[str, str]] = []
        self.missing: list[str] = []
        self._figures = figures
        self._figures.mkdir(parents=True, exist_ok=True)

    def picture(
        self, name: str, png: bytes, alt: str, caption: str, of: Sequence[Evaluated] = ()
    ) -> str:
        """Saves the figure as `<figures>/<name>.png` and returns it as HTML.

        Args:
          of: results it shows, whose protocols end the caption.
        """
        (self._figures / f"{name}.png").write_bytes(png)
        basis = dict.fromkeys(map(provenance.in_words, of))
        return page.picture(png, alt, " ".join((caption, *basis)))

    def figure_name(self, kind: str, label: str) -> str:
        """A file's name; it says whose figure it is where there are several."""
        return f"{kind}_{slug(label)}" if self.contents.several else kind

    def whose(self, label: str) -> str:
        """The beginning of a caption where there are several models or data sets."""
        return f"{label}. " if self.contents.several else ""

    def add(self, heading: str, *parts: str) -> None:
        """Adds a section unless all of its parts are empty."""
        if content := "".join(parts):
            self.sections.append((heading, content))
