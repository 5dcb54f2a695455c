"""``python -m benchmarks [--short | --quick]``: measure, print, and write docs/performance.md.

``--short``: one latency and one boot time only. ``--quick``: 32 servers at most, and nothing is written.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from itertools import chain

from . import order, overhead, page, registration, typed
from .measure import PEERS, SCRIPTS, Bench, Figures, Setting

NUMBERS = (1, 8, 32, 128, 512)
LATENCIES, BOOTS = (0.05, 0.02, 0.2), (5.0, 1.0, 30.0)  # seconds; the first of each is what all else is measured at
ENGINES = (1, 8, 32, 64)
POLLS = [Setting(32, boot=boot, poll=poll) for boot in (5.0, 30.0) for poll in (0.25, 1.0, 4.0)]
MANY = [registration.Setting(16, 8), registration.Setting(8, 8, 25), registration.Setting(8, 8, 25, jitter=5)]


def settings(most: int, others: bool) -> list[Setting]:
    """Every number on the first cloud, and on ``others`` with another latency or another time to boot."""
    clouds = [(LATENCIES[0], BOOTS[0])]
    if others:
        clouds += [(latency, BOOTS[0]) for latency in LATENCIES[1:]] + [(LATENCIES[0], boot) for boot in BOOTS[1:]]
    return [Setting(n, latency, boot) for latency, boot in clouds for n in NUMBERS if n <= most]


def contenders(setting: Setting) -> list[str]:
    """All, but dask-cloudprovider, which takes minutes for many servers, on the first cloud only, and for 32 on those that differ in one thing."""
    differences = (setting.latency != LATENCIES[0]) + (setting.boot != BOOTS[0])
    dask = not differences or setting.n == 32 and differences == 1
    return [name for name in SCRIPTS if name != "dask-cloudprovider" or dask]


def main() -> None:
    quick, short = "--quick" in sys.argv, "--short" in sys.argv
    if not PEERS.exists():
        sys.exit("dask-cloudprovider is not there: `make bench` installs it.")
    servers: list[Figures] = []
    for setting in settings(32 if quick else 512, others=not (quick or short)):
        for contender in contenders(setting):
            servers.append(Bench(setting).measure(contender))
            print(page.servers_table(servers).splitlines()[-1], flush=True)
    tables = [page.kinds_table(servers)]
    for table in chain(of_clusters(quick or short), on_servers(quick or short)):
        print(table, flush=True)
        tables.append(table)
    if not quick:
        page.write(servers, tables)


def of_clusters(short: bool) -> Iterator[str]:
    """Whole starts, as they are typed, and how often they look at their servers."""
    starts = 1 if short else 5
    yield page.engines_table(
        [typed.measure(Setting(n), starts if n <= 8 else 1) for n in ENGINES[: 2 if short else None]]
    )
    yield page.polling_table([Bench(setting).measure("ipp-griffin") for setting in POLLS[: 3 if short else None]])


def on_servers(short: bool) -> Iterator[str]:
    """Agents and engines: what is measured on the servers, and with the controller."""
    yield overhead.overhead_table([(latency, overhead.measure(latency, 3 if short else 5)) for latency in (0.0, 0.05)])
    yield order.order_table(order.measure((1, 4, 16) if short else (1, 2, 4, 8, 16), 1 if short else 2))
    many = [registration.Setting(8, 8)] if short else MANY
    yield registration.registration_tables([registration.measure(setting) for setting in many])


if __name__ == "__main__":
    main()
