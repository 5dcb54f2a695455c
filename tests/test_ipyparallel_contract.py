"""ipyparallel's own tests of launchers, with ours for controller and engines, on the dev cloud or another.

As ipyparallel's ``test_slurm.py`` does, but every test that takes the ``Cluster`` fixture or ``engine_launcher_class``.

Two of them can't hold for a launcher whose engines are elsewhere:

- ``test_wait_for_engines_crash`` patches this process's own ``os.environ`` and expects engines to inherit it. Its
  substitute is `test_engines_that_crash_at_their_start_fail_the_start`.
- ``test_restart_engines`` wants other process ids after a restart; where servers count processes for themselves, as on
  every cloud but the dev cloud, the first engine of each has the same. There
  `test_at_the_default_heartbeat_engines_are_listed_when_a_start_or_restart_returns` is in its place.

Of those that pass on the dev cloud, real servers get what differs there: engines that start, stop and are signalled elsewhere.
"""

import asyncio
import os
from pathlib import Path

import pytest
from ipyparallel.tests import test_cluster
from ipyparallel.tests.conftest import (  # noqa: F401
    Cluster,
    Context,
    ipython,
    ipython_dir,
    temporary_ipython_dir,
)
from ipyparallel.tests.test_cluster import (  # noqa: F401
    test_async_with,
    test_cluster_id,
    test_cluster_manager_notice_stop,
    test_cluster_repr,
    test_default_from_file,
    test_get_output,
    test_restart_engines,
    test_signal_engines,
    test_start_and_connect_activate,
    test_start_stop_cluster,
    test_start_stop_controller,
    test_start_stop_engines,
    test_sync_with,
    test_to_from_dict,
)

import ipp_griffin.launchers

from .clouds import settings_of

pytestmark = pytest.mark.usefixtures("cloud")
REPLACED = {"test_wait_for_engines_crash"}
ON_REAL_SERVERS = {"test_start_stop_engines", "test_signal_engines"}
for name in {name for name in globals() if name.startswith("test_")} - {"test_cluster", *ON_REAL_SERVERS}:
    pytest.mark.needs("devcloud")(globals()[name])


@pytest.fixture(autouse=True)
def nothing_in_tmp(tmp_path, monkeypatch):
    """`test_cluster_repr` uses the temporary folder itself as profile folder."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))


@pytest.fixture
def cluster_config(cloud):
    """On the dev cloud two engines share a server; on real ones each has its own."""
    config = settings_of(cloud)
    if "devcloud" in cloud.has:
        config.GriffinCloud.flavor = cloud.four_cores
    return config


@pytest.fixture(autouse=True)
def no_nanny_for_engines_that_are_not_signalled(request, ipython_dir):  # noqa: F811
    """It is a third of what it takes to start an engine, and nothing of a launcher's."""
    config = Path(ipython_dir, "profile_default", "ipengine_config.py")
    if request.function.__name__ not in ("test_start_stop_engines", "test_signal_engines", "test_to_from_dict"):
        config.write_text("c.IPEngine.enable_nanny = False\n")
    yield
    config.unlink(missing_ok=True)


@pytest.fixture
def engine_launcher_class():
    return "griffin"


@pytest.fixture
def controller_launcher_class():
    return "griffin"


def test_no_test_of_ipyparallels_that_uses_a_launcher_is_missing_here():
    """Those that take the Cluster fixture or engine_launcher_class, in the installed version."""
    wanted = {
        name
        for name, function in vars(test_cluster).items()
        if name.startswith("test_")
        and {"Cluster", "engine_launcher_class"} & set(function.__code__.co_varnames[: function.__code__.co_argcount])
    }
    assert len(wanted) > 10
    assert wanted - REPLACED <= set(globals())


async def test_engines_that_crash_at_their_start_fail_the_start(Cluster, tmp_path):  # noqa: F811, N803
    """In place of test_wait_for_engines_crash: `start()` itself raises, with the engine's last words."""
    crash = (Path(test_cluster.__file__).parent / "_test_startup_crash.py").read_text()
    # By what travels to the servers: that file need not be there.
    (tmp_path / "ipengine_config.py").write_text(f"c.IPEngine.startup_command = {crash!r}\n")
    cluster = Cluster(n=1, profile_dir=str(tmp_path))
    with pytest.raises(
        ipp_griffin.common.errors.GriffinError,
        match=r"can no longer get its \d engines\. .*its engines ended at once: .*exit code 1",
    ):
        await cluster.start_cluster()
    await cluster.stop_cluster()


async def test_at_the_default_heartbeat_engines_are_listed_when_a_start_or_restart_returns(Cluster, tmp_path):  # noqa: F811, N803
    """An engine is listed seconds after it registered: the tests above have a heartbeat of 250 ms, the default is 3000.

    Restarted engines are on new servers, and those of before are no longer listed.
    """
    cluster = Cluster(n=1, controller_args=[], profile_dir=str(tmp_path))
    await cluster.start_cluster()
    with await cluster.connect_client() as rc:
        before = set(rc.ids)
        assert len(before) == 1
        servers = set(rc[:].apply_sync(os.getenv, "GRIFFIN_SERVER"))
    await cluster.restart_engines()
    with await cluster.connect_client() as rc:
        restarted = set(rc.ids) - before
        assert len(restarted) == 1
        again = set(rc[sorted(restarted)].apply_sync(os.getenv, "GRIFFIN_SERVER"))
        assert not again & servers
        while before & set(rc.ids):
            await asyncio.sleep(0.1)
    await cluster.stop_cluster()
