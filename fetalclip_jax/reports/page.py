"""The frame of report.html: escaping, sections, embedded pictures and the style sheet."""

import base64
import html
from collections.abc import Sequence

_CSS = """
:root { --paper: #fbfbfa; --ink: #1f2933; --quiet: #5b6774; --line: #dde2e7; --card: #ffffff;
  --accent: #00598c; --good: #00664a; --bad: #a34400; --warn-bg: #fff4d6; --warn-ink: #5c4300; }
@media (prefers-color-scheme: dark) { :root { --paper: #14181d; --ink: #e6eaee; --quiet: #9aa7b4;
  --line: #2c343d; --card: #1b2127; --accent: #6fbce8; --good: #4fc9a0; --bad: #f0a06a;
  --warn-bg: #3a2f10; --warn-ink: #f5dfa3; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif; }
main { max-width: 1100px; margin: 0 auto; padding: 2.2rem 1.4rem 4rem; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 .2rem; letter-spacing: -.01em; }
h2 { font-size: 1.25rem; margin: 2.8rem 0 .5rem; padding-top: 1rem;
  border-top: 1px solid var(--line); }
p { margin: .4rem 0 .9rem; max-width: 72ch; }
a { color: var(--accent); }
nav { margin: .9rem 0 0; font-size: .92rem; }
nav a { display: inline-block; margin-right: 1.1rem; }
.quiet { color: var(--quiet); font-size: .92rem; }
.title { font-weight: 600; margin: 1.4rem 0 0; }
.banner { background: var(--warn-bg); color: var(--warn-ink); border-radius: 8px;
  padding: .75rem 1rem; margin: 1.2rem 0; font-weight: 600; max-width: none; }
.tiles { display: flex; flex-wrap: wrap; gap: .7rem 2.4rem; margin: 1rem 0 .4rem; padding: 0; }
.tiles div { min-width: 6rem; }
.tiles dt { color: var(--quiet); font-size: .82rem; }
.tiles dd { margin: 0; font-size: 1.15rem; font-variant-numeric: tabular-nums; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .9rem; width: 100%; margin: .6rem 0 1rem; }
th, td { text-align: left; padding: .48rem .9rem .48rem 0; border-bottom: 1px solid var(--line);
  vertical-align: baseline; }
.headline th[scope=row] { min-width: 9rem; }
.headline .baseline { min-width: 13rem; }
thead th { color: var(--quiet); font-weight: 600; font-size: .8rem; white-space: nowrap; }
.published thead th { white-space: normal; vertical-align: bottom; }
.published td { min-width: 6.5rem; }
.wordy td { min-width: 7rem; }
.wordy td:nth-child(n+3) { min-width: 15rem; overflow-wrap: anywhere; }
tbody th { font-weight: 600; }
.value { font-weight: 700; font-size: 1.06rem; white-space: nowrap; }
.value, .number { font-variant-numeric: tabular-nums; white-space: nowrap; }
.verdict { font-weight: 600; white-space: nowrap; }
.verdict.better { color: var(--good); }
.verdict.worse { color: var(--bad); }
.verdict.unknown { color: var(--quiet); font-weight: 400; }
figure { margin: 1rem 0 1.4rem; }
figure img { display: block; max-width: 100%; height: auto; background: #fff; padding: .8rem;
  border: 1px solid var(--line); border-radius: 8px; }
figcaption { color: var(--quiet); font-size: .9rem; margin-top: .45rem; max-width: 80ch; }
ul.missing { color: var(--quiet); font-size: .92rem; padding-left: 1.2rem; }
details { margin: .7rem 0; border: 1px solid var(--line); border-radius: 8px;
  background: var(--card); padding: .1rem 1rem; }
summary { cursor: pointer; font-weight: 600; padding: .5rem 0; }
pre { overflow-x: auto; font: .82rem/1.5 ui-monospace, Menlo, Consolas, monospace; }
@media print { body { background: #fff; } details { break-inside: avoid; } }
"""


def text(value: object) -> str:
    """`value` as text that is safe inside HTML and attributes."""
    return html.escape(str(value))


def paragraph(content: str, style_class: str = "") -> str:
    """A paragraph of plain text."""
    attribute = f' class="{style_class}"' if style_class else ""
    return f"<p{attribute}>{text(content)}</p>"


def picture(png: bytes, alt: str, caption: str, basis: str = "") -> str:
    """A figure with its picture inside the page.

    Args:
      png: the picture.
      alt: for those who cannot see it.
      caption: how to read it.
      basis: what it stands for: images, patients, protocol.
    """
    data = base64.b64encode(png).decode("ascii")
    # The bytes 16 to 24 of a PNG are its width and height: known sizes keep the page still.
    width, height = (int.from_bytes(png[k : k + 4], "big") for k in (16, 20))
    below = f' <span class="basis">{text(basis)}</span>' if basis else ""
    return (
        f'<figure><img src="data:image/png;base64,{data}" alt="{text(alt)}" '
        f'width="{width * 5 // 7}" height="{height * 5 // 7}">'
        f"<figcaption>{text(caption)}{below}</figcaption></figure>"
    )


def side_by_side(title: str, blocks: Sequence[str]) -> str:
    """Figures of one kind under a heading of their own, two in a row where there is room."""
    heading = f"<h3>{text(title)}</h3>" if title else ""
    if len(blocks) == 1:
        return heading + blocks[0]
    cells = "".join(f"<div>{block}</div>" for block in blocks)
    return f'{heading}<div class="grid">{cells}</div>'


def details(title: str, content: str) -> str:
    """A section that opens on demand; `content` is HTML."""
    return f"<details><summary>{text(title)}</summary>{content}</details>"


def tiles(pairs: Sequence[tuple[str, str]]) -> str:
    """Small facts side by side."""
    items = "".join(f"<div><dt>{text(k)}</dt><dd>{text(v)}</dd></div>" for k, v in pairs)
    return f'<dl class="tiles">{items}</dl>'


def table(columns: Sequence[str], rows: Sequence[str], style_class: str = "") -> str:
    """A table that scrolls sideways where the page is narrow.

    Args:
      columns: plain text.
      rows: HTML of the cells of each row.
      style_class: of the table.
    """
    attribute = f' class="{style_class}"' if style_class else ""
    head = "".join(f'<th scope="col">{text(words)}</th>' for words in columns)
    body = "".join(f"<tr>{cells}</tr>" for cells in rows)
    return (
        f'<div class="scroll"><table{attribute}><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def plain_table(
    columns: Sequence[str], rows: Sequence[Sequence[object]], style_class: str = ""
) -> str:
    """A table of text; the first column names the row, numbers keep their lines together."""
    body = []
    for first, *others in rows:
        cells = "".join(
            f'<td class="number">{text(value)}</td>'
            if isinstance(value, int | float)
            else f"<td>{text(value)}</td>"
            for value in others
        )
        body.append(f'<th scope="row">{text(first)}</th>{cells}')
    return table(columns, body, style_class)


def document(title: str, head: str, sections: Sequence[tuple[str, str]]) -> str:
    """The whole page.

    Args:
      title: of the page and its first heading.
      head: HTML between the heading and the first section.
      sections: (heading, HTML) in order; each gets a link at the top.
    """
    anchors = [heading.lower().replace(" ", "-") for heading, _ in sections]
    links = "".join(
        f'<a href="#{text(anchor)}">{text(heading)}</a>'
        for anchor, (heading, _) in zip(anchors, sections, strict=True)
    )
    body = "".join(
        f'<section id="{text(anchor)}"><h2>{text(heading)}</h2>{content}</section>'
        for anchor, (heading, content) in zip(anchors, sections, strict=True)
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>{text(title)}</title><style>{_CSS}</style></head><body><main>"
        f"<header><h1>{text(title)}</h1><nav>{links}</nav></header>{head}{body}"
        "</main></body></html>\n"
    )
