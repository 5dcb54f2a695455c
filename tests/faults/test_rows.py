"""Every run of the table: the user of each of its rows sees what that says, and nothing is left, by the listings of cloud and machine."""

from collections.abc import Callable, Iterator

import pytest

from ..clouds import Cloud
from ..end_to_end.conftest import Shell
from .bench import Bench, counted
from .row import Run
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


def _parameters(group: str, run: Run):
    marks = [pytest.mark.needs(*run.needs)] + ([pytest.mark.slow] if run.slow else [])
    return pytest.param(run, id=f"{group}: {run}", marks=marks)


@pytest.mark.timeout(600)  # it ends a hang
@pytest.mark.parametrize("run", [_parameters(name, run) for name, runs in GROUPS.items() for run in runs])
def test_run(bench: Bench, run: Run, record_property: Callable[[str, object], None]) -> None:
    run.do(bench, run)
    assert sorted(map(str, bench.proved)) == sorted(map(str, run.rows))
    if "faults" in bench.cloud.has:
        bench.cloud.faults.clear()
    left = bench.left_over()
    met = "" if len(run.rows) == 1 else f" ({len(run.rows)} met)"
    record_property("left over", f"{run}{met}: {counted(left)}")
    assert not any(left.values()), counted(left)
