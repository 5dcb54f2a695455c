"""`Leftovers`: what a start tells of earlier clusters, and that nothing about it fails a start."""

import asyncio
import logging
import threading
import types

import pytest

from ipp_griffin.cluster.inventory import Clusters
from ipp_griffin.launchers import leftovers as module
from ipp_griffin.launchers.leftovers import Leftovers


def left(number, uid="0000000000aa"):
    server = types.SimpleNamespace(name=f"griffin-{uid}-{number}")
    return types.SimpleNamespace(server=server, cluster=types.SimpleNamespace(uid=uid), why="is in SHUTOFF")


def look():
    return Leftovers(None, "ipp-griffin", uid="0000000000bb", log=logging.getLogger("start"))


async def test_servers_of_other_clusters_are_told_and_a_few_of_them_named(monkeypatch, caplog):
    found = [left(0, uid="0000000000bb"), *map(left, range(5))]
    monkeypatch.setattr(Clusters, "servers_left", lambda self: found)
    await look().tell()
    (told,) = caplog.messages
    assert told.startswith(
        "Earlier clusters of yours left 5 servers, which the cloud may bill: griffin-0000000000aa-0 is in SHUTOFF;"
    )
    assert told.endswith("griffin-0000000000aa-2 is in SHUTOFF; and 2 more. `ipp-griffin reap` deletes what is left.")


@pytest.mark.parametrize("error", [ZeroDivisionError("oops"), None])
async def test_nothing_is_told_where_nothing_was_found_or_it_could_not_be_asked(monkeypatch, caplog, error):
    def servers_left(self):
        if error:
            raise error
        return [left(0, uid="0000000000bb")]

    monkeypatch.setattr(Clusters, "servers_left", servers_left)
    await look().tell()
    assert caplog.messages == []


async def test_a_search_that_hangs_holds_up_a_start_for_a_bounded_time(monkeypatch, caplog):
    woken = threading.Event()
    monkeypatch.setattr(Clusters, "servers_left", lambda self: woken.wait(60))
    monkeypatch.setattr(module, "PATIENCE", 0.01)
    await asyncio.wait_for(look().tell(), 30)
    woken.set()
    assert caplog.messages == []
