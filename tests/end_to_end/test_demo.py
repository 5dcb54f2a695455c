"""`make demo`: what it shows, and that Ctrl-C at any point of it leaves nothing."""

import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from .conftest import BIN

pytestmark = pytest.mark.needs("devcloud")
EXAMPLES = Path(__file__).parents[2] / "examples"
Demo = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[Demo]:
    """``demo(argument, ..., path=...)``: its process, in a terminal's process group of its own; its state folder is below ``tmp_path``.

    ``path``: the folder of the commands that it runs.
    """
    shutil.copytree(EXAMPLES, tmp_path / "examples")
    home = tmp_path / "home"
    home.mkdir()
    started = []

    def start(*arguments: str, path: Path = BIN) -> subprocess.Popen[str]:
        system = [folder for folder in os.environ["PATH"].split(":") if not Path(folder).is_relative_to(BIN)]
        process = subprocess.Popen(
            [tmp_path / "examples" / "demo.sh", *arguments],
            env={"PATH": ":".join([str(path), *system]), "HOME": str(home)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()
    assert list(home.iterdir()) == []
    assert {path.name for path in tmp_path.iterdir()} - {"commands", "venv"} == {".state", "examples", "home"}


def living(folder: Path) -> list[list[str]]:
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


def interrupt(process: subprocess.Popen[str], at: str) -> None:
    """Ctrl-C when it has printed ``at``."""
    assert process.stdout is not None
    for line in process.stdout:
        if at in line:
            break
    else:
        pytest.fail(f"{at!r} was never printed")
    os.killpg(process.pid, signal.SIGINT)
    process.stdout.read()
    assert process.wait(170) != 0


@pytest.mark.parametrize("moment", ["$ ipp-griffin devcloud start", "engines connected; servers: "])
def test_ctrl_c_leaves_no_process_and_no_file_elsewhere(demo, tmp_path, eventually, moment):
    """While the dev cloud is started, and while a cluster is."""
    interrupt(demo("1"), moment)
    eventually(lambda: living(tmp_path) == [], "no process left", timeout=170)


COMMAND = """#!/bin/bash
# Notes how it is called. Where it is to be interrupted it does not end, the first time.
folder=$(dirname "$0")
called="$(basename "$0") $*"
file=$IPYTHONDIR/profile_griffin/security/cluster-.json
echo "$called" >> "$folder/called"
[[ "$called" != "ipcluster start"* ]] || { mkdir -p "${file%/*}"; touch "$file"; }
if [[ "$called" = "$(cat "$folder/interrupted")"* ]] && mkdir "$folder/once" 2>/dev/null; then
    echo "now" >&2
    exec sleep 1000
fi
[[ "$called" != "ipcluster stop"* ]] || rm "$file"
"""


@pytest.fixture
def commands(tmp_path: Path) -> Path:
    """The folder of stand-ins for what the demo runs; what each was called with is in its file ``called``."""
    folder = tmp_path / "commands"
    folder.mkdir()
    for name in ("ipp-griffin", "ipcluster", "python"):
        (folder / name).write_text(COMMAND)
        (folder / name).chmod(0o755)
    return folder


DEVCLOUD, CLUSTER = "ipp-griffin devcloud stop", "ipcluster stop"


@pytest.mark.parametrize(
    ("command", "ended"),
    [
        ("ipp-griffin devcloud start", [DEVCLOUD]),
        ("ipp-griffin devcloud env", [DEVCLOUD]),
        ("ipp-griffin init", [DEVCLOUD]),
        ("ipcluster start", [CLUSTER, DEVCLOUD]),
        ("python examples/pi.py", [CLUSTER, DEVCLOUD]),
        ("ipcluster stop", [CLUSTER, DEVCLOUD]),
        ("ipp-griffin devcloud status", [DEVCLOUD]),
    ],
)
def test_whatever_command_ctrl_c_comes_in_what_was_started_is_ended(demo, tmp_path, commands, command, ended):
    (commands / "interrupted").write_text(command)
    process = demo(path=commands)
    interrupt(process, "now")
    assert process.returncode == 130
    called = (commands / "called").read_text().splitlines()
    after = called[next(n for n, line in enumerate(called) if line.startswith(command)) + 1 :]
    assert [" ".join(line.split()[: len(end.split())]) for line, end in zip(after, ended, strict=True)] == ended
    assert living(tmp_path) == []


def test_it_has_eight_engines_or_as_many_as_are_asked_for(demo, commands):
    (commands / "interrupted").write_text("nothing")
    for arguments in ((), ("3",)):
        assert demo(*arguments, path=commands).wait() == 0
    called = (commands / "called").read_text().splitlines()
    start = "ipcluster start --profile=griffin -n {} --daemonize"
    assert [line for line in called if line.startswith("ipcluster start")] == [start.format(8), start.format(3)]
