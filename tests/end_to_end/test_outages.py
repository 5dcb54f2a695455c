"""Every service answers 503, or hangs, for a while, at every stage of a start and of a stop: both go on, and nothing is left.

All stages in one start and one stop, on every cloud that can be disturbed. Each stage by itself is in the table of faults, `tests.faults`.
"""

import pytest
import yaml

pytestmark = pytest.mark.needs("faults")

CONTAINER = r"-[0-9a-f]{12}$"
# What is disturbed, by the name of what it is asked for. ``hang``: seconds, where the agent, whose time-out is longer, must give up.
START = {
    "login": {"service": "identity", "methods": ["POST"]},
    "networks": {"service": "network", "path": "/networks$"},
    "subnets": {"service": "network", "path": "/subnets$"},
    "images": {"service": "image", "path": "/images$"},
    "flavors": {"service": "compute", "path": "/flavors/detail$"},
    "quota": {"service": "compute", "path": "/limits$"},
    "what the store can do": {"service": "object-store", "path": "^/info$"},
    "container": {"service": "object-store", "methods": ["PUT"], "path": CONTAINER},
    "container's key": {"service": "object-store", "methods": ["POST"], "path": CONTAINER},
    "connection object": {"service": "object-store", "methods": ["PUT"], "path": "/connection.json$"},
    "servers": {"service": "compute", "methods": ["POST"], "path": "/servers$"},
    "status of servers": {"service": "compute", "methods": ["GET"], "path": "/servers/detail$"},
    "reading by an agent": {"service": "object-store", "methods": ["GET"], "path": "/connection.json$", "hang": 11},
    "reports of an agent": {"service": "object-store", "methods": ["PUT"], "path": r"/\d{4}-", "hang": 6},
    "list of reports": {"service": "object-store", "methods": ["GET"], "path": CONTAINER},
}
STOP = {
    "login": {"service": "identity", "methods": ["POST"]},
    "deletion of servers": {"service": "compute", "methods": ["DELETE"]},
    "list of servers": {"service": "compute", "methods": ["GET"], "path": "/servers/detail$"},
    "list of objects": {"service": "object-store", "methods": ["GET"], "path": CONTAINER},
    "deletion of objects": {"service": "object-store", "methods": ["POST", "DELETE"]},
    "deletion of the container": {"service": "object-store", "methods": ["DELETE"], "path": CONTAINER},
}


def be_impatient(shell, seconds):
    clouds = yaml.safe_load(shell.cloud.clouds_yaml.read_text())
    clouds["clouds"][shell.cloud.name]["api_timeout"] = seconds
    path = shell.folder / "impatient.yaml"
    path.write_text(yaml.safe_dump(clouds))
    shell.env["OS_CLIENT_CONFIG_FILE"] = str(path)


@pytest.fixture(params=["503", "hangs"])
def disturb(request, shell):
    """``disturb(fault)``: the next requests of that kind are answered 503, or only after the client has given up."""
    patience, delay = shell.cloud.hang
    be_impatient(shell, patience)

    def answer(hang=delay, **fault):
        return {**fault, **({"status": 503, "count": 2} if request.param == "503" else {"delay": hang, "count": 1})}

    return lambda *faults: shell.cloud.faults.set(*(answer(**fault) for fault in faults))


def start(shell):
    shell.run("ipcluster", "start", "--profile=griffin", "-n", "1", "--daemonize", timeout=300)


def stop(shell):
    shell.run("ipcluster", "stop", "--profile=griffin", timeout=300)


@pytest.mark.timeout(600)
def test_at_every_stage_of_one_start_and_one_stop(shell, disturb):
    disturb(*START.values())
    start(shell)
    assert shell.cloud.faults.unspent() == []
    assert len(shell.cloud.servers()) == 1
    disturb(*STOP.values())
    stop(shell)
    assert shell.cloud.faults.unspent() == []


def test_a_server_that_was_asked_for_again_and_landed_after_all_is_deleted(shell, eventually):
    """The creation hangs until long after its client gave up, listed the servers and asked again."""
    patience, _ = shell.cloud.hang
    be_impatient(shell, patience)
    shell.cloud.faults.set({**START["servers"], "delay": patience + 3, "count": 1})
    start(shell)
    eventually(lambda: len(shell.cloud.servers()) == 1, "one server", timeout=10)
    stop(shell)


def test_a_server_whose_creation_was_answered_503_though_it_landed_is_found_and_used(shell):
    shell.cloud.faults.set({**START["servers"], "status": 503, "after": True, "count": 1})
    start(shell)
    assert len(shell.cloud.servers()) == 1
    stop(shell)
