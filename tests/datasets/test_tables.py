"""Tables as people save them."""

import pytest

from fetalclip_jax.datasets.tables import number, read_table

EXPECTED = [{"image": "a.png", "caption": "Fetal head, größer"}, {"image": "b.png", "caption": ""}]
COMMA = 'image,caption\na.png,"Fetal head, größer"\nb.png,\n'
SEMICOLON = " image ;caption\r\na.png; Fetal head, größer \r\n\r\nb.png;\r\n"
TAB = "image\tcaption\na.png\tFetal head, größer\nb.png\t\n"


def cells(path):
    return [dict(row.cells) for row in read_table(path).rows]


@pytest.mark.parametrize("text", [COMMA, SEMICOLON, TAB])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
def test_every_dialect_and_encoding_reads_the_same(tmp_path, text, encoding):
    path = tmp_path / "t.csv"
    path.write_bytes(text.encode(encoding))
    assert cells(path) == EXPECTED


def test_a_caption_may_hold_a_line_break_and_the_line_is_still_known(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text('image,caption\na.png,"two\nlines"\nb.png,x\n')
    table = read_table(path)
    assert table.rows[0].cells["caption"] == "two\nlines"
    assert table.where(table.rows[1]) == f"{path} line 4"


def test_columns_without_a_name_are_left_out(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text(",image\n0,a.png\n1,b.png\n")
    assert read_table(path).columns == ("image",)
    assert cells(path) == [{"image": "a.png"}, {"image": "b.png"}]


def test_json_lines_may_leave_out_what_they_do_not_know(tmp_path):
    path = tmp_path / "t.jsonl"
    path.write_text('{"image": "a.png", "ga_days": 147}\n\n{"image": "b.png", "hc_mm": null}\n')
    assert read_table(path).columns == ("image", "ga_days", "hc_mm")
    assert cells(path) == [
        {"image": "a.png", "ga_days": "147", "hc_mm": ""},
        {"image": "b.png", "ga_days": "", "hc_mm": ""},
    ]
    assert [row.line for row in read_table(path).rows] == [1, 3]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.csv", b"image\xff,caption\n", "neither UTF-8 nor UTF-16 .byte 0xff at position 5.*"),
        ("t.csv", b"", "t.csv is empty"),
        ("t.csv", b"image,caption\n", "a header but no rows"),
        ("t.csv", b"image,caption\na,b,c\n", "line 2: 3 cells under a header of 2; quote texts"),
        ("t.csv", b"image,image\na,b\n", "column 'image' is there twice"),
        ("t.jsonl", b'{"image": "a"}\n{"image"\n', "line 2 is not JSON"),
        ("t.jsonl", b"[1]\n", "line 1 is '.1.', not a JSON object"),
        ("t.jsonl", b'{"image": ["a"]}\n', "line 1: 'image' is .*; use a text or a number"),
    ],
)
def test_what_cannot_be_read(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_table(path)
    with pytest.raises(ValueError, match=r"nowhere.csv cannot be read"):
        read_table(tmp_path / "nowhere.csv")


def test_numbers_may_have_a_decimal_comma():
    assert number("0.53") == number("0,53") == 0.53
    for text in ("1,234.5", "1,2,3", "abc", ""):
        with pytest.raises(ValueError, match="could not convert"):
            number(text)
