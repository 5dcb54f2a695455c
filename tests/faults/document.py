"""The tables of faults as docs/reliability.md has them. ``python -m tests.faults.document`` writes them there anew."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from .matrix import DONE
from .row import Row
from .stages import PASSING, STAGES, Kind
from .table import GROUPS

PAGE = Path(__file__).parents[2] / "docs" / "reliability.md"
BEGIN, END = "<!-- The tables: python -m tests.faults.document -->\n", "<!-- End of the tables. -->\n"
HEADINGS = {
    "requests": "What services answer",
    "lives": "Servers, engines, controller",
    "processes": "Your own processes",
    "server controllers": "A controller on a server",
}
MET, NOT_MET = "✓", "-"
MATRICES = (
    (
        f"Faults that are over when the request is repeated. {MET}: tested at this stage; it works, and nothing is left. {NOT_MET}: not "
        "applicable, since nobody reads that answer, or final, with a line of its own below.",
        PASSING,
    ),
    (
        f"Answers that look like failures, but are none. {MET}: tested at this stage; it works, and nothing is left. {NOT_MET}: not "
        "applicable, or final.",
        DONE,
    ),
)


def line(row: Row) -> str:
    """A row as a line of Markdown."""
    said = re.sub(r"\s*…\s*", " … ", row.says).strip(" …")
    sees = f"{row.sees}: “{said}”" if said else row.sees
    return _cells(row.fault, row.stage, sees, row.left)


def matrix(rows: Iterable[Row], kinds: Iterable[Kind]) -> str:
    """The marks among ``rows``: stages down, those of these kinds across which any of them is of; "" without any."""
    met = {(row.stage, row.fault) for row in rows if row.marked}
    names = [kind.name for kind in kinds if any(fault == kind.name for _, fault in met)]
    stages = [stage for stage in STAGES if any((stage, name) in met for name in names)]
    if not stages:
        return ""
    lines = [_cells(stage, *(MET if (stage, name) in met else NOT_MET for name in names)) for stage in stages]
    return _cells("stage", *names) + "|---|" + ":-:|" * len(names) + "\n" + "".join(lines)


def tables() -> str:
    """All of them."""
    text = ""
    for name, runs in GROUPS.items():
        rows = [row for run in runs for row in run.rows]
        text += f"\n### {HEADINGS[name]}\n"
        for about, kinds in MATRICES:
            if marks := matrix(rows, kinds):
                text += f"\n{about}\n\n{marks}"
        text += "\n| fault | stage | what you see | what is left |\n|---|---|---|---|\n"
        text += "".join(line(row) for row in rows if not row.marked)
    return text + "\n"


def _cells(*texts: str) -> str:
    return "| " + " | ".join(text.replace("|", "\\|") for text in texts) + " |\n"


def with_tables(page: str) -> str:
    """``page`` with the tables in their place."""
    before, _, rest = page.partition(BEGIN)
    return before + BEGIN + tables() + END + rest.partition(END)[2]


if __name__ == "__main__":
    PAGE.write_text(with_tables(PAGE.read_text()))
