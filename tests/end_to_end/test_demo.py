"""`make demo`: what it shows, and that Ctrl-C at any point of it leaves nothing."""

import os
import shutil
import signal
import subprocess
from pathlib import Path

import psutil
import pytest

from .conftest import BIN

pytestmark = pytest.mark.needs("devcloud")
EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def demo(tmp_path):
    """The demo's process, in a terminal's process group of its own; its state folder is below ``tmp_path``."""
    shutil.copytree(EXAMPLES, tmp_path / "examples")
    home = tmp_path / "home"
    home.mkdir()
    process = subprocess.Popen(
        [tmp_path / "examples" / "demo.sh"],
        env={"PATH": f"{BIN}:{os.environ['PATH']}", "HOME": str(home)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    yield process
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert list(home.iterdir()) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == [".state", "examples", "home"]


def living(folder):
    """Command lines of processes that name the folder, in their arguments or their environment."""
    found = []
    for process in psutil.process_iter():
        try:
            text = " ".join([*process.cmdline(), *process.environ().values()])
        except psutil.Error:
            continue
        if str(folder) in text and process.pid != os.getpid() and process.status() != psutil.STATUS_ZOMBIE:
            found.append(process.cmdline())
    return found


def test_it_shows_a_whole_cluster_and_an_empty_cloud(demo, tmp_path):
    output = demo.communicate(timeout=120)[0]
    assert demo.returncode == 0, output
    assert "Traceback" not in output
    assert "8 engines: [0, 1, 2, 3, 4, 5, 6, 7]" in output
    assert (
        len([line for line in output.splitlines() if line.startswith("  engine ") and " is on griffin-" in line]) == 8
    )
    assert "pi is about 3.1" in output
    assert output.rstrip().endswith("Servers: none\nContainers: none")
    assert living(tmp_path) == []


@pytest.mark.parametrize(
    "moment",
    [
        "$ ipp-griffin devcloud start",
        "$ ipp-griffin init",
        "$ ipcluster start",
        "engines connected; servers: ",
        "All 8 engines are connected",
        "engine 0 is on",
        "Stopping engine(s)",
    ],
)
def test_ctrl_c_leaves_no_process_and_no_file_elsewhere(demo, tmp_path, eventually, moment):
    for line in demo.stdout:
        if moment in line:
            break
    else:
        pytest.fail(f"{moment!r} was never printed")
    os.killpg(demo.pid, signal.SIGINT)
    demo.stdout.read()
    assert demo.wait(60) != 0
    eventually(lambda: living(tmp_path) == [], "no process left", timeout=10)
