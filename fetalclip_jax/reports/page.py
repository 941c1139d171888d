"""The frame of report.html: escaping, sections, embedded pictures and the style sheet."""

import base64
import html
from collections.abc import Sequence

_CSS = """
:root { --paper: #fbfbfa; --ink: #1f2933; --quiet: #5b6774; --line: #dde2e7; --card: #ffffff;
  --accent: #00598c; --good: #00664a; --bad: #a34400; --warn-bg: #fff4d6; --warn-ink: #5c4300;
  --block: #eef1f4; }
@media screen and (prefers-color-scheme: dark) { :root { --paper: #14181d; --ink: #e6eaee;
  --quiet: #9aa7b4; --line: #2c343d; --card: #1b2127; --accent: #6fbce8; --good: #4fc9a0;
  --bad: #f0a06a; --warn-bg: #3a2f10; --warn-ink: #f5dfa3; --block: #222a32; } }
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body { margin: 0; background: var(--paper); color: var(--ink); overflow-wrap: break-word;
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif; }
main { max-width: 1100px; margin: 0 auto; padding: 2.2rem 1.4rem 4rem; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 .2rem; letter-spacing: -.01em; }
h2 { font-size: 1.25rem; margin: 2.8rem 0 .5rem; padding-top: 1rem;
  border-top: 1px solid var(--line); }
h3 { font-size: 1.02rem; margin: 1.8rem 0 .2rem; }
p { margin: .4rem 0 .9rem; max-width: 72ch; }
a { color: var(--accent); }
nav { margin: .9rem 0 0; font-size: .92rem; }
nav a { display: inline-block; margin-right: 1.1rem; padding: .15rem 0; }
.quiet { color: var(--quiet); font-size: .92rem; }
.basis { color: var(--quiet); font-size: .84rem; font-weight: 400; max-width: none; }
figcaption .basis { display: block; margin-top: .25rem; }
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
thead th { color: var(--quiet); font-weight: 600; font-size: .8rem; white-space: nowrap; }
tbody th { font-weight: 600; }
.headline .block th { background: var(--block); padding: .55rem .7rem; border-radius: 4px; }
.headline .block .basis { display: block; }
.headline tbody th { font-weight: 500; min-width: 12rem; }
.headline .block th { font-weight: 600; }
.headline .baseline { min-width: 13rem; }
.dense th, .dense td { padding-top: .2rem; padding-bottom: .2rem; font-size: .84rem; }
.dense tbody th { min-width: 15rem; }
.dense .value { font-size: .92rem; }
.dense .quiet { font-size: .8rem; }
.headline tr > :first-child { padding-left: .7rem; }
.published thead th { white-space: normal; vertical-align: bottom; }
.published td { min-width: 6.5rem; }
.wordy td { min-width: 7rem; }
.wordy td:nth-child(n+3) { min-width: 15rem; overflow-wrap: anywhere; }
.points td { white-space: nowrap; }
.points td:nth-child(5) { white-space: normal; min-width: 12rem; overflow-wrap: anywhere; }
.claim th { width: 30%; min-width: 11rem; font-weight: 500; }
.claim td { overflow-wrap: anywhere; }
.claim ul { margin: 0; padding-left: 1.1rem; }
.value { font-weight: 700; font-size: 1.06rem; white-space: nowrap; }
.value, .number { font-variant-numeric: tabular-nums; white-space: nowrap; }
.verdict { font-weight: 600; white-space: nowrap; }
.verdict.better { color: var(--good); }
.verdict.worse { color: var(--bad); }
.verdict.unknown { color: var(--quiet); font-weight: 400; }
.grid { display: grid; gap: .2rem 1.4rem; align-items: start;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 26rem), 1fr)); }
.grid > div { min-width: 0; }
.grid > div:has(> .wide) { grid-column: 1 / -1; }
figure { margin: 1rem 0 1.4rem; }
figure img { display: block; max-width: 100%; height: auto; background: #fff; padding: .8rem;
  border: 1px solid var(--line); border-radius: 8px; }
figcaption { color: var(--quiet); font-size: .9rem; margin-top: .45rem; max-width: 80ch; }
ul.missing { color: var(--quiet); font-size: .92rem; padding-left: 1.2rem; }
ul.columns { columns: 22rem; column-gap: 2.4rem; font-size: .92rem; padding: 0; margin: .4rem 0;
  list-style: none; }
ul.columns li { break-inside: avoid; padding-left: 1.6rem; text-indent: -1.6rem; }
details { margin: .7rem 0; border: 1px solid var(--line); border-radius: 8px;
  background: var(--card); padding: .1rem 1rem; }
summary { cursor: pointer; font-weight: 600; padding: .5rem 0; }
pre { overflow-x: auto; font: .82rem/1.5 ui-monospace, Menlo, Consolas, monospace; }
@media screen and (max-width: 640px) {
  main { padding: 1.2rem .9rem 3rem; }
  h1 { font-size: 1.45rem; overflow-wrap: anywhere; }
  h2 { margin-top: 2rem; }
  nav a { padding: .35rem 0; }
  .tiles { gap: .5rem 1.6rem; }
  .tiles dd { overflow-wrap: anywhere; }
  figure img { padding: .3rem; }
  details { padding: .1rem .7rem; }
  /* A row of many columns becomes a card: its cells below one another, each with its name. */
  .stacked thead { display: none; }
  .stacked, .stacked tbody, .stacked tr, .stacked th, .stacked td { display: block; }
  .stacked tr { padding: .4rem 0; border-bottom: 1px solid var(--line); }
  .stacked th, .stacked td, .headline tr > :first-child { border: 0; padding: .08rem .2rem; }
  .stacked .baseline { min-width: 0; }
  .claim th { width: auto; font-weight: 600; }
  .stacked td { white-space: normal; overflow-wrap: anywhere; }
  .stacked td[data-label]::before { content: attr(data-label) ": "; color: var(--quiet);
    font-weight: 400; font-size: .82rem; }
}
@media print {
  @page { size: A4; margin: 14mm 12mm; }
  :root { color-scheme: light; }
  html { font-size: 9.5pt; }
  body { background: #fff; font-size: 1rem; print-color-adjust: exact;
    -webkit-print-color-adjust: exact; }
  main { max-width: none; padding: 0; }
  p, .note { break-inside: avoid; }
  h2, h3, .title, .note, summary { break-after: avoid; }
  h2 { margin-top: 1.4rem; }
  figure, tr, .banner, .tiles { break-inside: avoid; }
  figure img { padding: 0; border: 0; max-height: 100mm; width: auto; }
  thead { display: table-header-group; }
  .block { break-after: avoid; }
  .scroll, pre { overflow: visible; }
  /* On paper nothing scrolls: columns share the width and words break where they must. */
  table { font-size: .84rem; }
  th, td { padding-right: .5rem; }
  thead th { white-space: normal; }
  th, td, .headline tbody th, .headline .baseline, .published td, .wordy td,
    .wordy td:nth-child(n+3), .dense tbody th, .points td:nth-child(5) { min-width: 0; }
  pre { white-space: pre-wrap; overflow-wrap: anywhere; font-size: 7pt; }
  .grid { grid-template-columns: 1fr 1fr; gap: 0 6mm; }
  .grid > div { break-inside: avoid; }
  details { border: 0; padding: 0; }
  /* What opens on demand is open on paper. */
  details::details-content { content-visibility: visible; display: block; height: auto; }
  /* Thousands of rows are for spreadsheets: a line names the file in their place. */
  details.long { display: none; }
}
@media not print { .on-paper { display: none; } }
"""


# A picture of more pixels than this is illegible in half a row.
_HALF_A_ROW = 760
_MOST_ON_PAPER = 60  # rows of a table that opens on demand


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
    wide = ' class="wide"' if width * 5 // 7 > _HALF_A_ROW else ""
    below = f' <span class="basis">{text(basis)}</span>' if basis else ""
    return (
        f'<figure{wide}><img src="data:image/png;base64,{data}" alt="{text(alt)}" '
        f'width="{width * 5 // 7}" height="{height * 5 // 7}">'
        f"<figcaption>{text(caption)}{below}</figcaption></figure>"
    )


def side_by_side(title: str, blocks: Sequence[str], note: str = "") -> str:
    """Figures or tables of one kind, two in a row where there is room for them; "" for none.

    Args:
      title: heading; "" for none.
      blocks: HTML of each.
      note: what holds for all of them.
    """
    if not blocks:
        return ""
    heading = f"<h3>{text(title)}</h3>" if title else ""
    if note:
        heading += paragraph(note, "quiet note")
    if len(blocks) == 1:
        return heading + blocks[0]
    cells = "".join(f"<div>{block}</div>" for block in blocks)
    return f'{heading}<div class="grid">{cells}</div>'


def details(title: str, content: str, file: str = "") -> str:
    """A section that opens on demand, and on paper.

    Args:
      title: what is seen while it is closed.
      content: HTML.
      file: with the same rows: more than fit a page stay closed on paper, which names the file in
        their place.
    """
    rows = content.count("<tr") - 1
    if not file or rows <= _MOST_ON_PAPER:
        return f"<details><summary>{text(title)}</summary>{content}</details>"
    instead = f"{rows} rows, not printed: see {file}."
    return (
        f'<details class="long"><summary>{text(title)}</summary>{content}</details>'
        f'<p class="on-paper">{text(title)}: {text(instead)}</p>'
    )


def bullets(lines: Sequence[str]) -> str:
    """Sentences of plain text below one another."""
    items = "".join(f"<li>{text(line)}</li>" for line in lines)
    return f'<ul class="missing">{items}</ul>'


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
    return _table(columns, f"<tbody>{_lines(rows)}</tbody>", style_class)


def grouped_table(
    columns: Sequence[str], groups: Sequence[tuple[str, Sequence[str]]], style_class: str = ""
) -> str:
    """A table whose rows stand in blocks with a heading each.

    Args:
      columns: plain text.
      groups: (heading, rows), both HTML; a row is its cells.
      style_class: of the table.
    """
    bodies = "".join(
        f'<tbody><tr class="block"><th scope="rowgroup" colspan="{len(columns)}">{heading}</th>'
        f"</tr>{_lines(rows)}</tbody>"
        for heading, rows in groups
    )
    return _table(columns, bodies, style_class)


def _table(columns: Sequence[str], bodies: str, style_class: str) -> str:
    attribute = f' class="{style_class}"' if style_class else ""
    head = "".join(f'<th scope="col">{text(words)}</th>' for words in columns)
    rows = f"<thead><tr>{head}</tr></thead>{bodies}"
    return f'<div class="scroll"><table{attribute}>{rows}</table></div>'


def _lines(rows: Sequence[str]) -> str:
    return "".join(f"<tr>{cells}</tr>" for cells in rows)


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


def folded_table(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[object]], most: int = 12
) -> str:
    """A table of text under its title; one of more than `most` rows opens on demand."""
    content = plain_table(columns, rows)
    if len(rows) > most:
        return details(f"{title}: {len(rows)} rows", content)
    return paragraph(title, "title") + content


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
