"""Every test runs in an empty home, without anybody's credentials, and on clouds of its own."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ipp_griffin.devcloud import DevCloud


@pytest.fixture(autouse=True, scope="session")
def nobodys_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """HOME and IPYTHONDIR are empty folders; no variable of OpenStack or ipyparallel is set."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        for name in os.environ:
            if name.startswith(("OS_", "IPP_", "GRIFFIN_", "XDG_")):
                patch.delenv(name)
        patch.setenv("HOME", str(home))
        patch.setenv("IPYTHONDIR", str(home / ".ipython"))
        yield home


@contextlib.contextmanager
def running_cloud(folder: Path, **options: Any) -> Iterator[DevCloud]:
    """A dev cloud, named by OS_CLOUD."""
    with DevCloud(folder, boot_time=0.3, **options) as cloud, pytest.MonkeyPatch.context() as patch:
        patch.setenv("OS_CLIENT_CONFIG_FILE", str(cloud.clouds_yaml))
        patch.setenv("OS_CLOUD", "devcloud")
        yield cloud


@pytest.fixture(scope="module")
def devcloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DevCloud]:
    """A dev cloud for one test module; at the module's end nothing may be left on it."""
    with running_cloud(tmp_path_factory.mktemp("devcloud")) as cloud:
        yield cloud
        assert_empty(cloud)


def assert_empty(cloud: DevCloud) -> None:
    """No server and no container, of whatever project."""
    assert [server["name"] for server in cloud.servers()] == []
    assert cloud.containers() == []
