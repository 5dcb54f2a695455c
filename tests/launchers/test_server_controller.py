"""`GriffinServerControllerLauncher` over fakes of all doors, and with an agent of two lines."""

import asyncio
import json
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from traitlets.config import Config

from ipp_griffin.common.errors import GriffinError, QuotaError, SettingError, Stopped, Unavailable
from ipp_griffin.controller import hub as hub_module
from ipp_griffin.controller.heartbeats import for_controller
from ipp_griffin.launchers import GriffinServerControllerLauncher
from ipp_griffin.launchers import local_access as attaching
from ipp_griffin.model.connection import TUNNEL, cluster_uid
from ipp_griffin.model.plan import Flavor, Image

from .doors import ADDRESS, StoreWithAgent


@pytest.fixture
def doors(doors):
    """Its store has an agent."""
    doors.store = StoreWithAgent(doors.calls)
    return doors


@pytest.fixture
def make(fake_cloud, store, hub, cluster, tmp_path, no_pauses, monkeypatch):
    """``make(setting=value, ...)``: a launcher as ipyparallel makes one, on a cloud whose servers have an address from their creation on."""
    fake_cloud.address = ADDRESS
    fake_cloud.offers = replace(fake_cloud.offers, key_names=["dev"])
    monkeypatch.setattr(attaching, "why_unreachable", lambda info: "")
    monkeypatch.setattr(attaching, "own_address", lambda address: {ADDRESS: "192.0.2.1/32"}[address])
    made = []

    def make(**settings):
        settings = {"poll_interval": 0.0, **settings}
        launcher = GriffinServerControllerLauncher(parent=cluster, profile_dir=str(tmp_path), **settings)
        cluster.launcher = launcher
        made.append(launcher)
        return launcher

    yield make
    for launcher in made:
        launcher._stopping.set()  # ends the watcher


@pytest.fixture
async def launcher(make):
    return make()


def files_of(launcher) -> dict:
    return {name: json.loads(Path(path).read_text()) for name, path in launcher.connection_files.items()}


def only_the_project_is_left(fake_cloud, store, launcher):
    assert (fake_cloud.there, store.there, launcher.state) == ({}, {}, "after")
    assert fake_cloud.groups.there == fake_cloud.floating_ips.there == []
    assert fake_cloud.groups.asked("remove", "uid") == fake_cloud.floating_ips.asked("release", "uid") == [launcher.uid]
    assert not any(Path(path).exists() for path in launcher.connection_files.values())


# --- start


async def test_a_start_returns_with_private_connection_files_of_a_server_that_runs(launcher, fake_cloud, store):
    await launcher.start()
    assert launcher.state == "running"
    assert store.addresses == ["", ADDRESS]
    files = files_of(launcher)
    assert {cluster_uid(info) for info in files.values()} == {launcher.uid}
    assert {Path(path).stat().st_mode & 0o777 for path in launcher.connection_files.values()} == {0o600}
    assert await launcher.get_connection_info() == files
    assert json.loads(store.there[launcher.uid]["controller/client.json"]) == files["client"]


async def test_the_uid_is_on_record_before_the_server_is_asked_for(launcher, cluster):
    await launcher.start()
    state, creations = cluster.written[0]
    assert (state["uid"], creations) == (launcher.uid, 0)


async def test_the_state_is_json_and_holds_no_key(launcher, store):
    await launcher.start()
    text = json.dumps(launcher.to_dict())
    assert not any(key in text for key in store.private_object["controller"]["keys"].values())


async def test_its_server_counts_as_no_engine(launcher, fake_cloud):
    await launcher.start()
    (plan,) = fake_cloud.plans
    assert plan.servers[0].name == f"griffin-{launcher.uid}-controller-0"
    assert plan.servers[0].metadata["griffin:engines"] == "0"


async def test_its_server_has_a_flavor_and_an_image_of_its_own(make, fake_cloud, cluster):
    fake_cloud.offers = replace(
        fake_cloud.offers,
        flavors=[Flavor("f1", "small", 1, 1024), Flavor("f2", "large", 4, 8192)],
        images=[Image("i1", "snapshot1"), Image("i2", "snapshot2")],
    )
    cluster.config.GriffinCloud.update(flavor="small", image="snapshot2")
    cluster.config.GriffinEngineSetLauncher.flavor = "small"
    await make(flavor="large", image="snapshot1").start()
    (plan,) = fake_cloud.plans
    assert (plan.flavor.name, plan.image.name) == ("large", "snapshot1")


async def test_what_the_user_set_for_ipcontroller_travels(make, store, tmp_path):
    (tmp_path / "ipcontroller_config.py").write_text("c.HeartMonitor.period = 1")
    launcher = make(controller_args=["--nodb"], environment={"A": "b"}, packages=["numpy"], idle_timeout=60.0)
    await launcher.start()
    controller = store.private_object["controller"]
    assert (controller["args"], controller["config"]) == (["--nodb"], for_controller("c.HeartMonitor.period = 1"))
    assert (store.private_object["environment"], store.private_object["packages"]) == ({"A": "b"}, ["numpy"])
    assert store.private_object["timeouts"]["idle"] == 60.0


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"controller_args": ["--ip=*"]}, "remove --ip from the controller's arguments"),
        ({"controller_args": ["--location=here"]}, "remove --location from"),
        ({"controller_args": ["--ports=1-2"]}, "remove --ports from"),
        ({"controller_args": ["--reuse"]}, "can't be reused"),
        ({"ports": "20000-20010"}, "at least 20 ports"),
        ({"ssh_server": "two words"}, "is no gateway"),
        ({"ssh_server": "-oProxyCommand=x@"}, "is no gateway"),
        ({"ssh_server": "debian@"}, "needs a key pair to let you in: set GriffinCloud.key_name"),
        ({"ssh_server": "me@gate", "floating_ip": "auto"}, "is of no use behind the gateway me@gate"),
        ({"reach_timeout": float("nan")}, "reach_timeout can't be nan seconds"),
        (
            {"idle_timeout": float("nan")},
            "GriffinServerControllerLauncher.idle_timeout can't be nan seconds: set it to 315360000 or less",
        ),
        ({"max_lifetime": float("inf")}, "max_lifetime can't be inf seconds"),
        ({"start_timeout": 1e300}, r"start_timeout can't be 1e\+300 seconds"),
        ({"floating_ip": "automatic"}, "floating_ip 'automatic' is neither \"auto\" nor an IPv4 address"),
        ({"client_address": "my house"}, "client_address 'my house' is no IPv4 address"),
        ({"client_address": "2001:db8::/64"}, "is no IPv4 address"),
        ({"flavor": "huge"}, r"No flavor 'huge'\. .* Set GriffinServerControllerLauncher\.flavor\."),
        ({"network": "lab"}, r"No network 'lab'\. .* Set GriffinServerControllerLauncher\.network\."),
        ({"key_name": "eve"}, r"No key pair 'eve'\. .* Set GriffinServerControllerLauncher\.key_name\."),
        ({"cluster_id": "a/b"}, "can't be part of a file name"),
    ],
)
async def test_what_can_not_be_is_told_before_anything_is_made(make, fake_cloud, store, settings, why):
    launcher = make(**settings)
    with pytest.raises(SettingError, match=why):
        await launcher.start()
    assert (fake_cloud.plans, store.addresses, launcher.state) == ([], [], "after")


async def test_an_outage_while_it_starts_fails_nothing_and_is_told_once(launcher, store, caplog):
    down = Unavailable("the store said 503")
    store.fail["get"] = [down, down]
    await launcher.start()
    assert [r.getMessage() for r in caplog.records if "503" in r.getMessage()] == ["Will retry: the store said 503"]


async def test_a_server_in_error_is_replaced_and_then_given_up_with_its_cause(make, fake_cloud, store):
    fake_cloud.status, fake_cloud.fault = "ERROR", "the disk broke"
    launcher = make(max_replacements=1)
    with pytest.raises(GriffinError, match=r"The controller got no server\. .*went to ERROR: the disk broke"):
        await launcher.start()
    assert len(fake_cloud.plans) == 2
    only_the_project_is_left(fake_cloud, store, launcher)


async def test_what_its_agent_gave_up_for_is_the_cause(launcher, fake_cloud, store):
    store.agent = "failed"
    with pytest.raises(GriffinError, match="gave up: no python"):
        await launcher.start()
    only_the_project_is_left(fake_cloud, store, launcher)


async def test_files_with_other_keys_are_not_taken(launcher, fake_cloud, store):
    store.forge = lambda files: {**files, "client": {**files["client"], "curve_serverkey": "mine"}}
    with pytest.raises(GriffinError, match="damaged, or not of this cluster"):
        await launcher.start()
    only_the_project_is_left(fake_cloud, store, launcher)


async def test_a_server_that_is_never_ready_ends_the_start_at_its_deadline(make, fake_cloud, store):
    store.agent = "agent"
    launcher = make(start_timeout=1.0, poll_interval=1.0)
    with pytest.raises(GriffinError, match=r"was not ready within 1 s \(it is in phase agent\)"):
        await launcher.start()
    only_the_project_is_left(fake_cloud, store, launcher)


async def test_a_controller_that_can_not_be_reached_says_how_and_leaves_nothing(make, fake_cloud, store, monkeypatch):
    monkeypatch.setattr(attaching, "why_unreachable", lambda info: "Connection refused")
    launcher = make(reach_timeout=1.0)
    with pytest.raises(GriffinError) as told:
        await launcher.start()
    for part in (
        "this machine does not reach it at 10.0.0.9 port 20000 (Connection refused)",
        'set GriffinServerControllerLauncher.floating_ip = "auto"',
        "--dst-port 20000:20019",
    ):
        assert part in str(told.value)
    only_the_project_is_left(fake_cloud, store, launcher)


async def test_no_try_to_reach_it_takes_long_so_that_a_signal_or_a_stop_is_seen_soon(make, monkeypatch):
    """What comes just before zmq's poll begins is seen only when it ends (once in 500 tries on two busy cores)."""
    tries = []

    def answers_nobody(info, *, timeout):
        tries.append(timeout)
        launcher._stopping.set()
        raise GriffinError("The controller does not answer.")

    monkeypatch.setattr(hub_module, "Hub", answers_nobody)
    launcher = make(reach_timeout=600.0)
    with pytest.raises(Stopped):
        await launcher.start()
    assert tries == [attaching.TRY]


async def test_a_stop_while_it_starts_is_no_failure_of_the_server(launcher, fake_cloud, store):
    store.agent, waits = "agent", asyncio.Event()
    launcher.poll_interval = 0.05
    starting = asyncio.ensure_future(launcher.start())
    while not fake_cloud.plans:
        await asyncio.sleep(0.01)
    await launcher.stop()
    with pytest.raises(Stopped, match="^The controller was stopped while it was starting"):
        await starting
    assert (fake_cloud.there, store.there, launcher.state, waits.is_set()) == ({}, {}, "after", False)


# --- how clients reach it


async def test_its_group_is_there_from_the_creation_and_lets_in_exactly_the_ports_of_each(make, fake_cloud):
    launcher = make(config=Config(GriffinCloud={"manage_security_group": True}))
    await launcher.start()
    (plan,) = fake_cloud.plans
    assert plan.security_groups == ("g-2",)
    engines, clients = [(20000, 20002)], [(20000, 20000), (20012, 20012), (20014, 20014)]
    assert fake_cloud.groups.asked("let_in", "engines", "clients", "client") == [(engines, clients, "192.0.2.1/32")]


@pytest.mark.parametrize(
    ("settings", "clients", "client"),
    [
        ({"client_address": "203.0.113.7/32"}, 3, "203.0.113.7/32"),
        ({"client_address": "203.0.113.7"}, 3, "203.0.113.7/32"),
        ({"client_address": "203.0.113.7/24"}, 3, "203.0.113.0/24"),
        ({"ssh_server": "me@gate"}, 3, "192.0.2.7/32"),
        ({"ssh_server": "me@mute"}, 3, "192.0.2.8/32"),  # says nothing of its address: that of its name
        ({"ssh_server": "debian@"}, 1, "192.0.2.1/32"),  # to its port 22
    ],
)
async def test_whoever_clients_come_from_is_let_in(make, fake_cloud, monkeypatch, settings, clients, client):
    tunnels(monkeypatch)
    launcher = make(config=Config(GriffinCloud={"manage_security_group": True, "key_name": "dev"}), **settings)
    await launcher.start()
    ((ranges, whom),) = fake_cloud.groups.asked("let_in", "clients", "client")
    assert (len(ranges), whom) == (clients, client)


async def test_a_floating_ip_is_what_clients_connect_to_and_not_engines(make, fake_cloud, store):
    launcher = make(floating_ip="auto")
    await launcher.start()
    files = files_of(launcher)
    assert (files["client"]["interface"], files["engine"]["interface"]) == ("tcp://203.0.113.5", f"tcp://{ADDRESS}")
    assert fake_cloud.floating_ips.asked("attach", "server_id") == ["id-0"]


@pytest.mark.parametrize(
    "error",
    [QuotaError("No floating IP is left in pool public."), SettingError("There is no external network 'nope'.")],
)
async def test_without_a_floating_ip_no_server_is_asked_for(make, fake_cloud, store, error):
    fake_cloud.floating_ips.fail["reserve"] = [error]
    launcher = make(floating_ip="auto")
    with pytest.raises(type(error), match=str(error)):
        await launcher.start()
    assert fake_cloud.plans == []
    only_the_project_is_left(fake_cloud, store, launcher)


def tunnels(monkeypatch) -> list:
    """Tunnels that are opened, and what closes them, instead of ssh: /tunnel/1, /tunnel/2 ..."""
    log, opened = [], set()

    def local_end(info):
        number = 1 + sum(what == "open" for what, _ in log)
        return {**info, "interface": "tcp://127.0.0.1", "ssh": "", TUNNEL: f"/tunnel/{number}"}

    def open_tunnel(info, local, timeout):
        log.append(("open", info["ssh"]))
        opened.add(local[TUNNEL])

    def close_tunnel(record):
        if record in opened:
            log.append(("close", record))
            opened.remove(record)

    def check_gateway(ssh_server):
        log.append(("check", ssh_server))
        return "" if ssh_server == "me@mute" else "192.0.2.7"

    monkeypatch.setattr(attaching, "check_gateway", check_gateway)
    monkeypatch.setattr(attaching, "resolved", lambda ssh_server: "192.0.2.8")
    monkeypatch.setattr(attaching, "local_end", local_end)
    monkeypatch.setattr(attaching, "open_tunnel", open_tunnel)
    monkeypatch.setattr(attaching, "is_open", lambda record: record in opened)
    monkeypatch.setattr(attaching, "close_tunnel", close_tunnel)
    monkeypatch.setattr(attaching, "said", lambda record: "channel 2: open failed")
    return log


async def test_a_gateway_that_does_not_let_in_is_told_before_anything_is_made(make, fake_cloud, store, monkeypatch):
    def refuses(ssh_server):
        raise SettingError(f"The SSH gateway {ssh_server} does not let you in: Permission denied (publickey).")

    tunnels(monkeypatch)
    monkeypatch.setattr(attaching, "check_gateway", refuses)
    launcher = make(ssh_server="me@gate")
    with pytest.raises(SettingError, match="The SSH gateway me@gate does not let you in: Permission denied"):
        await launcher.start()
    assert (fake_cloud.plans, store.addresses, launcher.state) == ([], [], "after")


async def test_through_a_gateway_this_machine_has_a_tunnel_until_the_stop(make, store, monkeypatch):
    log = tunnels(monkeypatch)
    launcher = make(ssh_server="me@gate")
    await launcher.start()
    assert files_of(launcher)["client"]["interface"] == "tcp://127.0.0.1"
    assert json.loads(store.there[launcher.uid]["controller/client.json"])["ssh"] == "me@gate"
    assert launcher.to_dict()["tunnels"] == ["/tunnel/1"]
    await launcher.stop()
    assert log == [("check", "me@gate"), ("open", "me@gate"), ("close", "/tunnel/1")]


async def test_a_tunnel_to_the_server_itself_is_opened_until_that_lets_in_and_is_on_record_at_once(
    make, cluster, monkeypatch
):
    """Its SSH server starts some time after ipcontroller, and knows the key a moment later."""
    log, refusals = tunnels(monkeypatch), [GriffinError("Connection refused"), GriffinError("Permission denied")]
    monkeypatch.setattr(attaching, "TICK", 0.0)
    on_record, opens = [], attaching.open_tunnel

    def open_tunnel(info, local, timeout):
        on_record.append(cluster.written[-1][0]["tunnels"])
        opens(info, local, timeout)
        if refusals:
            attaching.close_tunnel(local[TUNNEL])
            raise refusals.pop(0)

    monkeypatch.setattr(attaching, "open_tunnel", open_tunnel)
    launcher = make(ssh_server="debian@", config=Config(GriffinCloud={"key_name": "dev"}))
    await launcher.start()
    assert [what for what, _ in log] == ["open", "close", "open", "close", "open"]
    assert log[0] == ("open", f"debian@{ADDRESS}")
    assert on_record == [["/tunnel/1"], ["/tunnel/2"], ["/tunnel/3"]]


async def test_a_tunnel_that_the_connection_file_from_the_server_names_is_none_of_this_machine(
    make, store, monkeypatch
):
    """Whoever writes there must not choose what a stop here ends and removes."""
    log = tunnels(monkeypatch)
    store.forge = lambda files: {**files, "client": {**files["client"], TUNNEL: "/home/me"}}
    monkeypatch.setattr(attaching, "close_tunnel", lambda record: log.append(("close", record)))
    launcher = make()
    await launcher.start()
    assert TUNNEL not in files_of(launcher)["client"]
    await launcher.stop()
    assert ("close", "/home/me") not in log


async def test_a_stop_ends_the_tunnel_that_another_process_opened_since(make, monkeypatch):
    log = tunnels(monkeypatch)
    launcher = make(ssh_server="me@gate")
    await launcher.start()
    path = Path(launcher.connection_files["client"])
    path.write_text(json.dumps({**json.loads(path.read_text()), TUNNEL: [4_000_000, 1.0]}))
    monkeypatch.setattr(attaching, "close_tunnel", lambda record: log.append(("close", record)))
    await launcher.stop()
    assert log[2:] == [("close", "/tunnel/1"), ("close", [4_000_000, 1.0])]


async def test_a_tunnel_that_ends_while_its_cluster_lives_is_opened_anew(make, monkeypatch):
    log = tunnels(monkeypatch)
    launcher = make(ssh_server="me@gate")
    await launcher.start()
    attaching.close_tunnel("/tunnel/1")
    info = await launcher.get_connection_info()
    assert info["client"][TUNNEL] == "/tunnel/2"
    assert launcher.to_dict()["tunnels"] == ["/tunnel/2"]
    await launcher.stop()
    assert log[1:] == [("open", "me@gate"), ("close", "/tunnel/1"), ("open", "me@gate"), ("close", "/tunnel/2")]


async def test_where_another_leads_nowhere_a_tunnel_that_was_there_before_is_there_still(make, hub, monkeypatch):
    """Clients may be using it."""
    log = tunnels(monkeypatch)
    launcher = make(ssh_server="me@gate", reach_timeout=1.0)
    await launcher.start()
    Path(launcher.connection_files["client"]).unlink()
    hub.reachable = ()
    with pytest.raises(GriffinError, match="does not answer"):
        await launcher.get_connection_info()
    assert log[1:] == [("open", "me@gate"), ("open", "me@gate"), ("close", "/tunnel/2")]
    assert launcher.to_dict()["tunnels"] == ["/tunnel/1"]


async def test_nobody_is_let_in_by_a_start_that_was_stopped(make, fake_cloud):
    launcher = make(config=Config(GriffinCloud={"manage_security_group": True}))
    await launcher.start()
    await launcher.stop()
    fake_cloud.calls.clear()
    with pytest.raises(Stopped):
        launcher.let_in({"interface": f"tcp://{ADDRESS}", "registration": 20000})
    assert fake_cloud.groups.methods == []


async def test_a_tunnel_that_leads_nowhere_is_closed(make, fake_cloud, store, hub, monkeypatch):
    log = tunnels(monkeypatch)
    hub.reachable = ()
    launcher = make(ssh_server="me@gate", reach_timeout=1.0)
    with pytest.raises(GriffinError, match=r"does not answer.* ssh says: channel 2: open failed\)"):
        await launcher.start()
    assert log[-1] == ("close", "/tunnel/1")
    only_the_project_is_left(fake_cloud, store, launcher)


# --- the end


async def test_a_stop_leaves_nothing_and_can_be_repeated(launcher, fake_cloud, store):
    await launcher.start()
    await launcher.stop()
    await launcher.stop()
    only_the_project_is_left(fake_cloud, store, launcher)


async def test_its_output_is_there_after_the_stop(launcher, store):
    await launcher.start()
    store.contents["controller/0.0/0001-engines"] = {"engines": [{"index": 0, "output": "hub started"}]}
    await launcher.stop()
    assert launcher.get_output() == "Output for controller 0.0\n  hub started"
    kept = Path(launcher.profile_dir, "log", f"ipcontroller-{launcher.uid}.log")
    assert kept.stat().st_mode & 0o777 == 0o600


async def test_restored_it_asks_nothing_and_is_stopped_whatever_the_config_says(launcher, fake_cloud, store, cluster):
    await launcher.start()
    state = json.loads(json.dumps(launcher.to_dict()))
    fake_cloud.calls.clear()
    restored = GriffinServerControllerLauncher.from_dict(state, parent=cluster)
    assert fake_cloud.calls == []
    assert (restored.state, restored.uid, restored.poll()) == ("running", launcher.uid, None)
    await restored.stop()
    assert (fake_cloud.there, store.there) == ({}, {})
    launcher._stopping.set()


async def test_without_files_here_they_are_fetched(launcher, store):
    await launcher.start()
    files = files_of(launcher)
    for path in launcher.connection_files.values():
        Path(path).unlink()
    assert await launcher.get_connection_info() == files


async def test_a_server_that_is_deleted_behind_its_back_ends_the_cluster(make, fake_cloud, store):
    ended = threading.Event()
    launcher = make(watch_interval=0.1)
    launcher.on_stop(lambda data: ended.set())
    await launcher.start()
    fake_cloud.there.clear()
    while not ended.is_set():
        await asyncio.sleep(0.02)
    assert store.there == {}
    assert launcher.state == "after"


async def test_a_signal_that_ends_it_stops_it_and_others_are_told_to_reach_nobody(launcher, fake_cloud, caplog):
    await launcher.start()
    assert launcher.signal(2) is None
    assert "was not sent: the controller runs on a server" in caplog.text
    await launcher.signal(15)
    assert fake_cloud.there == {}
