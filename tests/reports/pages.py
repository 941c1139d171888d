"""Reading a page back: table cells, pictures, text."""

import html.parser
import pathlib


class Page(html.parser.HTMLParser):
    """Table cells, picture sources, text, and whether every tag is closed."""

    def __init__(self, text: str):
        super().__init__()
        self.rows, self.sources, self.open, self.text = [], [], [], ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        if tag in ("meta", "img", "br"):
            self.sources += [v for k, v in attrs if k == "src"]
            return
        self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("th", "td"):
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data
        if {"th", "td"} & set(self.open):
            self.rows[-1][-1] += data

    def row(self, *beginning: str) -> list[str]:
        """The first row whose cells start with `beginning`."""
        return next(r for r in self.rows if tuple(r[: len(beginning)]) == beginning)


def read_page(path: pathlib.Path) -> Page:
    return Page(path.read_text(encoding="utf-8"))
