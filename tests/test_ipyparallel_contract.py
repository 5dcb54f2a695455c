"""ipyparallel's own tests of launchers, with ours for controller and engines, on the dev cloud or another.

As ipyparallel's ``test_slurm.py`` does, but every test that takes the ``Cluster`` fixture or ``engine_launcher_class``.

Two of them can't hold for a launcher whose engines are elsewhere:

- ``test_wait_for_engines_crash`` patches this process's own ``os.environ`` and expects engines to inherit it. Its
  substitute is `test_engines_that_crash_at_their_start_fail_the_start`.
- ``test_restart_engines`` wants other process ids after a restart; where servers count processes for themselves, as on
  every cloud but the dev cloud, the first engine of each has the same. `test_restarted_engines_are_on_new_servers` is in its place.
"""

import asyncio
import logging
import os
from pathlib import Path

import ipyparallel as ipp
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
pytest.mark.needs("devcloud")(test_restart_engines)
REPLACED = {"test_wait_for_engines_crash"}


@pytest.fixture(autouse=True)
def nothing_in_tmp(tmp_path, monkeypatch):
    """`test_cluster_repr` uses the temporary folder itself as profile folder."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))


@pytest.fixture
def cluster_config(cloud):
    return settings_of(cloud)


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
    cluster = Cluster(n=2, profile_dir=str(tmp_path))
    with pytest.raises(
        ipp_griffin.plan.GriffinError,
        match=r"can't have its \d engines any more\. .*its engines ended at once: .*exit code 1",
    ):
        await cluster.start_cluster()
    await cluster.stop_cluster()


async def test_restarted_engines_are_on_new_servers(Cluster):  # noqa: F811, N803
    async with Cluster(n=2) as rc:
        before, ids = set(rc[:].apply_sync(os.getenv, "GRIFFIN_SERVER")), set(rc.ids)
        await rc.cluster.restart_engines()
        while ids & set(rc.ids):
            await asyncio.sleep(0.1)
        rc.wait_for_engines(2, timeout=60, interactive=False)
        after = set(rc[:].apply_sync(os.getenv, "GRIFFIN_SERVER"))
        assert len(after) == 2
        assert not after & before


class TestDefaultHeartbeat:
    """The same at ipyparallel's default heartbeat of 3000 ms: an engine is listed seconds after it registered."""

    @pytest.fixture
    def Cluster(self, request, tmp_path, cluster_config):  # noqa: N802
        def construct(**kwargs):
            log = logging.getLogger(__file__)
            cluster = ipp.Cluster(
                controller="griffin",
                engines="griffin",
                profile_dir=str(tmp_path),
                log=log,
                load_profile=False,
                config=cluster_config,
                **kwargs,
            )
            request.addfinalizer(cluster.stop_cluster_sync)
            return cluster

        return construct

    test_async_with = staticmethod(test_async_with)
    test_start_stop_engines = staticmethod(test_start_stop_engines)
    test_restart_engines = staticmethod(test_restart_engines)

    async def test_engines_are_listed_when_start_returns(self, Cluster):  # noqa: N803, F811
        cluster = Cluster(n=2)
        await cluster.start_cluster()
        with await cluster.connect_client() as rc:
            assert len(rc.ids) == 2
        await cluster.stop_cluster()
