"""``python -m benchmarks [--short | --quick]``: measure, print, and write docs/performance.md.

``--short``: one latency and one boot time only, in eight minutes. ``--quick``: 32 servers at most, and nothing is written.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from itertools import chain

from . import order, overhead, page, registration, typed
from .measure import PEERS, SCRIPTS, Bench, Figures, Setting

NUMBERS = (1, 8, 32, 128, 512)
LATENCIES, BOOTS = (0.02, 0.2), (1.0, 30.0)
ENGINES = (1, 8, 32, 64)
POLLS = [Setting(32, boot=boot, poll=poll) for boot in (5.0, 30.0) for poll in (0.25, 1.0, 4.0)]
MANY = [registration.Setting(16, 8), registration.Setting(8, 8, 25), registration.Setting(8, 8, 25, jitter=5)]
DASK_MOST = 32  # servers; it takes four times as long for these already, and minutes for 128


def settings(most: int, others: bool) -> list[Setting]:
    numbers = [Setting(n) for n in NUMBERS if n <= most]
    if not others:
        return numbers
    more = [Setting(n, latency=latency) for latency in LATENCIES for n in (32, 512)]
    more += [Setting(n, boot=boot) for boot in BOOTS for n in (32, 512)]
    return numbers + more


def contenders(setting: Setting) -> list[str]:
    return [name for name in SCRIPTS if name != "dask-cloudprovider" or setting.n <= DASK_MOST]


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
    yield page.engines_table([typed.measure(Setting(n)) for n in ENGINES[: 2 if short else None]])
    yield page.polling_table([Bench(setting).measure("ipp-griffin") for setting in POLLS[: 3 if short else None]])


def on_servers(short: bool) -> Iterator[str]:
    """Agents and engines: what is measured on the servers, and with the controller."""
    yield overhead.overhead_table([(latency, overhead.measure(latency, 3 if short else 5)) for latency in (0.0, 0.05)])
    yield order.order_table(order.measure((1, 4, 16) if short else (1, 2, 4, 8, 16), 1 if short else 2))
    many = [registration.Setting(8, 8)] if short else MANY
    yield registration.registration_tables([registration.measure(setting) for setting in many])


if __name__ == "__main__":
    main()
