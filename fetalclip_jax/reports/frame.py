"""What every section of a report is built with: pictures and tables that say what they stand for.

A section is a function of a `Report` that returns HTML or "", with one line in `sections.add_all`:

    yield report.picture("age", png, "Predicted ages", report.whose(one.label) + "...", of=[one])

`of` names the results behind a figure. Their images, patients, split, protocol and interval
(`provenance.stands_for`) end its caption, so no figure is without them. What cannot be drawn is
said by `report.missing.append("...")`.
"""

from collections.abc import Iterator, Sequence

from fetalclip_jax import storage
from fetalclip_jax.evaluation import pictures
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

    def __init__(self, contents: Contents, figures: storage.Path):
        self.contents = contents
        self.sections: list[tuple[str, str]] = []
        self.missing: list[str] = []
        self._figures = figures
        self._figures.mkdir(parents=True, exist_ok=True)

    def picture(
        self,
        name: str,
        png: bytes,
        alt: str,
        caption: str,
        of: Sequence[Evaluated],
        intervals: bool = True,
    ) -> str:
        """Saves the figure as `<figures>/<name>.png` and returns it as HTML.

        Args:
          name: of the file; see `figure_name`.
          png: the figure.
          alt: what it shows, for those who cannot see it.
          caption: how it is to be read.
          of: the results it shows; empty for what is no result, such as training.
          intervals: its caption says what their intervals are.
        """
        (self._figures / f"{name}.png").write_bytes(png)
        return page.picture(png, alt, caption, provenance.stands_for(*of, intervals=intervals))

    def shown(self, one: Evaluated) -> list[str]:
        """The pictures that a study kept beside its result, as HTML.

        Raises:
          ValueError: one of them is damaged.
        """
        study = one.result.study
        return [
            self.picture(
                self.figure_name(slug(f"{study}_{picture.name}"), one.label),
                picture.png(),
                picture.alt,
                self.whose(one.label) + picture.caption,
                of=[one],
                intervals=False,
            )
            for picture in pictures.load(one.folder, study)
        ]

    def table(
        self,
        title: str,
        columns: Sequence[str],
        rows: Sequence[Sequence[object]],
        of: Sequence[Evaluated],
    ) -> str:
        """A table of text with a title above and what it stands for below, as HTML."""
        return (
            page.paragraph(title, "title")
            + page.plain_table(columns, rows)
            + page.paragraph(provenance.stands_for(*of), "basis")
        )

    def side_by_side(self, title: str, blocks: Sequence[str], note: str = "") -> str:
        """Figures or tables of one kind as HTML, under a heading where there are several.

        Args:
          title: the heading.
          blocks: what `picture` and `table` gave.
          note: what holds for all of them, said once.
        """
        return page.side_by_side(title if self.contents.several else "", blocks, note)

    def by_study(self, evaluated: Sequence[Evaluated]) -> Iterator[tuple[str, list[Evaluated]]]:
        """(study, its results) in the order of the page."""
        studies: dict[str, list[Evaluated]] = {}
        for one in evaluated:
            studies.setdefault(one.result.study, []).append(one)
        yield from studies.items()

    def figure_name(self, kind: str, label: str) -> str:
        """A file's name; it says whose figure it is where there are several."""
        return f"{kind}_{slug(label)}" if self.contents.several else kind

    def whose(self, label: str) -> str:
        """The beginning of a caption where there are several models or data sets."""
        return f"{label}. " if self.contents.several else ""

    def has_section(self, words: str) -> str:
        """The heading of a section that was added and whose heading holds `words`, or ""."""
        return next((heading for heading, _ in self.sections if words in heading.lower()), "")

    def add(self, heading: str, *parts: str) -> None:
        """Adds a section unless all of its parts are empty."""
        if content := "".join(parts):
            self.sections.append((heading, content))
