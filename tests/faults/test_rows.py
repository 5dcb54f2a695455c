"""Every row of the table: its user sees what it says, and nothing is left, by the listings of cloud and machine."""

from collections.abc import Callable, Iterator

import pytest

from ..clouds import Cloud
from ..end_to_end.conftest import Shell
from .bench import Bench, counted
from .row import Row
from .table import GROUPS


@pytest.fixture
def bench(cloud: Cloud, tmp_path, monkeypatch) -> Iterator[Bench]:
    shell = Shell(tmp_path, cloud)
    monkeypatch.setenv("IPYTHONDIR", str(shell.ipython))
    bench = Bench(shell)
    try:
        yield bench
    finally:
        if "faults" in cloud.has:
            cloud.faults.clear()
        bench.close()


def _parameters(group: str, row: Row):
    marks = [pytest.mark.needs(*row.needs)] + ([pytest.mark.slow] if row.slow else [])
    return pytest.param(row, id=f"{group}: {row}", marks=marks)


@pytest.mark.parametrize("row", [_parameters(name, row) for name, rows in GROUPS.items() for row in rows])
def test_row(bench: Bench, row: Row, record_property: Callable[[str, object], None]) -> None:
    row.run(bench, row)
    if row.says:
        bench.says(row.says)
    if "faults" in bench.cloud.has:
        bench.cloud.faults.clear()
    left = bench.left_over()
    record_property("left over", f"{row}: {counted(left)}")
    assert not any(left.values()), counted(left)
