"""`Watcher`: what it tells, what it replaces, and when it calls a set gone."""

import logging
import threading

import pytest

from ipp_griffin.cluster.engine_set import Survey
from ipp_griffin.cluster.reconciler import Reconciler
from ipp_griffin.cluster.watcher import Watcher
from ipp_griffin.common.errors import Unavailable
from ipp_griffin.model.names import Place, server_tags
from ipp_griffin.model.server import Server
from ipp_griffin.model.slots import Deadlines, Roster

from ..fakes.cloud import SET, UID

OUTAGE = Unavailable("Can't list servers: the cloud said 503.")


def name(number):
    return f"griffin-{UID}-{SET}-{number}"


def servers(*states: str) -> Survey:
    """A survey of servers in slots 0, 1, ...; "": no such server; "ERROR:why" has a fault."""
    listed = []
    for number, state in enumerate(states):
        status, _, fault = state.partition(":")
        if status:
            tags = server_tags(UID, Place(SET, number))
            listed.append(Server(id=f"id{number}", name=name(number), status=status, fault=fault, tags=tags))
    return Survey(tuple(listed))


class ScriptedStop(threading.Event):
    """An event whose waits return at once; it is set when the looks are used up."""

    def __init__(self, looks):
        super().__init__()
        self.looks, self.waits = looks, []

    def wait(self, timeout=None):
        self.waits.append(timeout)
        if not self.looks:
            self.set()
        return self.is_set()


class Looks:
    """An engine set of another process, as the looks find it: a Survey each, or an error to raise."""

    engine_set = SET

    def __init__(self, looks):
        self.looks = looks

    def survey(self, *, reports):
        found = self.looks.pop(0)
        if isinstance(found, Exception):
            raise found
        return found

    def delete_spares(self, survey, known):
        return survey


class Watched:
    """A watcher over what its looks will find."""

    def __init__(self, *looks, interval=10.0, deletes=True):
        self.deletes = deletes  # whether what is left of a gone set can be deleted
        self.looks = list(looks)
        self.stop = ScriptedStop(self.looks)
        self.gone = 0
        found = Looks(self.looks)
        self.watcher = watcher(lambda: found, self.stop, on_gone=self.on_gone, interval=interval)

    def on_gone(self):
        self.gone += 1
        return self.deletes


def watcher(open_engine_set, stop, *, on_gone, interval):
    log = logging.getLogger("watched")
    reconciler = Reconciler(
        open_engine_set,
        Roster([], Deadlines(1, 1, 1, 1), quorum=0),
        create=None,
        on_change=lambda: None,
        goes_on=lambda: True,
        stopping=stop,
        log=log,
    )
    return Watcher(
        reconciler,
        open_hub=pytest.fail,
        on_gone=on_gone,
        replace=False,
        stop=stop,
        interval=interval,
        poll_interval=1.0,
        log=log,
    )


def messages(caplog):
    return [record.getMessage() for record in caplog.records]


def test_it_counts_the_servers_that_live():
    watched = Watched(servers("ACTIVE", "BUILD", "REBOOT", "ERROR", "SHUTOFF", "SOFT_DELETED", "SUSPENDED"), servers())
    assert watched.watcher.poll_once() == 3
    assert watched.watcher.poll_once() == 0


def test_each_change_is_logged_once_within_two_polls(caplog):
    watched = Watched(
        servers("ACTIVE", "ACTIVE", "ACTIVE"),
        servers("ERROR:disk full", "ACTIVE", "ACTIVE"),
        servers("ERROR:disk full", "SHUTOFF", ""),
        servers("ERROR:disk full", "SHUTOFF", ""),
        servers("ERROR:disk full", "SHUTOFF", ""),
    )
    for _ in range(5):
        watched.watcher.poll_once()
    assert messages(caplog) == [
        f"Server {name(0)} (engines) went to ERROR: disk full.",
        f"Server {name(1)} (engines) went to SHUTOFF: it is off.",
        f"Server {name(2)} (engines) is gone: somebody deleted it.",
    ]


def test_a_server_that_came_back_and_died_again_is_told_again(caplog):
    looks = [servers("SHUTOFF")] * 2 + [servers("ACTIVE")] + [servers("SHUTOFF")] * 2
    watched = Watched(*looks)
    for _ in looks:
        watched.watcher.poll_once()
    assert messages(caplog) == [f"Server {name(0)} (engines) went to SHUTOFF: it is off."] * 2


def test_an_outage_changes_nothing_and_is_told_once(caplog):
    watched = Watched(servers("ACTIVE"), OUTAGE, OUTAGE, servers("ACTIVE"), OUTAGE)
    assert [watched.watcher.poll_once() for _ in range(5)] == [1, None, None, 1, None]
    assert messages(caplog) == [f"Can't list the servers now; will retry: {OUTAGE}"] * 2


def test_two_polls_in_a_row_without_a_living_server_and_the_set_is_gone():
    watched = Watched(servers("ACTIVE"), servers(), servers("SHUTOFF"), servers())
    watched.watcher._run()
    assert watched.gone == 1
    assert watched.looks == [servers()]
    assert watched.stop.waits == [10.0, 10.0, 1.0]


@pytest.mark.parametrize("between", [servers("ACTIVE"), OUTAGE])
def test_one_poll_without_a_living_server_is_not_believed(between):
    watched = Watched(servers(), between, servers(), between)
    watched.watcher._run()
    assert watched.gone == 0


def test_where_the_rest_cannot_be_deleted_it_tries_again():
    watched = Watched(servers(), servers(), servers(), OUTAGE, servers("ACTIVE"), deletes=False)
    watched.watcher._run()
    assert watched.gone == 2


def test_all_servers_gone_at_once_is_one_line(caplog):
    """Somebody stopped the cluster from elsewhere: not one line for each of a thousand servers."""
    watched = Watched(servers("ACTIVE", "ACTIVE", "ACTIVE"), servers(), servers(), servers())
    for _ in range(4):
        watched.watcher.poll_once()
    assert messages(caplog) == ["All servers of this engine set are gone: stopped from elsewhere, or deleted."]


def test_whatever_a_poll_raises_is_survived_and_told_once(caplog):
    watched = Watched(servers("ACTIVE"), *[ZeroDivisionError("oops")] * 2, servers("ACTIVE"))
    assert [watched.watcher.poll_once() for _ in range(4)] == [1, None, None, 1]
    assert messages(caplog) == ["Polling the servers failed; will retry: ZeroDivisionError: oops"]


def test_an_outage_for_ever_is_no_end():
    watched = Watched(*[OUTAGE] * 50)
    watched.watcher._run()
    assert watched.gone == 0
    assert len(watched.stop.waits) == 51


def test_the_second_poll_never_comes_later_than_the_interval():
    watched = Watched(servers(), servers(), interval=0.2)
    watched.watcher._run()
    assert watched.stop.waits == [0.2, 0.2]


def test_servers_that_the_process_which_started_the_set_has_replaced_are_not_missed(caplog):
    """Else a restored set would take its replaced servers for gone, and delete what is left."""
    new = Server("new", name("0-1"), "ACTIVE", tags=server_tags(UID, Place(SET, 0, 1)))
    watched = Watched(servers("ACTIVE"), Survey((new,)), Survey((new,)), Survey((new,)))
    watched.watcher._run()
    assert watched.gone == 0


def test_the_stop_event_ends_the_thread():
    stop, looked = threading.Event(), threading.Event()

    class Living(Looks):
        def survey(self, *, reports):
            looked.set()
            return servers("ACTIVE")

    before = set(threading.enumerate())
    watcher(lambda: Living([]), stop, on_gone=pytest.fail, interval=0.001).start()
    (thread,) = (t for t in threading.enumerate() if t not in before and t.name == "griffin-watch")
    assert thread.daemon
    assert looked.wait(30)
    stop.set()
    thread.join(30)
    assert not thread.is_alive()
