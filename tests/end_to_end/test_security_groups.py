"""`GriffinCloud.manage_security_group`: a cluster whose servers nobody can connect to, beside a head node that is a server.

What is made, and taken back at each failure: tests/cloud/test_security_groups.py and tests/faults. A controller on a server: test_server_controller.py.
"""

import json

import ipyparallel as ipp
import pytest
from traitlets.config import Config

from .commands import container, griffin
from .conftest import address_of
from .server_controllers import groups


@pytest.mark.needs("address")
def test_a_cluster_makes_its_groups_and_whoever_stops_it_takes_them_along(shell, neutron, head, monkeypatch):
    """The servers are in a group that lets nothing in; that of the head node lets them in to the controller's ports alone."""
    monkeypatch.setenv("IPYTHONDIR", str(shell.ipython))
    config = {
        "GriffinCloud": {"manage_security_group": True},
        "GriffinControllerLauncher": {"ip": address_of(shell.cloud)},
    }
    cluster = ipp.Cluster(profile="griffin", cluster_id="", n=1, config=Config(config))
    cluster.start_cluster_sync()
    with cluster.connect_client_sync() as rc:
        assert rc[:].apply_sync(pow, 2, 5) == [32]
    made = groups(neutron)
    controller, engines = (
        next(g for name, g in made.items() if name.endswith(part)) for part in ("-controller", "-engines")
    )
    assert [rule for rule in engines.security_group_rules if rule["direction"] == "ingress"] == []
    (rule,) = (rule for rule in controller.security_group_rules if rule["direction"] == "ingress")
    assert (rule["port_range_min"], rule["port_range_max"]) == ports_of(
        shell.profile() / "security" / "ipcontroller-engine.json"
    )
    assert (rule["protocol"], rule["remote_group_id"], rule["remote_ip_prefix"]) == ("tcp", engines.id, None)
    (server,) = [p for p in neutron.network.ports(project_id=neutron.project) if p.device_owner.startswith("compute")]
    assert server.security_group_ids == [engines.id]
    assert set(neutron.network.get_port(head.id).security_group_ids) == {*head.security_group_ids, controller.id}

    # From wherever, who needs nothing but credentials; an `ipcluster stop` does the same: test_server_controller_ends.py.
    uid = cluster.controller.uid
    assert f"Cluster {uid} is gone" in griffin(shell, "stop", container(shell), uid)
    assert groups(neutron) == {}
    assert neutron.network.get_port(head.id).security_group_ids == head.security_group_ids
    neutron.network.delete_port(head)
    cluster.stop_cluster_sync()
    shell.assert_nothing_left()


def ports_of(path) -> tuple[int, int]:
    """The lowest and the highest port in a connection file."""
    found = [
        p for value in json.loads(path.read_text()).values() for p in (value if isinstance(value, list) else [value])
    ]
    ports = [port for port in found if isinstance(port, int) and port > 1024]
    return min(ports), max(ports)
