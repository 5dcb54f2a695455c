"""What an ipcluster process needs beyond ipyparallel's contract for launchers."""

import json
import logging
import signal
import threading
import types
from pathlib import Path

import ipyparallel as ipp
import pytest
from ipyparallel.cluster.app import IPClusterStart
from tornado.ioloop import IOLoop

from ipp_griffin.common.errors import GriffinError, SettingError
from ipp_griffin.launchers import ipcluster
from ipp_griffin.launchers.ipcluster import (
    SharedClusterFile,
    _end,
    application,
    check_profile,
    end_failed_start,
    end_failed_stop,
)


@pytest.fixture
def cluster_file(tmp_path):
    path = tmp_path / "cluster-.json"
    path.write_text(
        json.dumps({"controller": {"class": "griffin"}, "engines": {"class": "griffin", "sets": {"100": {"n": 1}}}})
    )
    return path


def test_adding_an_engine_set_keeps_what_the_file_knew(cluster_file):
    SharedClusterFile(str(cluster_file)).put("200", {"n": 2})
    content = json.loads(cluster_file.read_text())
    assert content["controller"] == {"class": "griffin"}
    assert content["engines"]["sets"] == {"100": {"n": 1}, "200": {"n": 2}}


def test_removing_an_engine_set_leaves_the_others(cluster_file):
    shared = SharedClusterFile(str(cluster_file))
    shared.put("200", {"n": 2})
    shared.remove("100")
    shared.remove("100")
    assert json.loads(cluster_file.read_text())["engines"]["sets"] == {"200": {"n": 2}}


def test_an_id_in_use_gets_a_number(cluster_file):
    """ipyparallel's ids are whole seconds, and two processes can start engines in the same one."""
    shared = SharedClusterFile(str(cluster_file))
    assert shared.free_id("100") == "100-1"
    assert shared.free_id("101") == "101"


def test_no_other_file_is_left_beside_it(cluster_file):
    SharedClusterFile(str(cluster_file)).put("200", {})
    assert [p.name for p in cluster_file.parent.iterdir()] == ["cluster-.json"]


def test_a_file_that_is_gone_stays_gone(cluster_file):
    shared = SharedClusterFile(str(cluster_file))
    cluster_file.unlink()
    shared.put("200", {"n": 2})
    shared.remove("200")
    assert shared.free_id("100") == "100"
    assert not cluster_file.exists()


def test_the_file_is_taken_over_only_from_another_process(cluster_file):
    """A cluster with a controller of its own writes its own file."""
    own = types.SimpleNamespace(controller=object(), cluster_file=str(cluster_file))
    assert SharedClusterFile.take_over(own) is None
    assert own.cluster_file == str(cluster_file)
    joined = types.SimpleNamespace(controller=None, cluster_file=str(cluster_file))
    assert SharedClusterFile.take_over(joined).path == cluster_file
    assert joined.cluster_file == ""


def test_without_a_file_there_is_nothing_to_take_over(tmp_path):
    fresh = types.SimpleNamespace(controller=None, cluster_file=str(tmp_path / "none.json"))
    assert SharedClusterFile.take_over(fresh) is None
    assert SharedClusterFile.take_over(None) is None


def launcher_under(parent, profile_dir=""):
    return types.SimpleNamespace(parent=parent, profile_dir=str(profile_dir), log=logging.getLogger("test"))


def test_the_application_is_found_above_the_cluster():
    app = IPClusterStart()
    assert application(launcher_under(types.SimpleNamespace(parent=app))) is app
    assert application(launcher_under(types.SimpleNamespace(parent=None))) is None


async def test_a_failed_start_raises_outside_ipcluster():
    error = GriffinError("no image")
    with pytest.raises(GriffinError, match="no image"):
        await end_failed_start(launcher_under(None), error)


async def test_a_failed_stop_raises_outside_ipcluster():
    error = GriffinError("2 servers are left")
    with pytest.raises(GriffinError) as raised:
        await end_failed_stop(launcher_under(None), error)
    assert raised.value is error


async def test_a_failed_stop_raises_outside_the_loop_of_the_application():
    """As at exit, when ipcluster's own loop has ended; nobody tries the same once more then."""
    app = IPClusterStart()
    app.loop = IOLoop(make_current=False)
    cluster = types.SimpleNamespace(parent=app, shutdown_atexit=True)
    with pytest.raises(GriffinError, match="2 servers are left"):
        await end_failed_stop(launcher_under(cluster), GriffinError("2 servers are left"))
    assert cluster.shutdown_atexit is False
    app.loop.close()


@pytest.mark.parametrize("daemonize", [False, True])
async def test_a_failed_start_whose_controller_can_not_be_stopped_says_so_and_ends_with_status_1(
    monkeypatch, caplog, daemonize
):
    async def stop_cluster():
        raise GriffinError("2 servers are left")

    app, ended = IPClusterStart(daemonize=daemonize), []
    monkeypatch.setattr(app, "exit", ended.append)
    await _end(app, launcher_under(types.SimpleNamespace(stop_cluster=stop_cluster)))
    assert (ended, caplog.messages) == ([1], ["2 servers are left"])


def test_sigterm_ends_a_start_as_ctrl_c_does(monkeypatch):
    """That is ipyparallel's; only Ctrl-C is tried end to end."""
    handlers = {}
    monkeypatch.setattr(signal, "signal", handlers.__setitem__)
    IPClusterStart().init_signal()
    assert handlers[signal.SIGTERM] == handlers[signal.SIGINT]


def test_a_file_that_is_half_written_is_read_again(cluster_file):
    """ipyparallel writes it in place."""
    whole = cluster_file.read_text()
    cluster_file.write_text(whole[:20])
    writer = threading.Timer(0.15, lambda: cluster_file.write_text(whole))
    writer.start()
    SharedClusterFile(str(cluster_file)).put("200", {"n": 2})
    writer.join()
    assert set(json.loads(cluster_file.read_text())["engines"]["sets"]) == {"100", "200"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("c = get_config()\nc.X.y = (\n", r"ipcluster_config\.py, line 2: SyntaxError: '\(' was never closed"),
        ("c = get_config()\n\nc.X.y = oops\n", r"ipcluster_config\.py, line 3: NameError: name 'oops' is not defined"),
    ],
)
def test_a_broken_profile_file_is_named_with_its_line(tmp_path, text, expected):
    (tmp_path / "ipcluster_config.py").write_text(text)
    with pytest.raises(SettingError, match=expected):
        check_profile(launcher_under(types.SimpleNamespace(parent=IPClusterStart()), tmp_path))


def test_a_sound_profile_passes(tmp_path):
    (tmp_path / "ipengine_config.py").write_text("c = get_config()\nc.IPEngine.timeout = 3\n")
    check_profile(launcher_under(types.SimpleNamespace(parent=IPClusterStart()), tmp_path))


def test_a_cluster_file_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    """A SIGKILL may come while it is written; `ipcluster stop` needs it then."""
    cluster = ipp.Cluster(profile_dir=str(tmp_path), load_profile=False, cluster_id="x")
    ipcluster.guard(types.SimpleNamespace(parent=cluster))
    cluster.write_cluster_file()
    before = Path(cluster.cluster_file).read_text()

    def broken_off(scratch, path):
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", broken_off)
    with pytest.raises(KeyboardInterrupt):
        cluster.write_cluster_file()
    assert Path(cluster.cluster_file).read_text() == before
    assert [path.name for path in Path(cluster.cluster_file).parent.iterdir()] == [Path(cluster.cluster_file).name]
