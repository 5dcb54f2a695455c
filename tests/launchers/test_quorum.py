"""`GriffinEngineSetLauncher.min_engines`: with so many engines a start succeeds; what becomes of the others depends on who stays to see to them."""

import json
import logging
import types
from dataclasses import replace
from pathlib import Path

import pytest

from ipp_griffin.common.errors import SettingError
from ipp_griffin.launchers import GriffinEngineSetLauncher, engines

from .doors import CONNECTION


@pytest.fixture
async def launcher(fake_cloud, store, hub, cluster, tmp_path, no_pauses, monkeypatch):
    """One with a quorum of one, on a cloud that never builds the second server."""
    (tmp_path / "security").mkdir()
    settings = {"min_engines": 1, "build_timeout": 1.0, "max_replacements": 0, "poll_interval": 0.1}
    made = GriffinEngineSetLauncher(parent=cluster, profile_dir=str(tmp_path), engine_set_id="1700000000", **settings)
    made.environment = {"IPP_CONNECTION_INFO": json.dumps(CONNECTION)}
    Path(made.connection_files["client"]).write_text(json.dumps(CONNECTION))
    fake_cloud.shows = lambda server: replace(server, status="BUILD") if server.name.endswith("-1") else server
    everyone = hub.engines

    def those_of_the_first(engine_set=""):
        return {uuid: id for uuid, id in everyone(engine_set).items() if uuid.split("-")[1] == "0"}

    monkeypatch.setattr(hub, "engines", those_of_the_first)
    cluster.launcher = made
    yield made
    made._stopping.set()  # ends the watcher


async def test_more_than_there_are_is_no_quorum(launcher, fake_cloud):
    launcher.min_engines = 2
    with pytest.raises(
        SettingError, match="GriffinEngineSetLauncher.min_engines is 2, but only 1 engines are to start: set it to 1 or"
    ):
        await launcher.start(1)
    assert fake_cloud.calls == []


async def test_with_a_quorum_the_start_ends_while_the_rest_goes_on(launcher, fake_cloud):
    await launcher.start(2)
    assert (launcher.state, len(fake_cloud.there)) == ("running", 2)


async def test_where_nobody_stays_every_straggler_is_settled_first(launcher, fake_cloud, cluster, caplog):
    cluster.shutdown_atexit = False
    caplog.set_level(logging.INFO, "traitlets")
    await launcher.start(2)
    assert launcher.state == "running"
    assert [server.name[-2:] for server in fake_cloud.there.values()] == ["-0"]
    said = [record.getMessage() for record in caplog.records]
    assert any(text.startswith("1 of 2 engines are connected") and "enough for min_engines" in text for text in said)


@pytest.mark.parametrize(
    ("app", "shutdown_atexit", "stays"),
    [
        (None, True, True),
        (None, False, False),
        (types.SimpleNamespace(daemonize=False), True, True),
        (types.SimpleNamespace(daemonize=True), True, False),
    ],
    ids=["a script", "one that leaves the cluster behind", "ipcluster", "ipcluster --daemonize"],
)
async def test_who_stays_to_see_to_stragglers(launcher, cluster, monkeypatch, app, shutdown_atexit, stays):
    monkeypatch.setattr(engines.ipcluster, "application", lambda launcher: app)
    cluster.shutdown_atexit = shutdown_atexit
    assert launcher._lives_on() is stays
