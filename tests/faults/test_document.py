"""docs/reliability.md has every row of the tables of faults, as it is tested, and no other."""

from collections import Counter

from .document import BEGIN, END, MET, PAGE, line, with_tables
from .stages import PASSING
from .table import GROUPS, ROWS


def test_the_page_has_every_row_as_it_is_tested_and_no_other():
    """To write it anew: python -m tests.faults.document."""
    page = PAGE.read_text()
    assert (page.count(BEGIN), page.count(END)) == (1, 1)
    assert with_tables(page) == page


def test_each_row_is_a_line_of_the_page_or_a_mark_on_it():
    page = PAGE.read_text()
    assert [str(row) for row in ROWS if not row.marked and line(row) not in page] == []
    assert page.count(f"| {MET} ") == len([row for row in ROWS if row.marked])


def test_no_two_rows_have_the_same_name():
    assert [name for name, count in Counter(map(str, ROWS)).items() if count > 1] == []


def test_there_are_as_many_rows_as_were_promised():
    assert len(ROWS) >= 266


def test_make_test_meets_a_fault_that_passes_at_every_stage_with_each_of_the_two_controllers():
    passing = {kind.name for kind in PASSING}
    for group in ("requests", "server controllers"):
        assert [run for run in GROUPS[group] if not run.slow and {row.fault for row in run.rows} <= passing]
