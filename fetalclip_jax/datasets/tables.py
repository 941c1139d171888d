"""Tables that come with images: CSV of any dialect, JSON lines, UTF-8 or UTF-16."""

import codecs
import csv
import dataclasses
import io
import json
from collections.abc import Iterator, Mapping
from typing import Any

from fetalclip_jax import storage

SUFFIXES = (".csv", ".tsv", ".jsonl")
_DELIMITERS = (",", ";", "\t", "|")
_BYTE_ORDER_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of a table.

    Attributes:
      line: its number in the file, from 1.
      cells: column -> text without surrounding blanks; "" where empty.
    """

    line: int
    cells: Mapping[str, str]


@dataclasses.dataclass(frozen=True)
class Table:
    """A table in memory; columns without a name are left out."""

    path: storage.Path
    columns: tuple[str, ...]
    rows: tuple[Row, ...]

    def where(self, row: Row) -> str:
        """Names a row in an error message."""
        return f"{self.path} line {row.line}"

    def check_columns(self, *columns: str) -> None:
        """Raises ValueError for columns that are not there."""
        for column in columns:
            if column not in self.columns:
                raise ValueError(
                    f"{self.path} has no column {column!r}; its header is {list(self.columns)}"
                )


def read_table(path: storage.Path) -> Table:
    """Reads a `.csv` or `.tsv` (comma, semicolon, tab or bar; found in its header) or `.jsonl`.

    Raises:
      ValueError: naming file and line, for another encoding, a row of another length than the
        header, a column named twice, a JSON line that is no flat object, or no row at all.
    """
    text = _decode(path)
    read = _read_json_lines if path.suffix == ".jsonl" else _read_csv
    columns, rows = read(path, text)
    if not rows:
        raise ValueError(f"{path} has a header but no rows; is it complete?")
    return Table(path, tuple(columns), tuple(rows))


def number(text: str) -> float:
    """The number in a cell; a single comma in place of the point is understood.

    Raises:
      ValueError: the cell holds something else.
    """
    if text.count(",") == 1 and "." not in text:
        text = text.replace(",", ".")
    return float(text)


def _decode(path: storage.Path) -> str:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from error
    if not content.strip():
        raise ValueError(f"{path} is empty")
    try:
        return content.decode(_encoding(content))
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path} is neither UTF-8 nor UTF-16 (byte {content[error.start]:#04x} at position "
            f"{error.start}); save it as UTF-8"
        ) from error


def _encoding(content: bytes) -> str:
    for mark, encoding in _BYTE_ORDER_MARKS.items():
        if content.startswith(mark):
            return encoding
    start = content[:4096]
    if b"\0" not in start:
        return "utf-8"
    # UTF-16 without a mark: a header is mostly ASCII, whose other byte is zero.
    return "utf-16-le" if start[1::2].count(0) > start[::2].count(0) else "utf-16-be"


def _read_csv(path: storage.Path, text: str) -> tuple[list[str], list[Row]]:
    delimiter = _delimiter(text)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True)
    header: list[str] = []
    rows = []
    try:
        for cells in reader:
            cells = [cell.strip() for cell in cells]
            if not any(cells):
                continue
            if not header:
                header = _checked_header(path, cells)
                continue
            if len(cells) != len(header):
                raise ValueError(
                    f"{path} line {reader.line_num}: {len(cells)} cells under a header of "
                    f"{len(header)}; quote texts that hold {delimiter!r}"
                )
            named = {column: cell for column, cell in zip(header, cells, strict=True) if column}
            rows.append(Row(reader.line_num, named))
    except csv.Error as error:
        raise ValueError(f"{path} line {reader.line_num}: {error}") from error
    return [column for column in header if column], rows


def _delimiter(text: str) -> str:
    # The header decides: rows hold captions, with commas of their own.
    header = next(line for line in text.splitlines() if line.strip())
    return max(_DELIMITERS, key=header.count)


def _checked_header(path: storage.Path, header: list[str]) -> list[str]:
    twice = sorted({column for column in header if column and header.count(column) > 1})
    if twice:
        raise ValueError(f"{path}: column {twice[0]!r} is there twice; rename one of them")
    return header


def _read_json_lines(path: storage.Path, text: str) -> tuple[list[str], list[Row]]:
    columns: dict[str, None] = {}
    found: list[tuple[int, dict[str, str]]] = []
    for line, entry in _json_objects(path, text):
        cells = {key.strip(): _cell(f"{path} line {line}", key, x) for key, x in entry.items()}
        columns |= dict.fromkeys(cells)
        found.append((line, cells))
    # Lines may leave out what they do not know.
    return list(columns), [
        Row(line, {c: cells.get(c, "") for c in columns}) for line, cells in found
    ]


def _json_objects(path: storage.Path, text: str) -> Iterator[tuple[int, dict[str, Any]]]:
    for line, content in enumerate(text.split("\n"), start=1):
        if not content.strip():
            continue
        try:
            entry = json.loads(content)
        except json.JSONDecodeError as error:
            raise ValueError(f"{path} line {line} is not JSON: {error}") from error
        if not isinstance(entry, dict):
            raise ValueError(f"{path} line {line} is {content[:40]!r}, not a JSON object")
        yield line, entry


def _cell(where: str, key: str, value: Any) -> str:
    if isinstance(value, (dict, list)):
        raise ValueError(f"{where}: {key!r} is {str(value)[:40]}; use a text or a number")
    return "" if value is None else str(value).strip()
