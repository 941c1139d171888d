"""The frame of a page: nothing breaks out of it, and what it needs on a phone and on paper."""

import re

from fetalclip_jax.reports import page, style
from tests.reports.pages import Page


def png(width, height=1.0):
    with style.figure(width, height) as fig:
        return style.png(fig)


def test_a_caption_ends_with_what_the_figure_stands_for():
    html = page.picture(png(2.0), "alt", "How to read it.", "n = 5 <images>.")
    caption = html[html.index("<figcaption>") :]
    assert caption.startswith(
        '<figcaption>How to read it. <span class="basis">n = 5 &lt;images&gt;.</span>'
    )
    assert 'width="200" height="100"' in html


def test_only_pictures_that_are_legible_there_share_a_row():
    assert '<figure class="wide">' in page.picture(png(9.8), "", "")
    assert "<figure>" in page.picture(png(7.2), "", "")
    one, two = page.side_by_side("T", ["a"]), page.side_by_side("T", ["a", "b"], "note")
    assert one == "<h3>T</h3>a"
    assert page.side_by_side("T", []) == ""
    assert "grid" in two
    assert two.index("note") < two.index("grid")


def test_blocks_of_a_table_have_a_heading_over_all_columns():
    groups = [("First", ["<td>1</td><td>2</td>"]), ("Second", ["<td>3</td><td>4</td>"])]
    html = page.grouped_table(("a", "b"), groups)
    assert Page(html).rows == [["a", "b"], ["First"], ["1", "2"], ["Second"], ["3", "4"]]
    assert html.count('colspan="2"') == 2
    assert html.count("<tbody>") == 2


def test_a_page_is_fit_for_phones_and_paper():
    html = page.document("T", "", [("One section", "x")])
    assert 'name="viewport" content="width=device-width' in html
    assert '<a href="#one-section">' in html
    css = html[html.index("<style>") : html.index("</style>")]
    # Dark colours are for screens, and what opens on demand is open on paper.
    assert "@media screen and (prefers-color-scheme: dark)" in css
    paper = css[css.index("@media print") :]
    assert "details-content" in paper
    assert "break-inside: avoid" in paper
    assert re.search(r"\.scroll \{ overflow-x: auto; \}", css)
    assert css.count("{") == css.count("}")


def test_long_tables_stay_closed_on_paper_and_their_file_is_named():
    def rows(count):
        return page.plain_table(("a", "b"), [("x", "y")] * count)

    short = page.details("All", rows(60), "all.csv")
    assert short == page.details("All", rows(60))
    long = page.details("All", rows(61), "all.csv")
    assert long.startswith('<details class="long">')
    assert '<p class="on-paper">All: 61 rows, not printed: see all.csv.</p>' in long
    # Without a file that holds them, they are printed.
    assert "long" not in page.details("All", rows(61))
    paper = page.document("T", "", []).partition("@media print")[2]
    assert "details.long { display: none; }" in paper
