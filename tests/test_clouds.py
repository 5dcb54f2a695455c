"""The tests' own manners on somebody's cloud: a dev cloud plays it, under another name.

No pytest process is started: `pytester` runs the hooks and fixtures of conftest.py in this one, on tests that are made up.
"""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import openstack
import pytest
import yaml

from ipp_griffin.devcloud import DevCloud

from .clouds import OpenStackClient
from .conftest import pytest_report_header, running_cloud

pytest_plugins = ["pytester"]
PLUGINS = [
    *("-p", "tests.conftest", "-p", "tests.end_to_end.conftest", "-p", "no:cacheprovider", "-p", "no:xdist"),
    *("-W", "ignore", "-o", "asyncio_default_fixture_loop_scope=function"),
]


@pytest.fixture
def devcloud(tmp_path: Path) -> Iterator[DevCloud]:
    with running_cloud(tmp_path / "cloud") as cloud:
        yield cloud


@pytest.fixture(autouse=True)
def my_clouds(devcloud: DevCloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """This user's clouds.yaml: ``mine``, with an ``other`` project, and ``locked``, with a wrong password."""
    entries = yaml.safe_load(devcloud.clouds_yaml.read_text())["clouds"]
    mine, other = entries["devcloud"], entries["devcloud-other"]
    locked = {**mine, "auth": {**mine["auth"], "password": "wrong"}}
    (tmp_path / "mine.yaml").write_text(
        yaml.safe_dump({"clouds": {"mine": mine, "mine-other": other, "locked": locked}})
    )
    monkeypatch.setenv("OS_CLIENT_CONFIG_FILE", str(tmp_path / "mine.yaml"))
    monkeypatch.delenv("OS_CLOUD")


@pytest.fixture
def configure(pytester: pytest.Pytester) -> Callable[..., pytest.Config]:
    """``configure(option, ...)``: pytest as it is when it has read its command line, before it collects tests."""
    return lambda *options: pytester.parseconfigure(*PLUGINS, *options)


@pytest.fixture
def listings(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, str]]:
    """What the plain client lists, each time it is asked."""
    found: list[dict[str, str]] = []
    monkeypatch.setattr(OpenStackClient, "everything", lambda client: found.pop(0) if found else {"server": "none"})
    return found


@pytest.fixture
def run(pytester: pytest.Pytester, listings: Any) -> Callable[..., Any]:
    """``run(text, option, ...)``: the tests of that text on cloud ``mine``."""

    def run(text: str, *options: str) -> Any:
        pytester.makepyfile(text)
        return pytester.runpytest_inprocess(*PLUGINS, "--cloud=mine", *options)

    return run


@pytest.fixture
def connection(devcloud: DevCloud) -> Iterator[openstack.connection.Connection]:
    config = openstack.config.OpenStackConfig(config_files=[str(devcloud.clouds_yaml)], load_envvars=False)
    with openstack.connection.Connection(config=config.get_one("devcloud")) as connection:
        yield connection


def create_server(connection: openstack.connection.Connection, name: str, **more: Any) -> Any:
    image = connection.image.find_image("debian-12")
    flavor = connection.compute.find_flavor("dev.small")
    network = connection.network.find_network("devnet")
    where = {"image_id": image.id, "flavor_id": flavor.id, "networks": [{"uuid": network.id}]}
    return connection.compute.create_server(name=name, **where, **more)


@pytest.fixture
def somebodys(connection: openstack.connection.Connection) -> None:
    """A server, a container, a security group and a floating IP that others have in the project."""
    create_server(connection, "thesis", metadata={"griffin:container": "somebodys"})
    connection.object_store.create_container("somebodys")
    connection.network.create_security_group(name="griffin-somebodys")
    public = connection.network.find_network("public")
    connection.network.create_ip(floating_network_id=public.id)


THEIRS = (["thesis"], ["somebodys"], ["griffin-somebodys"], 1)


def there(devcloud: DevCloud) -> tuple[list[str], list[str], list[str], int]:
    servers = [server["name"] for server in devcloud.servers() if server["task"] != "deleting"]
    return servers, devcloud.containers(), devcloud.security_groups(), len(devcloud.state.floating_ips)


# --- what is said, and refused, before anything is done


def test_they_say_what_they_will_create_and_where(configure):
    said = pytest_report_header(configure("--cloud=mine"))
    assert "On cloud mine, these tests create and delete: up to 8 servers at a time" in said
    assert re.search(r"Projects: devcloud \(\d+ things are there now\), other \(\d+ things", said)
    assert "They try a wrong password" in said


def refused(configure: Callable[..., pytest.Config], *options: str) -> str:
    with pytest.raises(pytest.UsageError) as error:
        configure(*options)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_where_others_have_servers_they_refuse_with_one_line(configure, somebodys):
    said = refused(configure, "--cloud=mine")
    assert said.startswith("Cloud mine has server thesis: these tests delete what they make")
    assert "add --cloud-shared" in said


def test_so_they_do_in_the_projects_of_the_clouds_siblings(configure, devcloud):
    config = openstack.config.OpenStackConfig(config_files=[str(devcloud.clouds_yaml)], load_envvars=False)
    with openstack.connection.Connection(config=config.get_one("devcloud-other")) as other:
        create_server(other, "theirs")
    assert refused(configure, "--cloud=mine").startswith("Cloud mine-other has server theirs: ")


@pytest.mark.parametrize("options", [(), ("--cloud-shared",)])
def test_what_a_run_left_that_was_killed_or_goes_on_is_named(configure, connection, options):
    connection.object_store.create_container("griffin-test-abcdef-0123456789ab")
    said = refused(configure, "--cloud=mine", *options)
    assert said.startswith("Cloud mine has container griffin-test-abcdef-0123456789ab: of tests that run there now")


def test_an_unknown_cloud_is_one_line(configure):
    assert refused(configure, "--cloud=yours") == "clouds.yaml has no cloud 'yours'. It has: locked, mine, mine-other."


def test_wrong_credentials_are_one_line(configure):
    assert refused(configure, "--cloud=locked").startswith("Can't use cloud 'locked': ")


# --- what is left out


NEEDS = """
    import pytest

    @pytest.mark.needs("faults")
    def test_disturbed(): ...

    @pytest.mark.needs("faults")
    def test_disturbed_otherwise(): ...

    @pytest.mark.needs("other", "colleague")
    def test_by_a_colleague(): ...

    @pytest.mark.needs("other")
    def test_in_another_project(): ...

    @pytest.mark.slow
    def test_that_takes_long(): ...

    @pytest.mark.guest_vm
    def test_on_a_virtual_machine(): ...
"""


def test_what_a_cloud_lacks_is_left_out_and_said(run):
    """``mine`` has another project, and nothing else that not every cloud has. Slow tests run where a cloud is named."""
    result = run(NEEDS)
    result.assert_outcomes(passed=2, deselected=4)
    result.stdout.fnmatch_lines(
        [
            "left out: 2 tests that need of the cloud: faults",
            "left out: 1 tests that need of the cloud: colleague",
        ]
    )
    result.stdout.no_fnmatch_line("*need of the cloud: *other*")


def test_on_the_dev_cloud_only_what_has_to_be_asked_for_is_left_out(pytester):
    pytester.makepyfile(NEEDS)
    result = pytester.runpytest_inprocess(*PLUGINS)
    result.assert_outcomes(passed=4, deselected=2)
    result.stdout.no_fnmatch_line("left out: *")


# --- what is there afterwards


LITTER = """
    import openstack, pytest

    def test_that_leaves_what_it_made(cloud):
        prefix = cloud.prefix
        with openstack.connect(cloud=cloud.name) as connection:
            image = connection.image.find_image("debian-12")
            flavor = connection.compute.find_flavor("dev.small")
            network, public = [connection.network.find_network(name) for name in ("devnet", "public")]
            server = connection.compute.create_server(
                name="griffin-0", image_id=image.id, flavor_id=flavor.id, networks=[{"uuid": network.id}],
                metadata={"griffin:container": prefix},
            )
            mine = {"description": f"of a test, user {connection.current_user_id}"}
            connection.network.create_security_group(name="griffin-0", **mine)
            connection.network.create_ip(floating_network_id=public.id, **mine)
            connection.object_store.create_container(f"{prefix}-0123456789ab")
            connection.object_store.upload_object(f"{prefix}-0123456789ab", "x", data="x")
        assert (cloud.servers(), cloud.containers()) == (["griffin-0"], [f"{prefix}-0123456789ab"])
"""
MEANWHILE = """
    @pytest.fixture(autouse=True)
    def others_meanwhile(cloud):
        with openstack.connect(cloud=cloud.name) as connection:
            connection.network.create_security_group(name="griffin-later", description="x, user somebody")
            public = connection.network.find_network("public")
            connection.network.create_ip(floating_network_id=public.id)
            connection.object_store.create_container("later")
"""


def test_what_a_test_leaves_fails_it_and_is_deleted(run, devcloud):
    result = run(LITTER)
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["E *server griffin-0*"])
    assert there(devcloud) == ([], [], [], 0)


def test_in_a_shared_project_they_run_and_touch_nothing_of_what_others_have(run, devcloud, somebodys):
    result = run(
        "def test_that_leaves_nothing(cloud): assert cloud.servers() == cloud.containers() == []", "--cloud-shared"
    )
    result.assert_outcomes(passed=1)
    assert there(devcloud) == THEIRS


def test_in_a_shared_project_what_a_test_leaves_is_deleted_and_nothing_else(run, devcloud, somebodys):
    """Neither what others had, nor what they have made meanwhile."""
    result = run(LITTER + MEANWHILE, "--cloud-shared")
    result.assert_outcomes(passed=1, errors=1)
    assert there(devcloud) == (["thesis"], ["later", "somebodys"], ["griffin-later", "griffin-somebodys"], 2)


def test_what_the_plain_client_lists_must_be_the_same_after_all(run, listings):
    listings += [{"server": "none"}, {"server": "thesis"}]
    result = run("def test_that_leaves_nothing(cloud): ...")
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["E *'thesis'*"])


# --- settings


CHOICE = """
    import json
    from tests.clouds import settings_of
    from tests.end_to_end.commands import griffin

    def test_what_a_cluster_would_be_made_of(shell):
        found = json.loads(griffin(shell, "plan", "-n", "4", "--json"))
        assert (found["image"], found["flavor"], found["servers"]) == ("debian-12", "dev.medium", 4)
        config = settings_of(shell.cloud)
        assert (config.GriffinCloud.flavor, config.GriffinCloud.container) == ("dev.medium", shell.cloud.prefix)
        assert shell.profile().joinpath("ipcluster_config.py").read_text().endswith(shell.cloud.settings)
"""


def test_on_a_cloud_with_other_names_clusters_are_made_by_the_settings(run, tmp_path):
    """A flavor of four vCPUs, with one engine all the same, and an image that is no snapshot: by the profile and without one."""
    settings = tmp_path / "settings.py"
    settings.write_text("c.GriffinCloud.flavor = 'dev.medium'\nc.GriffinCloud.image = 'debian-12'\n")
    run(CHOICE, f"--cloud-settings={settings}").assert_outcomes(passed=1)


def test_a_variable_that_a_test_changed_under_a_cloud_of_its_own_is_as_before_when_both_are_gone(run):
    """Though `monkeypatch`, which undoes its changes last, has seen the cloud's value."""
    done = run(
        """
        import os
        import pytest
        from tests.conftest import running_cloud

        @pytest.fixture
        def changed(monkeypatch, tmp_path):
            with running_cloud(tmp_path / "cloud"):
                monkeypatch.setenv("OS_CLOUD", "another")
                yield

        def test_changes(changed):
            assert os.environ["OS_CLOUD"] == "another"

        def test_is_as_before():
            assert "OS_CLOUD" not in os.environ
        """
    )
    done.assert_outcomes(passed=2)
