"""docs/reliability.md has every row of the table of faults, as it is tested, and no other."""

from collections import Counter

from .document import BEGIN, END, PAGE, with_tables
from .table import ROWS


def test_the_page_has_every_row_as_it_is_tested_and_no_other():
    """To write it anew: python -m tests.faults.document."""
    page = PAGE.read_text()
    assert (page.count(BEGIN), page.count(END)) == (1, 1)
    assert with_tables(page) == page


def test_no_two_rows_have_the_same_name():
    assert [name for name, count in Counter(map(str, ROWS)).items() if count > 1] == []


def test_there_are_as_many_rows_as_were_promised():
    assert len(ROWS) >= 40
