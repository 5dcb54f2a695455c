"""The dev cloud as a background process."""

import json
import os
import signal
import socket
import threading
from pathlib import Path

import openstack
import psutil
import pytest

from ipp_griffin.devcloud import DevCloudError, service

from .conftest import create, script, wait_for
from .test_guests import HARD_TO_KILL, guests_of


@pytest.fixture
def folder(tmp_path):
    """A folder for a background cloud, which is ended however the test goes."""
    yield tmp_path / "state" / "cloud"
    service.stop(tmp_path / "state" / "cloud")


def connect(folder: Path) -> openstack.connection.Connection:
    files = [service.env(folder)["OS_CLIENT_CONFIG_FILE"]]
    config = openstack.config.OpenStackConfig(config_files=files, load_envvars=False)
    return openstack.connection.Connection(config=config.get_one(cloud=service.env(folder)["OS_CLOUD"]))


def test_start_serves_and_is_idempotent_and_stop_leaves_nothing(folder):
    assert not service.status(folder).running
    info = service.start(folder, boot_time=0)
    assert service.start(folder) == service.status(folder) == info
    assert psutil.Process(info.pid).ppid() != 0 and os.getsid(info.pid) == info.pid
    with connect(folder) as connection:
        create(connection, user_data=script(HARD_TO_KILL))
        cloud_id = (folder / "id").read_text()
        wait_for(lambda: len(guests_of(cloud_id)) >= 5)
        connection.object_store.create_container("bucket")
        assert service.status(folder).servers == ("box",)
        assert service.status(folder).containers == ("bucket",)
    assert service.stop(folder) is True
    assert guests_of(cloud_id) == [] and not _alive(info.pid)
    assert {path.name for path in folder.iterdir()} == {"id", "lock", "devcloud.log"}
    assert service.stop(folder) is False
    assert not service.status(folder).running


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_it_with_its_guests(folder, number):
    info = service.start(folder, boot_time=0)
    with connect(folder) as connection:
        create(connection, user_data=script(HARD_TO_KILL))
    cloud_id = (folder / "id").read_text()
    wait_for(lambda: len(guests_of(cloud_id)) >= 5)
    os.kill(info.pid, number)
    wait_for(lambda: not _alive(info.pid))
    assert guests_of(cloud_id) == []
    assert not (folder / "clouds.yaml").exists() and not (folder / "service.json").exists()


@pytest.mark.parametrize("afterwards", [service.stop, service.start])
def test_the_guests_of_a_killed_cloud_are_found_by_stop_and_by_the_next_start(folder, afterwards):
    info = service.start(folder, boot_time=0)
    with connect(folder) as connection:
        create(connection, user_data=script("setsid sleep 1000 & sleep 1000"))
    cloud_id = (folder / "id").read_text()
    wait_for(lambda: len(guests_of(cloud_id)) == 3)
    os.kill(info.pid, signal.SIGKILL)
    wait_for(lambda: not _alive(info.pid))
    assert len(guests_of(cloud_id)) == 3
    assert not service.status(folder).running
    afterwards(folder)
    assert guests_of(cloud_id) == [] and not (folder / "servers").exists()


def test_a_pid_that_belongs_to_somebody_else_now_is_left_alone(folder):
    service.start(folder)
    record = json.loads((folder / "service.json").read_text())
    service.stop(folder)
    record |= {"pid": os.getpid(), "created": psutil.Process().create_time() - 100}
    (folder / "service.json").write_text(json.dumps(record))
    assert not service.status(folder).running
    assert service.stop(folder) is False


def test_a_broken_record_counts_as_none(folder):
    folder.mkdir(parents=True)
    (folder / "service.json").write_text("{")
    assert not service.status(folder).running
    assert service.stop(folder) is False
    assert service.start(folder).running


def test_starts_at_the_same_moment_make_one_cloud(folder):
    infos = []
    threads = [threading.Thread(target=lambda: infos.append(service.start(folder))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(infos) == 3 and len(set(infos)) == 1


def test_a_start_that_fails_is_one_clear_line(folder):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(DevCloudError) as failed:
            service.start(folder, port=port)
    assert str(failed.value) == f"Can't listen on 127.0.0.1:{port}: Address already in use."
    (folder / "file").touch()
    with pytest.raises(DevCloudError, match="^Can't use the folder .*: Not a directory.$"):
        service.start(folder / "file" / "x")
    with pytest.raises(
        DevCloudError, match="^No dev cloud runs in .* Start it: ipp-griffin devcloud start --folder .*$"
    ):
        service.env(folder)
    with pytest.raises(DevCloudError, match="^No dev cloud runs in"):
        service.set_faults(folder)


def test_faults_reach_the_background_cloud(folder):
    service.start(folder)
    with connect(folder) as connection:
        service.set_faults(folder, {"service": "compute", "path": "servers", "status": 503})
        with pytest.raises(openstack.exceptions.HttpException, match="503"):
            list(connection.compute.servers())
        with pytest.raises(DevCloudError, match="A fault has no key 'oops'"):
            service.set_faults(folder, {"oops": 1})
        service.set_faults(folder)
        assert list(connection.compute.servers()) == []


def _alive(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
