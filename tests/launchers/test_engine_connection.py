"""The connection file for engines: where it comes from, and which controller is refused before anything is made."""

import json
import logging
import types

import psutil
import pytest
from ipyparallel.cluster.launcher import LocalControllerLauncher

from ipp_griffin.common.errors import GriffinError, SettingError
from ipp_griffin.launchers import GriffinControllerLauncher
from ipp_griffin.launchers.engine_connection import engine_connection
from ipp_griffin.model.plan import Network

from ..fakes import FakeHub
from .doors import CONNECTION

LOOPBACK = {**CONNECTION, "interface": "tcp://127.0.0.1", "location": "127.0.0.1"}
NETWORK = Network("n1", "net", ("10.0.0.0/16",))


@pytest.fixture
def launcher(tmp_path):
    """As much of a launcher as is used: a running controller, its connection file in the environment."""
    hub = FakeHub()
    return types.SimpleNamespace(
        environment={"IPP_CONNECTION_INFO": json.dumps(CONNECTION)},
        connection_files={name: str(tmp_path / f"ipcontroller-{name}.json") for name in ("engine", "client")},
        parent=types.SimpleNamespace(controller=object(), engines={}),
        hub=hub,
        open_hub=lambda timeout=30: hub({}, timeout=timeout),
        log=logging.getLogger("connection"),
    )


async def test_connection_info_is_read_from_the_environment(launcher):
    assert await engine_connection(launcher, NETWORK) == CONNECTION
    assert launcher.hub.methods == []


async def test_connection_info_is_else_read_from_the_file(launcher, tmp_path):
    """`ipcluster engines` has no controller object."""
    launcher.environment, launcher.parent.controller = {}, None
    filed = {**CONNECTION, "registration": 22000}
    (tmp_path / "ipcontroller-engine.json").write_text(json.dumps(filed))
    assert await engine_connection(launcher, NETWORK) == filed
    assert launcher.hub.methods == ["open", "close"]


async def test_without_connection_info_it_says_what_is_missing(launcher, tmp_path):
    launcher.environment = {}
    with pytest.raises(SettingError) as raised:
        await engine_connection(launcher, NETWORK)
    assert str(raised.value) == (
        f"No controller is running here: {tmp_path / 'ipcontroller-engine.json'} does not exist. "
        "Start one with `ipcluster start`."
    )


async def test_files_of_a_controller_that_died_are_no_controller(launcher):
    """Servers would be made for nothing."""

    launcher.parent.controller = None
    launcher.hub.fail["open"] = [GriffinError("The controller at tcp://10.0.0.1:20000 does not answer (no answer).")]
    with pytest.raises(GriffinError) as raised:
        await engine_connection(launcher, NETWORK)
    assert str(raised.value) == (
        "The controller at tcp://10.0.0.1:20000 does not answer (no answer). "
        "If not, run `ipcluster stop`, then `ipcluster start`."
    )


async def test_a_tunnel_that_has_ended_is_opened_by_connect(launcher, tmp_path):
    """The controller may be well: to stop it and start another would be bad advice."""
    launcher.parent.controller = None
    clients = tmp_path / "ipcontroller-client.json"
    me = psutil.Process()
    for tunnel in (str(tmp_path / "griffin-ssh-1"), [me.pid, me.create_time() - 100]):  # as of 0.1
        clients.write_text(json.dumps({**CONNECTION, "tunnel": tunnel}))
        with pytest.raises(
            GriffinError, match="SSH tunnel .* has ended. Open a new one with `ipp-griffin connect CLUSTER`"
        ):
            await engine_connection(launcher, NETWORK)
    assert launcher.hub.methods == []
    clients.write_text(json.dumps({**CONNECTION, "tunnel": [me.pid, me.create_time()]}))
    assert await engine_connection(launcher, NETWORK) == CONNECTION


@pytest.mark.parametrize(
    ("controller", "hint"),
    [
        (
            GriffinControllerLauncher,
            "Remove --ip from the controller's arguments, or set GriffinControllerLauncher.ip.",
        ),
        (object, 'Use controller="griffin" (ipcluster: --controller=griffin).'),
    ],
)
async def test_a_controller_that_servers_cannot_reach_is_refused_with_what_to_do(launcher, controller, hint):
    launcher.environment = {"IPP_CONNECTION_INFO": json.dumps(LOOPBACK)}
    launcher.parent.controller = controller()
    with pytest.raises(SettingError) as raised:
        await engine_connection(launcher, NETWORK)
    assert str(raised.value) == (
        f"The controller listens on 127.0.0.1, where servers on network 'net' can't reach it. {hint}"
    )


@pytest.mark.parametrize(
    "given", [{"controller_args": ["--nodb"]}, {"controller_ip": "127.0.0.1"}, {"controller_location": "here"}]
)
async def test_ipyparallels_own_controller_is_not_restarted_where_the_user_has_set_it_up(launcher, given):
    """A restart would lose that. Without such settings it is: `test_cluster_api` of the end-to-end tests."""
    launcher.environment = {"IPP_CONNECTION_INFO": json.dumps(LOOPBACK)}
    untouched = {"controller_args": [], "controller_ip": "", "controller_location": ""}
    launcher.parent = types.SimpleNamespace(controller=LocalControllerLauncher(), engines={}, **{**untouched, **given})
    with pytest.raises(SettingError, match='can\'t reach it. Use controller="griffin"'):
        await engine_connection(launcher, NETWORK)
