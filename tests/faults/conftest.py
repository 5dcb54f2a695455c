"""A run is found by each of its rows, too: ``pytest -k quota tests/faults``."""

import pytest

from .row import Run


def pytest_itemcollected(item: pytest.Item) -> None:
    run = getattr(item, "callspec", None) and item.callspec.params.get("run")
    if isinstance(run, Run):
        item.extra_keyword_matches.update(map(str, run.rows))
