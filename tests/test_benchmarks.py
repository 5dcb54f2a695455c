"""`benchmarks`: what the tables of docs/performance.md say of figures; and of the figures themselves, those that no clock has a say in."""

from collections import Counter

import pytest

from benchmarks import page
from benchmarks.measure import PATIENCE, Bench, Figures, Setting
from benchmarks.typed import Typed


def cells(table: str) -> list[list[str]]:
    """Of the rows below the headings."""
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()[2:]]


@pytest.mark.parametrize(("n", "limit"), [(1, 5.05), (10, 5.05), (11, 5.1), (512, 7.6)])
def test_the_limit_is_ten_requests_at_a_time_and_the_boot_of_the_last_server(n: int, limit: float) -> None:
    assert Setting(n, latency=0.05, boot=5.0).limit == pytest.approx(limit)


def test_others_are_shown_as_multiples_of_this_project_on_the_same_cloud_only() -> None:
    fast, slow = Setting(32), Setting(32, latency=0.2)
    ours = Figures("ipp-griffin", fast, active=6.0, stop=2.0, requests=Counter({"POST servers": 32, "GET servers": 8}))
    loop = Figures("SDK loop", fast, active=9.0, stop=1.0, requests=Counter({"POST servers": 60}))
    alone = Figures("SDK loop", slow, active=9.0)
    rows = cells(page.servers_table([ours, loop, alone]))
    assert [row[-1] for row in rows] == ["", "1.50 s, 1.50 requests", ""]
    assert rows[0][:7] == ["32", "50, 5", "ipp-griffin", "6.00", "0.80", "1.15", "40"]


def test_what_was_not_done_in_time_is_said_and_has_no_figures() -> None:
    (row,) = cells(page.servers_table([Figures("dask-cloudprovider", Setting(512), seen=97)]))
    assert row[3] == f"more than {PATIENCE} (97 are)"
    assert set(row[4:]) == {""}


def test_a_start_is_compared_with_its_parts_done_by_hand() -> None:
    typed = Typed(Setting(8, latency=0.05, boot=5.0), registered=10.0, gone=3.0, controller=0.5, engines=3.0)
    (row,) = cells(page.engines_table([typed]).split("\n\n")[1])
    assert row == ["8", "50, 5", "10.00", "0.50", "3.00", "1.45", "3.00"]


def test_only_what_stands_between_its_marks_is_written(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(page, "DOCS", tmp_path)
    monkeypatch.setattr(page, "plot", lambda measured, path: path.write_text("plot"))
    written = tmp_path / "performance.md"
    written.write_text(f"before\n{page.BEGIN}\nold\n{page.END}\nafter\n")
    page.write([Figures("ipp-griffin", Setting(1), active=5.5)], ["more \\1"])
    text = written.read_text()
    assert text.startswith("before\n")
    assert text.endswith(f"more \\1\n\n{page.END}\nafter\n")
    assert "old" not in text


def test_a_start_and_a_stop_of_32_servers_take_no_more_requests_than_they_may() -> None:
    """Consoles, which a stop keeps of at most 16 servers, counted apart."""
    figures = Bench(Setting(32, latency=0.0, boot=1.0)).measure("ipp-griffin")
    assert figures.requests["POST servers"] == 32
    assert sum(figures.requests.values()) <= 55
    consoles = figures.stop_requests["POST compute"]
    assert consoles == 16
    assert 32 < sum(figures.stop_requests.values()) - consoles <= 32 + 20
