"""`ipp-griffin ps` and `stop`: from another machine with an empty home, whatever became of the one that started it."""

import json
import os
import shutil

import ipyparallel as ipp
import pytest

START = ("ipcluster", "start", "--profile=griffin", "--daemonize")


def container(shell) -> str:
    """The option for clouds on which tests have a prefix of their own."""
    return f"--container={getattr(shell.cloud, 'prefix', 'ipp-griffin')}"


def test_a_cluster_is_seen_and_ended_from_another_machine(shell, elsewhere):
    shell.run(*START, "-n", "2", "--cluster-id=x")
    output = elsewhere.run("ipp-griffin", "ps", container(shell))
    heading, line = (text.split() for text in output.splitlines())
    assert heading == ["CLUSTER", "OWNER", "PROFILE", "ID", "SERVERS", "ENGINES", "AGE", "EXPIRES", "VCPU-HOURS"]
    uid = line[0]
    assert line[2:9] == ["griffin", "x", "engines:", "2", "2", "of", "2"]
    (cluster,) = json.loads(elsewhere.run("ipp-griffin", "ps", container(shell), "--json"))
    assert sorted(server["name"] for server in cluster["servers"]) == sorted(shell.cloud.servers())
    assert {server["phase"] for server in cluster["servers"]} == {"engines"}
    assert [server["engine_ids"] for server in cluster["servers"]] == [None, None]  # the controller is elsewhere
    (cluster,) = json.loads(shell.run("ipp-griffin", "ps", container(shell), "--json"))
    assert sorted(server["engine_ids"] for server in cluster["servers"]) == [[0], [1]]
    lines = shell.run("ipp-griffin", "ps", container(shell), "--engines").splitlines()
    assert sorted(line.split()[5] for line in lines) == ["0", "1", "IDS"]

    output = elsewhere.run("ipp-griffin", "stop", container(shell), "griffin/x")
    assert f"Cluster {uid} is gone: 2 servers and its container." in output
    assert shell.cloud.left_over() == []
    assert "There is no cluster" in elsewhere.run("ipp-griffin", "ps", container(shell))
    assert "There is no cluster 'griffin/x'" in elsewhere.run(
        "ipp-griffin", "stop", container(shell), "griffin/x", status=1
    )
    shell.run("ipcluster", "stop", "--profile=griffin", "--cluster-id=x")


def test_what_servers_say_and_how_they_started_is_seen_from_another_machine(
    shell, elsewhere, openstack_client, eventually
):
    shell.run(*START, "-n", "2", "--GriffinEngineSetLauncher.log_interval=0.5")
    where = (container(shell), "griffin")

    def logs(*arguments):
        return elsewhere.run("ipp-griffin", "logs", *where, *arguments)

    with ipp.Client(str(shell.profile() / "security" / "ipcontroller-client.json")) as rc:
        rc[:].apply_sync(os.write, 2, b"said by an engine\n")
    eventually(lambda: logs().count("said by an engine") == 2, "what they wrote after they had started")
    lines = [line.split(maxsplit=2) for line in logs().splitlines()]
    assert [time for time, _, _ in lines] == sorted(time for time, _, _ in lines)
    agents = [text for _, voice, text in lines if voice.endswith("/0/agent")]
    assert [text.partition(":")[0] for text in agents] == ["agent", "connected", "engines"]
    assert any(voice.endswith("/0/console") and text.startswith("engines use ") for _, voice, text in lines)

    found = json.loads(elsewhere.run("ipp-griffin", "timeline", *where, "--json", "--output=start.svg"))
    phases = ["requested", "building", "active", "agent", "connected", "engines"]
    assert [list(server["times"]) for server in found["servers"]] == [phases, phases]
    assert (elsewhere.folder / "start.svg").read_text().startswith("<svg ")

    lost = sorted(shell.cloud.servers())[0]  # of slot 0
    openstack_client("server", "delete", lost)
    eventually(lambda: len(shell.cloud.servers()) == 1, "it is gone")
    assert "said by an engine" in logs(lost)
    first, second = elsewhere.run("ipp-griffin", "timeline", *where).splitlines()[2:4]
    assert first.endswith("  gone") and not second.endswith("gone")
    shell.run("ipcluster", "stop", "--profile=griffin")


def test_with_the_cluster_file_lost_it_can_be_ended_all_the_same(shell, eventually):
    shell.run(*START, "-n", "1")
    shutil.rmtree(shell.profile() / "security")
    output = shell.run("ipp-griffin", "stop", container(shell), "griffin")
    assert "1 server and its container" in output
    assert shell.cloud.left_over() == []
    shell.close()  # the controller, of which nothing knows any more
    eventually(lambda: not shell.controllers(), "the controller has ended")


@pytest.mark.needs("colleague")
def test_a_colleagues_cluster_is_left_alone_unless_it_is_meant(shell, elsewhere):
    shell.run(*START, "-n", "1")
    (cluster,) = json.loads(shell.run("ipp-griffin", "ps", container(shell), "--json"))
    elsewhere.env["OS_CLOUD"] = f"{shell.cloud.name}-colleague"
    assert "--all-owners shows those of others" in elsewhere.run("ipp-griffin", "ps", container(shell))
    assert cluster["uid"] in elsewhere.run("ipp-griffin", "ps", container(shell), "--all-owners")
    output = elsewhere.run("ipp-griffin", "stop", container(shell), cluster["uid"], status=1)
    assert "is somebody else's" in output
    assert len(shell.cloud.servers()) == 1
    shell.run("ipcluster", "stop", "--profile=griffin")


def test_what_was_left_is_reaped_and_a_cluster_that_starts_is_not(shell, elsewhere, openstack_client, eventually):
    reap = ("ipp-griffin", "reap", container(shell))
    timeout = 20 * shell.cloud.slowness
    shell.run(*START, "-n", "2", f"--GriffinEngineSetLauncher.start_timeout={timeout}", timeout=200)
    lost = sorted(shell.cloud.servers())[0]
    openstack_client("server", "stop", lost)
    eventually(
        lambda: openstack_client("server", "show", lost, "-f", "value", "-c", "status").strip() == "SHUTOFF", "off"
    )
    eventually(
        lambda: "nothing to reap" not in elsewhere.run(*reap, "--dry-run"), "past its deadline", timeout=timeout + 30
    )
    assert elsewhere.run(*reap, "--dry-run") == f"Server {lost} is in SHUTOFF\n"
    (found,) = json.loads(elsewhere.run(*reap, "--json"))
    assert (found["server"]["name"], found["why"]) == (lost, "is in SHUTOFF")
    assert "add --yes" in elsewhere.run(*reap, status=1)
    assert len(shell.cloud.servers()) == 2

    assert elsewhere.run(*reap, "--yes").endswith("Deleted: 1.\n")
    eventually(lambda: len(shell.cloud.servers()) == 1, "it is gone")
    assert elsewhere.run(*reap, "--yes") == "There is nothing to reap.\n"
    shell.run("ipcluster", "stop", "--profile=griffin")
