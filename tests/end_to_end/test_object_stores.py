"""Whole clusters on object stores that aren't today's Swift: the dev cloud plays them."""

import re
from collections.abc import Callable, Iterator

import pytest

from ..clouds import OnDevCloud
from ..conftest import running_cloud
from .conftest import Shell

pytestmark = pytest.mark.needs("devcloud")
FIRST, SECOND = "X-Account-Meta-Temp-Url-Key", "X-Account-Meta-Temp-Url-Key-2"


@pytest.fixture
def shell_with(tmp_path) -> Iterator[Callable[..., tuple[Shell, dict[str, str]]]]:
    """``shell_with(kind, keys)``: a shell on a cloud with this kind of object store, and the TempURL keys of its account."""
    opened = []

    def make(kind: str, keys: dict[str, str] | None = None) -> tuple[Shell, dict[str, str]]:
        context = running_cloud(tmp_path / "cloud", object_store=kind)
        running = context.__enter__()
        opened.append(context)
        (project,) = [project for project in running.state.projects if project.name == "devcloud"]
        of_account = running.state.account_keys.setdefault(project.id, {})
        of_account.update(keys or {})
        shell = Shell(tmp_path, OnDevCloud(running))
        opened.append(shell)
        shell.make_profile()
        return shell, of_account

    yield make
    context, shell = opened
    shell.close()
    shell.assert_nothing_left()
    context.__exit__(None, None, None)


@pytest.mark.parametrize("kind", ["sha1", "old-swift", "rgw", "rgw-no-account"])
def test_a_cluster_starts_and_stops_and_leaves_no_key(shell_with, eventually, kind) -> None:
    shell, keys = shell_with(kind)
    shell.run("ipcluster", "start", "--profile=griffin", "-n", "2", "--daemonize")
    shell.wait_until_connected(eventually, 2)
    assert [name for name, value in keys.items() if value.startswith("ipp-griffin-")] == (
        [FIRST] if kind.startswith("rgw") else []
    )
    shell.run("ipcluster", "stop", "--profile=griffin")
    assert keys == {}


def test_a_slot_that_others_have_stays_as_it_is(shell_with, eventually) -> None:
    shell, keys = shell_with("rgw", {FIRST: "theirs"})
    shell.run("ipcluster", "start", "--profile=griffin", "-n", "1", "--daemonize")
    assert sorted(keys) == [FIRST, SECOND] and keys[FIRST] == "theirs"
    shell.run("ipcluster", "stop", "--profile=griffin")
    assert keys == {FIRST: "theirs"}


def test_with_both_slots_taken_one_line_says_so_and_nothing_is_left(shell_with) -> None:
    shell, keys = shell_with("rgw", {FIRST: "theirs", SECOND: "others"})
    output = shell.run("ipcluster", "start", "--profile=griffin", "-n", "1", "--daemonize", status=1)
    (line,) = [line for line in output.splitlines() if "CRITICAL" in line]
    assert re.search(r"others have both .* Free one that nobody needs", line)
    assert "theirs" not in output
    assert keys == {FIRST: "theirs", SECOND: "others"}
