"""Every test runs in an empty home, without anybody's credentials, and on clouds of its own.

``--cloud NAME`` runs the end-to-end tests on that entry of clouds.yaml instead of the dev cloud; see `clouds`.
"""

import contextlib
import io
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import responses
from keystoneauth1.exceptions import ClientException
from openstack.exceptions import SDKException

from ipp_griffin.cloud.cloud import Cloud as Connection
from ipp_griffin.cluster.watcher import Watcher
from ipp_griffin.common.text import one_line
from ipp_griffin.devcloud import DevCloud

from .clouds import Cloud, OnDevCloud, OnNamedCloud, OnRealCloud, OpenStackClient
from .fakes import Clock
from .fakes.clock import without_pauses
from .openstack_responses import serve_identity, write_clouds_yaml

named_cloud = pytest.StashKey[OnNamedCloud]()
left_out = pytest.StashKey[dict[str, int]]()
HANDLERS = {
    signal.SIGINT: signal.default_int_handler,
    signal.SIGQUIT: signal.SIG_DFL,
    signal.SIGHUP: signal.SIG_DFL,
    signal.SIGTERM: signal.SIG_DFL,
}


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("cloud", "the cloud that end-to-end tests run on")
    group.addoption(
        "--cloud", default="devcloud", metavar="NAME", help="an entry of clouds.yaml (default: the dev cloud)"
    )
    group.addoption(
        "--cloud-settings", metavar="FILE", help="lines for ipcluster_config.py: image, flavor, network ..."
    )
    group.addoption("--cloud-shared", action="store_true", help="use a project in which others have servers")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "needs(what, ...): left out on clouds that have it not; see tests/clouds.py")
    config.addinivalue_line("markers", "openstack: compares the dev cloud with a real one: needs --cloud NAME")
    config.addinivalue_line("markers", "slow: of the table of faults, needs -m slow: `make test-faults`")
    config.addinivalue_line("markers", "guest_vm: boots virtual machines: needs -m guest_vm, and root")
    name = config.getoption("--cloud")
    if name == "devcloud" or config.option.help:
        return
    file = config.getoption("--cloud-settings")
    folder = Path(tempfile.mkdtemp(prefix="griffin-test-"))  # for credentials
    config.add_cleanup(lambda: shutil.rmtree(folder))
    options: dict[str, Any] = {
        "settings": Path(file).read_text() if file else "",
        "shared": config.getoption("--cloud-shared"),
        "folder": folder,
    }
    try:
        if (state := os.environ.get("REALCLOUD_STATE")) and name == "real":
            config.stash[named_cloud] = OnRealCloud(name, state=Path(state), **options)
        else:
            config.stash[named_cloud] = OnNamedCloud(name, **options)
    except (SDKException, ClientException) as error:
        raise pytest.UsageError(f"Can't use cloud {name!r}: {one_line(error)}") from None


def pytest_report_header(config: pytest.Config) -> str:
    return config.stash[named_cloud].describe() if named_cloud in config.stash else ""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what this cloud has not, and say so; tests of machinery that was not asked for go without a word."""
    cloud = config.stash.get(named_cloud, None)
    has = cloud.has if cloud else OnDevCloud.has
    out: dict[str, list[pytest.Item]] = {}
    for item in items:
        wanted = {need for marker in item.iter_markers("needs") for need in marker.args}
        not_asked_for = (
            (item.get_closest_marker("guest_vm") and "guest_vm" not in config.option.markexpr)
            or (item.get_closest_marker("openstack") and cloud is None)
            or (item.get_closest_marker("slow") and "slow" not in config.option.markexpr and cloud is None)
        )
        if not_asked_for:
            out.setdefault("", []).append(item)
        elif wanted - has:
            out.setdefault(", ".join(sorted(wanted - has)), []).append(item)
    dropped = [item for group in out.values() for item in group]
    config.hook.pytest_deselected(items=dropped)
    items[:] = [item for item in items if item not in dropped]
    config.stash[left_out] = {why: len(group) for why, group in out.items() if why}
    if isinstance(cloud, OnRealCloud) and (lacking := set(config.stash[left_out]) - {"devcloud"}):
        raise pytest.UsageError(f"The test cloud lacks what it should have: {'; '.join(sorted(lacking))}.")


def pytest_report_collectionfinish(config: pytest.Config) -> list[str]:
    return [f"left out: {n} tests that need of the cloud: {why}" for why, n in config.stash.get(left_out, {}).items()]


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """What each row of the table of faults left, which a worker of pytest-xdist can't print by itself; not for -q, but for failures."""
    if config.option.verbose < 0 and not terminalreporter.getreports("failed"):
        return
    reports = [*terminalreporter.getreports("passed"), *terminalreporter.getreports("failed")]
    lines = [text for report in reports for name, text in report.user_properties if name == "left over"]
    if lines:
        terminalreporter.section("left over by each row of the table of faults")
        terminalreporter.write("\n".join(sorted(lines)) + "\n")


@pytest.fixture(autouse=True, scope="session")
def signals_as_at_a_terminal() -> None:
    """What a shell's background job, or nohup, ignores is as at a terminal: tests, and the commands that they start, are interrupted."""
    for number, handler in HANDLERS.items():
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, handler)


@contextlib.contextmanager
def nobody_at_home(home: Path) -> Iterator[Path]:
    """HOME and IPYTHONDIR are ``home`` and a folder in it; no variable of OpenStack or ipyparallel is set."""
    with pytest.MonkeyPatch.context() as patch:
        for name in os.environ:
            if name.startswith(("OS_", "IPP_", "GRIFFIN_", "XDG_")):
                patch.delenv(name)
        patch.setenv("HOME", str(home))
        patch.setenv("IPYTHONDIR", str(home / ".ipython"))
        yield home


@pytest.fixture(autouse=True, scope="session")
def nobodys_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An empty folder: see `nobody_at_home`."""
    with nobody_at_home(tmp_path_factory.mktemp("home")) as home:
        yield home


@pytest.fixture(autouse=True)
def environment_as_before() -> Iterator[None]:
    """Restore the environment after each test and all of its own fixtures, in whatever order these undo what they changed.

    `monkeypatch` is made early: a variable that it changes under a cloud that is named later gets that cloud's value back, when the
    cloud is gone.
    """
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(autouse=True)
def no_watch_outlives_its_test(environment_as_before: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Who only reads a cluster's file watches its servers, too, as long as the process lives, though the cloud may be gone:
    into a later test, whose made-up services would count those requests."""
    stops = []
    start = Watcher.start

    def started(watcher: Watcher) -> None:
        stops.append(watcher._stop)
        start(watcher)

    monkeypatch.setattr(Watcher, "start", started)
    yield
    for stop in stops:
        stop.set()
    watches = [thread for thread in threading.enumerate() if thread.name == "griffin-watch"]
    for thread in watches:
        thread.join(30)  # it may be in the middle of a request that it repeats
    assert not any(thread.is_alive() for thread in watches)


@pytest.fixture
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """No time passes between a deletion and the listing that confirms it, nor between two tries to clean up."""
    without_pauses(monkeypatch)


@pytest.fixture
def eventually() -> Callable[..., None]:
    """Wait for a condition, without a fixed sleep."""

    def wait(condition: Callable[[], object], what: str, timeout: float = 60) -> None:
        deadline = time.monotonic() + timeout
        while not condition():
            assert time.monotonic() < deadline, f"not within {timeout} s: {what}"
            time.sleep(0.05)

    return wait


@pytest.fixture
def mock() -> Iterator[responses.RequestsMock]:
    """Whatever is asked over HTTP is answered by the test, or refused."""
    with responses.RequestsMock(assert_all_requests_are_fired=False) as mock:
        yield mock


@pytest.fixture
def clouds_yaml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A clouds.yaml that names the services which `openstack_responses` makes up, as the clouds ``fake`` and ``other``."""
    path = write_clouds_yaml(tmp_path)
    monkeypatch.setenv("OS_CLIENT_CONFIG_FILE", str(path))
    monkeypatch.chdir(tmp_path)
    return path


@pytest.fixture
def connected(mock: responses.RequestsMock, clock: Clock, clouds_yaml: Path) -> Connection:
    """The real door to compute and network, logged in to services that are made up; what it sleeps is ``clock.slept``."""
    serve_identity(mock)
    connected = Connection.connect("fake", sleep=clock.sleep, clock=clock)
    mock.calls.reset()
    return connected


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def slept(clock: Clock) -> list[float]:
    """The pauses that were made by ``clock``."""
    return clock.slept


@pytest.fixture
def session(connected: Connection) -> Any:
    """A keystoneauth session that is logged in to made-up services."""
    return connected.session


@pytest.fixture
def ipython(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An IPython folder that does not exist yet; nobody is at the terminal."""
    folder = tmp_path / "ipython"
    monkeypatch.setenv("IPYTHONDIR", str(folder))
    answer(monkeypatch, None)
    return folder


def answer(monkeypatch: pytest.MonkeyPatch, text: Any) -> list[str]:
    """Somebody is at the terminal and types ``text``, or Ctrl-D (EOFError); None: there is no terminal, and asking is an error.

    Returns a list of what is asked.
    """
    monkeypatch.setattr(sys.stdin, "isatty", lambda: text is not None, raising=False)
    asked = []

    def ask(question: str) -> str:
        assert text is not None
        asked.append(question)
        if text is EOFError:
            raise EOFError
        return str(text)

    monkeypatch.setattr("builtins.input", ask)
    return asked


def ipp_griffin(*arguments: str) -> tuple[int, str, str]:
    """Run `ipp-griffin` in this process; return its status and what it printed to both streams."""
    from ipp_griffin.cli import Griffin
    from ipp_griffin.cli.command import Command

    def kinds_of(kind: type[Command]) -> list[type[Command]]:
        return [kind, *(c for direct in kind.__subclasses__() for c in kinds_of(direct))]

    out, err, status = io.StringIO(), io.StringIO(), 0
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            Griffin.launch_instance(list(arguments))
    except SystemExit as e:
        status = int(e.code or 0)
    finally:
        for kind in kinds_of(Command):
            kind.clear_instance()
    return status, out.getvalue(), err.getvalue()


@pytest.fixture
def griffin(ipython: Path) -> Iterator[Callable[..., tuple[int, str, str]]]:
    """Run `ipp-griffin` in this process, with an IPython folder that does not exist yet: see `ipp_griffin`."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    yield ipp_griffin
    for number, handler in handlers.items():
        signal.signal(number, handler)


@contextlib.contextmanager
def running_cloud(folder: Path, **options: Any) -> Iterator[DevCloud]:
    """A dev cloud, named by OS_CLOUD."""
    with DevCloud(folder, boot_time=0.3, **options) as cloud, named(cloud.clouds_yaml, "devcloud"):
        yield cloud


@contextlib.contextmanager
def named(clouds_yaml: Path, name: str) -> Iterator[None]:
    """OS_CLOUD names this cloud."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OS_CLIENT_CONFIG_FILE", str(clouds_yaml))
        patch.setenv("OS_CLOUD", name)
        yield


@pytest.fixture
def dev(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[DevCloud]:
    """A dev cloud for one test, named by OS_CLOUD. Servers are ACTIVE after 0.1 s, unless OPTIONS of the test's module say otherwise."""
    options = {"boot_time": 0.1, **getattr(request.module, "OPTIONS", {})}
    with DevCloud(tmp_path / "cloud", **options) as cloud, named(cloud.clouds_yaml, "devcloud"):
        yield cloud


@pytest.fixture(scope="module")
def devcloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DevCloud]:
    """A dev cloud for one test module; at the module's end nothing may be left on it."""
    with running_cloud(tmp_path_factory.mktemp("devcloud")) as cloud:
        yield cloud
        assert_empty(cloud)


def assert_empty(cloud: DevCloud) -> None:
    """No server, container or security group, of whatever project."""
    assert [server["name"] for server in cloud.servers()] == []
    assert cloud.containers() == []
    assert cloud.security_groups() == []


@pytest.fixture(scope="session")
def listed_alike(request: pytest.FixtureRequest, nobodys_home: Path) -> Iterator[None]:
    """On a named cloud of the tests' own, what the plain ``openstack`` client lists is the same before and after all."""
    on = request.config.stash.get(named_cloud, None)
    before = OpenStackClient(on, nobodys_home).everything() if on and not on.shared else {}
    yield
    if on and not on.shared:
        assert OpenStackClient(on, nobodys_home).everything() == before


@contextlib.contextmanager
def cloud_of_run(config: pytest.Config, folder: Path) -> Iterator[Cloud]:
    """The cloud that --cloud names, else a dev cloud in ``folder``; OS_CLOUD names it. At the end nothing may be left on it."""
    on = config.stash.get(named_cloud, None)
    if on is None:
        with running_cloud(folder) as running:
            yield OnDevCloud(running)
            assert_empty(running)
        return
    with named(on.clouds_yaml, on.name):
        try:
            yield on
            assert on.left_over() == []
        finally:
            if "faults" in on.has:
                on.faults.clear()
            on.clean_up()


@pytest.fixture
def cloud(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, listed_alike: None
) -> Iterator[Cloud]:
    """The cloud of this run, for one test."""
    with cloud_of_run(request.config, tmp_path_factory.mktemp("devcloud")) as cloud:
        yield cloud


@pytest.fixture(scope="module")
def shared_cloud(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, listed_alike: None
) -> Iterator[Cloud]:
    """The cloud of this run, for all tests of a module. None of them may use `cloud`, too: on a real cloud that is the same one."""
    with cloud_of_run(request.config, tmp_path_factory.mktemp("devcloud")) as cloud:
        yield cloud
