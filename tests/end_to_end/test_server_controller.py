"""The controller on a server of its own: `--controller=griffin-server`, and `ipp-griffin connect` from other machines."""

import contextlib
import json
import signal
import stat
from pathlib import Path

import ipyparallel as ipp
import psutil
import pytest

from ipp_griffin.devcloud.guests import decode

ON_SERVER = ("ipcluster", "start", "--profile=griffin", "--controller=griffin-server")
START = (*ON_SERVER, "--daemonize")
STOP = ("ipcluster", "stop", "--profile=griffin")


def client_file(shell, cluster_id="") -> str:
    part = f"-{cluster_id}" if cluster_id else ""
    return str(shell.profile() / "security" / f"ipcontroller{part}-client.json")


def container(shell) -> str:
    """The option for clouds on which tests have a prefix of their own."""
    return f"--container={getattr(shell.cloud, 'prefix', 'ipp-griffin')}"


def clusters(shell) -> list:
    return json.loads(shell.run("ipp-griffin", "ps", container(shell), "--json"))


def pids(rc, timeout=60) -> dict[int, int]:
    """Engine id -> process."""

    def pid():
        import os

        return os.getpid()

    pid.__module__ = "__main__"
    return dict(zip(rc.ids, rc[:].apply_async(pid).get(timeout), strict=True))


def ipcontroller_of(uid) -> psutil.Process:
    """The first process of a cluster's ipcontroller; servers run on this machine."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if "ipyparallel.controller" in process.cmdline() and process.environ().get("GRIFFIN_UID") == uid:
                found.append(process)
    parents = {process.pid for process in found}
    (first,) = (process for process in found if process.ppid() not in parents)
    return first


@contextlib.contextmanager
def suspended(uid):
    """While a cluster's hub answers nobody."""
    first = ipcontroller_of(uid)
    processes = [first, *first.children(recursive=True)]
    for process in processes:
        process.suspend()
    try:
        yield
    finally:
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):  # its server was deleted
                process.resume()


def wait_for_answers(shell, eventually, n, timeout=60) -> dict[int, int]:
    """Until a new Client computes on ``n`` engines: the processes of these. What is sent to an engine that has not found the
    controller again is lost."""
    answers = {}

    def computes():
        try:
            with ipp.Client(client_file(shell), timeout=5) as rc:
                answers.update(pids(rc, timeout=3) if len(rc.ids) == n else {})
        except (OSError, TimeoutError):
            return False
        return len(answers) == n

    eventually(computes, f"answers of {n} engines", timeout)
    return answers


def test_a_cluster_from_start_to_stop(shell):
    output = shell.run(*START, "-n", "2", "--GriffinServerControllerLauncher.flavor=" + flavor(shell))
    assert "The controller runs on server griffin-" in output
    assert shell.controllers() == []  # none is a process of this user's machine
    with ipp.Client(client_file(shell)) as rc:
        assert rc[:].apply_sync(pow, 2, 5) == [32, 32]
    for kind in ("client", "engine"):
        path = shell.profile() / "security" / f"ipcontroller-{kind}.json"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    (cluster,) = clusters(shell)
    phases = {server["engine_set"]: (server["phase"], server["flavor"]) for server in cluster["servers"]}
    assert phases.pop("controller") == ("controller", flavor(shell))
    assert (cluster["engines"], cluster["engines_registered"]) == (2, 2)
    assert "ipcontroller answers at" in shell.run("ipp-griffin", "logs", container(shell), "griffin")
    shell.run("ipcluster", "engines", "--profile=griffin", "--daemonize", "-n", "1")
    assert len(shell.engine_ids()) == 3
    shell.run(*STOP)
    assert list((shell.profile() / "log").glob("ipcontroller-*.log"))
    shell.assert_nothing_left()


def flavor(shell) -> str:
    """One that is not the engines'."""
    return "dev.medium" if shell.cloud.name == "devcloud" else "m1.medium"


@pytest.mark.needs("devcloud")
def test_the_python_api(shell):
    script = shell.folder / "script.py"
    script.write_text(
        "import ipyparallel as ipp\n"
        'with ipp.Cluster(profile="griffin", controller="griffin-server", engines="griffin", n=2) as rc:\n'
        "    print(rc[:].apply_sync(pow, 2, 5))\n"
    )
    assert "[32, 32]" in shell.run("python", str(script), timeout=240)
    shell.assert_nothing_left()


def test_eight_engines_keep_their_ids_and_processes_when_ipcontroller_is_killed(shell, eventually):
    """It comes back with the same ports and keys; a client that was connected goes on, too."""
    shell.run(*START, "-n", "8", "--GriffinEngineSetLauncher.engines_per_server=4")
    before = json.loads((shell.profile() / "security" / "ipcontroller-client.json").read_text())
    with ipp.Client(client_file(shell)) as rc:
        processes = pids(rc)
        assert len(processes) == 8
        (cluster,) = clusters(shell)
        ipcontroller_of(cluster["uid"]).kill()
        assert wait_for_answers(shell, eventually, 8) == processes
        assert pids(rc) == processes
    assert json.loads((shell.profile() / "security" / "ipcontroller-client.json").read_text()) == before
    assert "killed by signal 9" in shell.run("ipp-griffin", "logs", container(shell), "griffin")
    shell.run(*STOP)


@pytest.mark.needs("devcloud")
def test_after_a_reboot_of_its_server_the_controller_is_back_and_engines_carry_on(shell, openstack_client, eventually):
    shell.run(*START, "-n", "2")
    with ipp.Client(client_file(shell)) as rc:
        processes = pids(rc)
    (name,) = (name for name in shell.cloud.servers() if "-controller-" in name)
    openstack_client("server", "reboot", "--hard", "--wait", name)
    assert wait_for_answers(shell, eventually, 2) == processes
    shell.run(*STOP)


def test_the_cluster_outlives_its_launcher_and_is_used_and_stopped_from_another_machine(shell, elsewhere, eventually):
    launcher = shell.start(*ON_SERVER, "-n", "2")
    shell.wait_until_connected(eventually, 2)
    launcher.send_signal(signal.SIGKILL)
    launcher.wait()
    output = elsewhere.run("ipp-griffin", "connect", container(shell), "griffin")
    assert 'can be used from here: ipp.Client(profile="griffin").' in output
    script = elsewhere.folder / "script.py"
    script.write_text(
        "import ipyparallel as ipp\n"
        'with ipp.Client(profile="griffin") as rc:\n'
        "    print(rc[:].apply_sync(pow, 2, 5))\n"
        'cluster = ipp.Cluster.from_file(profile="griffin")\n'
        "print(len(cluster.connect_client_sync().ids))\n"
    )
    assert elsewhere.run("python", str(script)).split("\n")[:2] == ["[32, 32]", "2"]
    assert stat.S_IMODE((elsewhere.profile() / "security" / "ipcontroller-client.json").stat().st_mode) == 0o600
    elsewhere.run(*STOP)
    elsewhere.assert_nothing_left()
    shell.run(*STOP)  # forgets it here, too


def rules(neutron, name) -> set:
    """What lets whom in to which ports of TCP, in the group whose name ends so."""
    found = neutron.network.security_groups(project_id=neutron.project)
    (group,) = (group for group in found if group.name.endswith(name))
    return {
        (rule["port_range_min"], rule["port_range_max"], rule["remote_ip_prefix"], rule["remote_group_id"])
        for rule in group.security_group_rules
        if rule["direction"] == "ingress"
    }


def test_its_security_group_lets_clients_and_engines_in_to_their_own_ports_and_nobody_else(shell, neutron):
    shell.run(*START, "-n", "1", "--GriffinCloud.manage_security_group=True")
    with ipp.Client(client_file(shell)) as rc:
        assert rc[:].apply_sync(pow, 2, 5) == [32]
    groups = {g.name: g.id for g in neutron.network.security_groups(project_id=neutron.project)}
    (engines,) = (id for name, id in groups.items() if name.startswith("griffin-") and name.endswith("-engines"))
    files = {
        kind: json.loads(Path(client_file(shell).replace("client", kind)).read_text()) for kind in ("client", "engine")
    }
    by_whom = {"client": set(), "engine": set()}
    for first, last, prefix, group in rules(neutron, "-controller"):
        assert (group == engines and prefix is None) or (group is None and prefix.endswith("/32"))
        by_whom["engine" if group else "client"] |= set(range(first, last + 1))
    for kind, ports in by_whom.items():
        named = [
            files[kind].get(name)
            for name in (
                "registration",
                "control",
                "mux",
                "task",
                "iopub",
                "notification",
                "hb_ping",
                "hb_pong",
                "broadcast",
            )
        ]
        assert ports == {int(p) for port in named if port for p in (port if isinstance(port, list) else [port])}
    shell.run(*STOP)
    assert [
        g for g in neutron.network.security_groups(project_id=neutron.project) if g.name.startswith("griffin-")
    ] == []


def floating_ips(neutron) -> dict:
    return {one.floating_ip_address: one for one in neutron.network.ips(project_id=neutron.project)}


@pytest.mark.needs("devcloud")
def test_clients_reach_it_by_a_floating_ip_that_is_released_with_it(shell, elsewhere, neutron):
    shell.run(
        *START,
        "-n",
        "1",
        "--GriffinCloud.manage_security_group=True",
        "--GriffinServerControllerLauncher.floating_ip=auto",
    )
    (address,) = floating_ips(neutron)
    assert json.loads(Path(client_file(shell)).read_text())["interface"] == f"tcp://{address}"
    with ipp.Client(client_file(shell)) as rc:
        assert rc[:].apply_sync(pow, 2, 5) == [32]
    elsewhere.run("ipp-griffin", "connect", "griffin")
    with ipp.Client(client_file(elsewhere)) as rc:
        assert rc[:].apply_sync(pow, 2, 5) == [32]
    shell.run(*STOP)
    assert floating_ips(neutron) == {}


@pytest.mark.needs("devcloud")
def test_a_floating_ip_that_was_there_before_is_only_detached(shell, neutron):
    pool = next(n for n in neutron.network.networks() if n.is_router_external)
    mine = neutron.network.create_ip(floating_network_id=pool.id).floating_ip_address
    asked = f"--GriffinServerControllerLauncher.floating_ip={mine}"
    shell.run(*START, "-n", "1", "--GriffinCloud.manage_security_group=True", asked)
    assert floating_ips(neutron)[mine].port_id
    output = shell.run(*START, "-n", "1", "--cluster-id=second", asked, status=1)
    assert mine in output.splitlines()[-1]
    shell.run(*STOP)
    assert not floating_ips(neutron)[mine].port_id
    neutron.network.delete_ip(floating_ips(neutron)[mine])


@pytest.mark.needs("devcloud")
def test_where_no_rule_lets_this_machine_in_the_start_says_so_and_leaves_nothing(shell, neutron):
    options = (
        "--GriffinServerControllerLauncher.floating_ip=auto",
        "--GriffinServerControllerLauncher.reach_timeout=2",
    )
    output = shell.run(*START, "-n", "1", *options, status=1)
    assert "but this machine does not reach it at" in output
    assert "openstack security group rule create --ingress --protocol tcp --dst-port 20000:20019" in output
    assert floating_ips(neutron) == {}
    shell.assert_nothing_left()


@pytest.mark.needs("devcloud")
@pytest.mark.parametrize(
    ("setting", "line"),
    [
        ("floating_ip=203.0.113.9", "This project has no floating IP 203.0.113.9."),
        ("key_name=nope", "No key pair 'nope'."),
        ("flavor=nope", "No flavor 'nope'."),
        ("network=nope", "No network 'nope'."),
        ("ports=1-5", "must be a range FIRST-LAST of at least 20 ports"),
        ("ssh_server=me@127.0.0.1:1", "The SSH gateway me@127.0.0.1:1 does not let you in:"),
        ("ssh_server=-oProxyCommand=x", "is no gateway: give it as user@host"),
    ],
)
def test_bad_input_is_one_clear_line_and_leaves_nothing(shell, setting, line):
    output = shell.run(*START, "-n", "1", f"--GriffinServerControllerLauncher.{setting}", status=1)
    assert line in output.splitlines()[-1]
    shell.assert_nothing_left()


@pytest.mark.needs("devcloud")
def test_a_pool_that_does_not_exist_leaves_nothing(shell):
    options = ("floating_ip=auto", "floating_ip_pool=nope")
    output = shell.run(*START, "-n", "1", *(f"--GriffinServerControllerLauncher.{o}" for o in options), status=1)
    assert "There is no external network 'nope'." in output.splitlines()[-1]
    shell.assert_nothing_left()


@pytest.mark.needs("devcloud")
def test_a_pool_without_an_address_left_leaves_nothing(shell):
    text = "No more IP addresses available on network 5d1f."
    body = {"NeutronError": {"type": "IpAddressGenerationFailure", "message": text, "detail": ""}}
    shell.cloud.faults.set(
        {"service": "network", "methods": ["POST"], "path": "/floatingips$", "status": 409, "body": body}
    )
    output = shell.run(*START, "-n", "1", "--GriffinServerControllerLauncher.floating_ip=auto", status=1)
    assert "No floating IP is left" in output
    shell.assert_nothing_left()


@pytest.mark.needs("devcloud")
def test_a_server_that_goes_to_error_is_replaced(shell):
    shell.cloud.faults.set({"server": "-controller-0$", "fail_build": "the disk broke"})
    output = shell.run(*START, "-n", "1")
    assert "the disk broke" in output
    assert "takes its slot" in output
    with ipp.Client(client_file(shell)) as rc:
        assert rc[:].apply_sync(pow, 2, 5) == [32]
    shell.run(*STOP)


@pytest.mark.needs("devcloud")
def test_an_idle_cluster_ends_its_engines_and_its_controller(shell, eventually):
    shell.run(*START, "-n", "1", "--GriffinServerControllerLauncher.idle_timeout=20")
    uid = clusters(shell)[0]["uid"]
    with ipp.Client(client_file(shell)) as rc:
        assert rc[:].apply_sync(pow, 2, 5) == [32]
    eventually(lambda: "controller" not in {s["phase"] for s in clusters(shell)[0]["servers"]}, "the end", timeout=90)
    logs = shell.run("ipp-griffin", "logs", uid)
    assert "no engine has had anything to do for 20 s (idle_timeout)" in logs
    shell.run(*STOP)


@pytest.mark.needs("devcloud")
def test_controller_and_engines_on_networks_of_their_own(shell, neutron, openstack_client):
    networks = {}
    for name, cidr in (("head", "127.91.0.0/24"), ("lab", "127.92.0.0/24")):
        networks[name] = neutron.network.create_network(name=name).id
        neutron.network.create_subnet(network_id=networks[name], ip_version=4, cidr=cidr)
    of_each = [
        f"--Griffin{kind}Launcher.network={network}"
        for kind, network in (("ServerController", "head"), ("EngineSet", "lab"))
    ]
    output = shell.run(*START, "-n", "2", *of_each)
    assert "network head" in output and "network lab" in output
    servers = json.loads(openstack_client("server", "list", "-f", "json"))
    addresses = {server["Name"].split("-")[2]: server["Networks"] for server in servers}
    assert addresses.pop("controller")["head"][0].startswith("127.91.0.")
    assert all(address["lab"][0].startswith("127.92.0.") for address in addresses.values())
    with ipp.Client(client_file(shell)) as rc:
        assert rc[:].apply_sync(pow, 2, 5) == [32, 32]
    shell.run(*STOP)
    for network in networks.values():
        neutron.network.delete_network(network)
    shell.assert_nothing_left()


@pytest.mark.needs("devcloud")
def test_no_key_is_shown_anywhere(shell):
    """Keys are in connection files and in private objects only: not in user-data, metadata, arguments, consoles, logs or reports."""
    output = shell.run("ipcluster", "start", "--debug", *START[2:], "-n", "1")
    (state, uid) = (shell.cloud.running.state, clusters(shell)[0]["uid"])
    with ipp.Client(client_file(shell)) as rc:
        rc[:].apply_sync(pow, 2, 5)
    (stored,) = (container.objects for (_, name), container in state.containers.items() if name.endswith(uid))
    keys = json.loads(stored["controller/connection.json"].data)["controller"]["keys"]
    assert sorted(keys) == ["curve_public", "curve_secret", "session"] and all(len(key) > 30 for key in keys.values())
    shown = {"output": output, "logs": shell.run("ipp-griffin", "logs", uid)}
    for server in state.servers.values():
        shown[f"user-data of {server.name}"] = decode(server.user_data).decode()
        shown[f"metadata of {server.name}"] = json.dumps([server.metadata, server.tags])
        shown[f"console of {server.name}"] = state.console(server.id, None)
    for name, thing in stored.items():
        if not name.endswith(("connection.json", "client.json", "/handover")):
            shown[name] = thing.data.decode()
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            shown[f"arguments of {process.pid}"] = " ".join(process.cmdline())
    shown["stop"] = shell.run("ipcluster", "stop", "--debug", "--profile=griffin")
    shown |= {str(path): path.read_text() for path in (shell.profile() / "log").iterdir() if path.is_file()}
    assert [(where, name) for where, text in shown.items() for name, key in keys.items() if key in text] == []
