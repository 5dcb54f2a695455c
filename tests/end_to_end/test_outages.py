"""Every real service answers 503, or hangs, for a while, at every stage of a start and of a stop: both go on, and nothing is left.

On the dev cloud the matrix of `tests.faults` shows that, by more kinds, for each stage by name. Here are what real services do with a
request that nobody waits for any more, and what Nova lists then.
"""

import pytest
import yaml

pytestmark = [pytest.mark.needs("faults"), pytest.mark.openstack]

CONTAINER = r"-[0-9a-f]{12}$"
# What is disturbed, by the name of what it is asked for.
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
    "connection file": {"service": "object-store", "methods": ["PUT"], "path": "/connection.json$"},
    "status of servers": {"service": "compute", "methods": ["GET"], "path": "/servers/detail$"},
    "reading by an agent": {"service": "object-store", "methods": ["GET"], "path": "/connection.json$"},
    "reports of an agent": {"service": "object-store", "methods": ["PUT"], "path": r"/\d{4}-"},
    "list of reports": {"service": "object-store", "methods": ["GET"], "path": CONTAINER},
}
AGENTS_WAIT = {"reading by an agent": 11, "reports of an agent": 6}  # seconds: more than an agent's own time-outs
CREATION = {"service": "compute", "methods": ["POST"], "path": "/servers$"}
STOP = {
    "login": {"service": "identity", "methods": ["POST"]},
    "deletion of servers": {"service": "compute", "methods": ["DELETE"]},
    "list of servers": {"service": "compute", "methods": ["GET"], "path": "/servers/detail$"},
    "list of objects": {"service": "object-store", "methods": ["GET"], "path": CONTAINER},
    "deletion of objects": {"service": "object-store", "methods": ["POST", "DELETE"]},
    "deletion of the container": {"service": "object-store", "methods": ["DELETE"], "path": CONTAINER},
}


@pytest.fixture
def impatient(shell):
    """The seconds after which the shell's commands give up a request, and that one takes which hangs."""
    patience, delay = shell.cloud.hang
    clouds = yaml.safe_load(shell.cloud.clouds_yaml.read_text())
    clouds["clouds"][shell.cloud.name]["api_timeout"] = patience
    path = shell.folder / "impatient.yaml"
    path.write_text(yaml.safe_dump(clouds))
    shell.env["OS_CLIENT_CONFIG_FILE"] = str(path)
    return patience, delay


def start_and_stop(shell, eventually, starting, stopping):
    """Disturbed in this way; each fault is met, and there is one server in between."""
    shell.cloud.faults.set(*starting)
    shell.run("ipcluster", "start", "--profile=griffin", "-n", "1", "--daemonize", timeout=300)
    assert shell.cloud.faults.unspent() == []
    eventually(lambda: len(shell.cloud.servers()) == 1, "one server")
    shell.cloud.faults.set(*stopping)
    shell.run("ipcluster", "stop", "--profile=griffin", timeout=300)
    assert shell.cloud.faults.unspent() == []


@pytest.mark.timeout(600)
def test_503_at_every_stage_and_a_server_that_was_created_all_the_same_is_found_and_used(shell, eventually, impatient):
    created = {**CREATION, "status": 503, "after": True, "count": 1}
    starting = [{**one, "status": 503, "count": 2} for one in START.values()]
    stopping = [{**one, "status": 503, "count": 2} for one in STOP.values()]
    start_and_stop(shell, eventually, [{**CREATION, "status": 503, "count": 1}, created, *starting], stopping)


@pytest.mark.timeout(600)
def test_no_answer_at_every_stage_and_a_server_that_was_asked_for_again_and_landed_after_all_is_deleted(
    shell, eventually, impatient
):
    """Its creation hangs until long after its client gave up, listed the servers and asked again."""
    patience, delay = impatient
    late = {**CREATION, "delay": patience + 3, "count": 1}
    starting = [{**one, "delay": AGENTS_WAIT.get(name, delay), "count": 1} for name, one in START.items()]
    stopping = [{**one, "delay": delay, "count": 1} for one in STOP.values()]
    start_and_stop(shell, eventually, [late, *starting], stopping)
