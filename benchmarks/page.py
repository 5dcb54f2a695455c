"""Figures -> the tables and the plot of docs/performance.md. What is between the marks there is written here, and nothing else."""

from __future__ import annotations

import os
import platform
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import date
from pathlib import Path

from .measure import PATIENCE, Figures
from .tables import table
from .typed import Typed

DOCS = Path(__file__).parents[1] / "docs"
BEGIN, END = "<!-- figures: written by `make bench` -->", "<!-- end of the figures -->"
HEADINGS = (
    "servers",
    "ms a request, s to boot",
    "",
    "all ACTIVE (s)",
    "over the limit (s)",
    "x limit",
    "requests",
    "CPU (s)",
    "MB",
    "all gone (s)",
    "requests",
    "times ours",
)


def write(servers: Sequence[Figures], tables: Iterable[str]) -> None:
    """Put the tables, that of ``servers`` first, between the marks of docs/performance.md, and the plot beside it."""
    page = DOCS / "performance.md"
    text = "\n\n".join([_machine(), servers_table(servers), *tables])
    pattern = re.compile(f"{re.escape(BEGIN)}.*?{re.escape(END)}", re.DOTALL)
    page.write_text(pattern.sub(lambda _: f"{BEGIN}\n\n{text}\n\n{END}", page.read_text()))
    plot(servers, DOCS / "performance.svg")


def _machine() -> str:
    return (
        f"Measured in one run of `make bench` on {date.today():%-d %B %Y}: {os.cpu_count()} cores ({platform.machine()}), Python "
        f"{platform.python_version()}. The dev cloud ran on the same cores."
    )


def servers_table(measured: Sequence[Figures]) -> str:
    """A line for each contender on each cloud. "Times ours": its seconds and its requests, each as a multiple of this project's."""
    ours = {figures.setting: figures for figures in measured if figures.contender == "ipp-griffin"}
    rows = []
    for f in measured:
        setting = f.setting
        rows.append(
            (
                str(setting.n),
                f"{setting.latency * 1000:.0f}, {setting.boot:g}",
                f.contender,
                _number(f.active) if f.active is not None else f"more than {PATIENCE} ({f.seen} are)",
                _number(f.over),
                _number(f.times),
                str(sum(f.requests.values())) if f.active is not None else "",
                _number(f.cpu),
                _number(f.mb, 0),
                _number(f.stop),
                str(sum(f.stop_requests.values())) if f.stop is not None else "",
                _ratio(f, ours.get(setting)),
            )
        )
    return table(HEADINGS, rows)


def kinds_table(measured: Sequence[Figures]) -> str:
    """What the requests were about, from the first one until all servers were ACTIVE, at 50 ms and 5 s."""
    shown = [f for f in measured if (f.setting.latency, f.setting.boot) == (0.05, 5.0) and f.active is not None]
    kinds = sorted({kind for f in shown for kind in f.requests}, key=lambda kind: -max(f.requests[kind] for f in shown))
    rows = [(str(f.setting.n), f.contender, *(str(f.requests[kind]) for kind in kinds)) for f in shown]
    return "Those requests, by what they are about:\n\n" + table(("servers", "", *kinds), rows)


def polling_table(measured: Sequence[Figures]) -> str:
    """This project, polling more or less often."""
    rows = [
        (
            f"{f.setting.boot:g}",
            f"{f.setting.poll:g}",
            _number(f.active),
            _number(f.over),
            str(f.requests["GET servers"]),
        )
        for f in measured
    ]
    headings = ("s to boot", "`poll_interval` (s)", "all ACTIVE (s)", "over the limit (s)", "listings of servers")
    return f"{measured[0].setting.n} servers at 50 ms, polled more or less often:\n\n" + table(headings, rows)


def engines_table(measured: Sequence[Typed]) -> str:
    rows = [
        (
            str(t.setting.n),
            f"{t.setting.latency * 1000:.0f}, {t.setting.boot:g}",
            _number(t.registered),
            _number(t.controller),
            _number(t.engines),
            _number(t.over),
            _number(t.gone),
        )
        for t in measured
    ]
    headings = (
        "engines, one a server",
        "ms a request, s to boot",
        "from `ipcluster start` to all registered (s)",
        "ipcontroller by hand (s)",
        "ipengines by hand (s)",
        "over the limit (s)",
        "all gone (s)",
    )
    return "With real engines, which share these cores:\n\n" + table(headings, rows)


def plot(measured: Sequence[Figures], path: Path) -> None:
    """Seconds and requests until all servers are ACTIVE, by their number, at 50 ms a request and 5 s to boot."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "ipp-griffin"
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    lines: dict[str, list[Figures]] = {}
    for f in measured:
        if (f.setting.latency, f.setting.boot) == (0.05, 5.0) and f.active is not None:
            lines.setdefault(f.contender, []).append(f)
    for contender, found in lines.items():
        numbers = [f.setting.n for f in found]
        axes[0].plot(numbers, [f.active for f in found], marker="o", label=contender)
        axes[1].plot(numbers, [sum(f.requests.values()) for f in found], marker="o", label=contender)
    limit = sorted({(f.setting.n, f.setting.limit) for found in lines.values() for f in found})
    axes[0].plot(*zip(*limit, strict=True), linestyle=":", color="grey", label="limit")
    for axis, title in zip(axes, ("seconds until all are ACTIVE", "requests until then"), strict=True):
        axis.set(xscale="log", yscale="log", xlabel="servers", title=title)
        axis.set_xticks([n for n, _ in limit], [str(n) for n, _ in limit])
        axis.minorticks_off()
        axis.grid(visible=True, alpha=0.3)
        axis.legend()
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


def _number(value: float | None, digits: int = 2) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def _ratio(f: Figures, ours: Figures | None) -> str:
    if ours is None or f is ours or f.active is None or ours.active is None:
        return ""

    def total(requests: Counter[str]) -> int:
        return sum(requests.values())

    return f"{f.active / ours.active:.2f} s, {total(f.requests) / total(ours.requests):.2f} requests"
