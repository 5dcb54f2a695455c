"""`ipp-griffin connect`: a cluster whose controller runs on a server is used from another machine, or nothing has happened there."""

import json
import shutil

import ipyparallel as ipp
import pytest

from .test_server_controller import ON_SERVER, START, STOP, client_file, clusters, container, rules, suspended


def test_connecting_twice_under_another_name_and_over_another_cluster(shell, elsewhere):
    shell.run(*START, "-n", "1")
    elsewhere.run("ipp-griffin", "connect", container(shell), "griffin")
    elsewhere.run("ipp-griffin", "connect", container(shell), "griffin")  # anew
    elsewhere.run("ipp-griffin", "connect", container(shell), "griffin", "--cluster-id=mine")
    assert elsewhere.cluster_files() == [
        "profile_griffin/security/cluster-.json",
        "profile_griffin/security/cluster-mine.json",
    ]
    mine = 'profile="griffin", cluster_id="mine"'
    script = f"import ipyparallel as ipp; print(ipp.Client({mine}).ids, ipp.Cluster.from_file({mine}).cluster_id)"
    assert "[0] mine" in elsewhere.run("python", "-c", script)
    elsewhere.run("ipcluster", "start", "--profile=griffin", "--daemonize", "-n", "1", "--cluster-id=other")
    output = elsewhere.run("ipp-griffin", "connect", container(shell), "griffin", "--cluster-id=other", status=1)
    assert "End it with `ipcluster stop --profile=griffin --cluster-id=other`, or say --cluster-id=NAME" in output
    elsewhere.run(*STOP, "--cluster-id=other")
    shell.run(*STOP)
    shell.run(*START, "-n", "1")
    elsewhere.run("ipp-griffin", "connect", container(shell), "griffin")  # takes the place of the one that has ended
    with ipp.Client(client_file(elsewhere)) as rc:
        assert rc[:].apply_sync(pow, 2, 5) == [32]
    shell.run(*STOP)


@pytest.mark.needs("devcloud")
def test_a_machine_that_connects_gets_the_profile_and_can_start_more_engines_on_the_cloud(shell, elsewhere):
    shell.run(*START, "-n", "1")
    shutil.rmtree(elsewhere.ipython)
    assert "has no settings" not in elsewhere.run("ipp-griffin", "connect", container(shell), "griffin")
    elsewhere.run("ipcluster", "engines", "--profile=griffin", "--daemonize", "-n", "1")
    assert len(shell.engine_ids()) == 2
    assert len(shell.cloud.servers()) == 3
    output = elsewhere.run("ipp-griffin", "connect", container(shell), "griffin", "--profile=default")
    assert "profile 'default' has no settings of griffin: `ipcluster engines` with it starts engines on this" in output
    shell.run(*STOP)


def test_a_connect_that_fails_leaves_neither_file_nor_profile_nor_rule(shell, elsewhere, neutron):
    shell.run(*START, "-n", "1", "--GriffinCloud.manage_security_group=True")
    before = rules(neutron, "-controller")
    shutil.rmtree(elsewhere.ipython)
    options = ("--client-address=203.0.113.7", "--timeout=1")
    with suspended(clusters(shell)[0]["uid"]):
        output = elsewhere.run("ipp-griffin", "connect", container(shell), "griffin", *options, status=1)
    assert "Its security group lets in 203.0.113.7; if the cloud sees another one, say --client-address" in output
    assert rules(neutron, "-controller") == before
    assert not list(elsewhere.ipython.glob("profile_griffin"))
    shell.run(*STOP)


@pytest.mark.needs("devcloud")
def test_connecting_to_a_cluster_that_starts_or_has_ended_or_by_a_name_that_can_not_be(
    shell, elsewhere, eventually, openstack_client
):
    shell.cloud.faults.set({"server": ".*-controller-.*", "silent": True})
    shell.start(*ON_SERVER, "-n", "1")
    eventually(shell.cloud.servers, "a server that starts")
    output = elsewhere.run("ipp-griffin", "connect", container(shell), "griffin", status=1)
    assert (
        "is not in the object store: its controller runs on no server of the cloud, or has not started yet." in output
    )
    shell.run("ipp-griffin", "stop", container(shell), "griffin")
    shell.cloud.faults.clear()
    eventually(lambda: shell.cluster_files() == [], "the start to give up")
    shell.run(*START, "-n", "1")
    for option in ("--profile=../up", "--cluster-id=a/b"):
        output = elsewhere.run("ipp-griffin", "connect", container(shell), "griffin", option, status=1)
        assert "Say --profile and --cluster-id, as this machine is to call it." in output
    output = elsewhere.run("ipp-griffin", "connect", container(shell), "griffin", "--client-address=house", status=1)
    assert "client_address 'house' is no IPv4 address, or range of such: give it as" in output
    (name,) = (name for name in shell.cloud.servers() if "-controller-" in name)
    openstack_client("server", "stop", name)
    eventually(lambda: "gone" in json.dumps(clusters(shell)), "a server that is off")
    output = elsewhere.run("ipp-griffin", "connect", container(shell), "griffin", status=1)
    assert f"has ended: its server {name} is gone. `ipp-griffin stop" in output
    shell.run(*STOP)


def test_a_cluster_that_nobody_has_and_one_whose_controller_is_on_no_server(shell, elsewhere):
    output = elsewhere.run("ipp-griffin", "connect", container(shell), "nobody", status=1)
    assert "There is no cluster 'nobody' in this project." in output
    shell.run("ipcluster", "start", "--profile=griffin", "--daemonize", "-n", "1")
    output = elsewhere.run("ipp-griffin", "connect", container(shell), "griffin", status=1)
    assert "not on a server of the cloud: copy its ipcontroller-client.json from there." in output
    assert list(elsewhere.ipython.glob("profile_*/security/*")) == []
    shell.run(*STOP)


def connect(shell, *options: str, status: int = 0) -> str:
    return shell.run("ipp-griffin", "connect", container(shell), "griffin", *options, status=status)


@pytest.mark.needs("devcloud")
def test_two_at_the_same_time_are_one_after_the_other(shell, elsewhere, eventually):
    shell.run(*START, "-n", "1")
    with suspended(clusters(shell)[0]["uid"]):
        first = elsewhere.start("ipp-griffin", "connect", "griffin", "--timeout=60")
        eventually(lambda: list(elsewhere.ipython.glob("profile_griffin/*")), "a connect that waits")
        assert "Another `ipp-griffin connect` of yours is at work on this machine" in connect(elsewhere, status=1)
    assert first.wait(60) == 0
    with ipp.Client(client_file(elsewhere)) as rc:
        assert rc[:].apply_sync(pow, 2, 5) == [32]
    shell.run(*STOP)


@pytest.mark.needs("devcloud")
def test_what_somebody_writes_into_the_profile_meanwhile_stays_when_it_fails(shell, elsewhere, eventually):
    shell.run(*START, "-n", "1")
    with suspended(clusters(shell)[0]["uid"]):
        first = elsewhere.start("ipp-griffin", "connect", "griffin", "--timeout=60")
        eventually((elsewhere.profile() / "ipengine_config.py").exists, "a connect that waits")
        (elsewhere.profile() / "ipengine_config.py").write_text("c.IPEngine.mine = 1\n")
        first.terminate()
        assert first.wait(30) == 143
    assert [str(p.relative_to(elsewhere.profile())) for p in elsewhere.profile().rglob("*")] == ["ipengine_config.py"]
    shell.run(*STOP)


@pytest.mark.needs("devcloud")
def test_a_running_local_controller_is_never_taken_for_one_that_has_ended(shell, elsewhere):
    """It has nothing in the cloud before its first engines."""
    shell.run(*START, "-n", "1")
    elsewhere.make_profile()
    script = 'import ipyparallel as ipp; c = ipp.Cluster(profile="griffin", cluster_id="", shutdown_atexit=False); c.start_controller_sync()'
    elsewhere.run("python", "-c", script)
    assert "End it with `ipcluster stop --profile=griffin`" in connect(elsewhere, status=1)
    assert elsewhere.controllers()
    elsewhere.run(*STOP)
    shell.run(*STOP)


@pytest.mark.needs("devcloud")
def test_a_file_of_the_profile_that_is_broken_is_told_and_changes_nothing(shell, elsewhere):
    shell.run(*START, "-n", "1")
    elsewhere.make_profile()
    (elsewhere.profile() / "ipcluster_config.py").write_text("c.Cluster.n = = 3\n")
    output = connect(elsewhere, status=1)
    assert "ipcluster_config.py, line 1: SyntaxError: invalid syntax" in output
    assert "Traceback" not in output
    assert elsewhere.cluster_files() == []
    shell.run(*STOP)


@pytest.mark.needs("devcloud")
@pytest.mark.parametrize("timeout", ["nan", "1e400", "0.5"])
def test_a_time_that_can_not_be_is_told(shell, elsewhere, timeout):
    shell.run(*START, "-n", "1")
    (elsewhere.profile("other") / "security").mkdir(parents=True)
    (elsewhere.profile("other") / "security" / "cluster-.json").write_text("{}}")
    assert "cluster-.json is damaged, or of a cluster that" in connect(elsewhere, "--profile=other", status=1)
    (elsewhere.profile("other") / "security" / "cluster-.json").unlink()
    output = connect(elsewhere, f"--timeout={timeout}", status=1)
    assert "timeout" in output and "Traceback" not in output
    assert elsewhere.cluster_files() == []
    shell.run(*STOP)


@pytest.mark.needs("devcloud")
def test_a_second_rule_that_is_refused_leaves_no_first(shell, elsewhere, neutron):
    shell.run(*START, "-n", "1", "--GriffinCloud.manage_security_group=True")
    before = rules(neutron, "-controller")
    over = json.dumps({"NeutronError": {"type": "OverQuota", "message": "Quota exceeded for resources.", "detail": ""}})
    of_rules = {"service": "network", "methods": ["POST"], "path": "/security-group-rules$"}
    shell.cloud.faults.set({**of_rules, "delay": 0.0, "count": 1}, {**of_rules, "status": 409, "body": over})
    assert "Quota exceeded" in connect(elsewhere, "--client-address=203.0.113.8", status=1)
    shell.cloud.faults.clear()
    assert rules(neutron, "-controller") == before
    shell.run(*STOP)
