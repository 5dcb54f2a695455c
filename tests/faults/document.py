"""The table of faults as docs/reliability.md has it. ``python -m tests.faults.document`` writes it there anew."""

from __future__ import annotations

import re
from pathlib import Path

from .row import Row
from .table import GROUPS

PAGE = Path(__file__).parents[2] / "docs" / "reliability.md"
BEGIN, END = "<!-- The tables: python -m tests.faults.document -->\n", "<!-- End of the tables. -->\n"
HEADINGS = {
    "requests": "What services answer",
    "lives": "Servers, engines, controller",
    "processes": "Your own processes",
    "server controllers": "A controller on a server",
}


def line(row: Row) -> str:
    """A row as a line of Markdown."""
    said = re.sub(r"\s*…\s*", " … ", row.says).strip(" …")
    sees = f"{row.sees}: “{said}”" if said else row.sees
    cells = (row.fault, row.stage, sees, row.left)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"


def tables() -> str:
    """All of it."""
    text = ""
    for name, rows in GROUPS.items():
        text += f"\n### {HEADINGS[name]}\n\n| fault | stage | what you see | what is left |\n|---|---|---|---|\n"
        text += "".join(line(row) for row in rows)
    return text + "\n"


def with_tables(page: str) -> str:
    """``page`` with the tables in their place."""
    before, _, rest = page.partition(BEGIN)
    return before + BEGIN + tables() + END + rest.partition(END)[2]


if __name__ == "__main__":
    PAGE.write_text(with_tables(PAGE.read_text()))
