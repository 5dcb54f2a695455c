"""`python -m ipp_griffin.ipcontroller`: ipyparallel's, with heartbeats of our own where nobody asks for others."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ipyparallel.controller import app
from ipyparallel.controller.heartmonitor import HeartMonitor

from ipp_griffin.controller import ipcontroller as module
from ipp_griffin.controller.ipcontroller import ARGUMENTS, STARTER, give_arguments

from ..fakes import Clock


@pytest.mark.parametrize(
    ("config", "arguments", "period"),
    [
        ("", [], 500),
        ("c = get_config()\nc.HeartMonitor.period = 700\n", [], 700),
        ("c = get_config()\nc.HeartMonitor.period = 700\n", ["--ping=900"], 900),
    ],
    ids=["default", "file", "argument"],
)
def test_a_profile_or_an_argument_says_how_fast_hearts_beat(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, config: str, arguments: list[str], period: int
) -> None:
    (tmp_path / "ipcontroller_config.py").write_text(config)
    made: list[Any] = []
    monkeypatch.setattr(module, "redact_this_process", lambda secrets: None)
    monkeypatch.setattr(app.IPController, "launch_instance", classmethod(lambda kind: made.append(kind())))
    module.main()
    (controller,) = made
    controller.parse_command_line([f"--profile-dir={tmp_path}", *arguments])
    controller.init_profile_dir()
    controller.init_config_files()
    controller.load_config_file()
    assert HeartMonitor(config=controller.config).period == period


def test_hearts_of_a_real_one_beat_so_and_it_logs_no_key(tmp_path: Path) -> None:
    (tmp_path / "ipcontroller_config.py").write_text("c = get_config()\nc.HeartMonitor.period = 700\n")
    key = "5ecre7-signing-key"
    command = [
        sys.executable,
        "-m",
        "ipp_griffin.ipcontroller",
        f"--profile-dir={tmp_path}",
        "--log-level=10",
    ]
    output = tmp_path / "output"
    with output.open("w") as log:
        process = subprocess.Popen(
            [*command, "--ip=127.0.0.1"],
            env={**os.environ, "IPP_SESSION_KEY": key},
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        deadline = time.monotonic() + 60
        while "Heartmonitor beating every 700ms" not in output.read_text():
            assert process.poll() is None and time.monotonic() < deadline, output.read_text()
            time.sleep(0.05)
        assert key in (tmp_path / "security" / "ipcontroller-client.json").read_text()
    finally:
        process.terminate()
        process.wait(60)
    assert key not in output.read_text()


@pytest.mark.parametrize("reaped", [True, False], ids=["gone", "zombie"])
@pytest.mark.parametrize("waits", [True, False], ids=["waits for arguments", "has its arguments"])
def test_one_whose_starter_was_killed_before_it_was_ready_ends_and_leaves_no_connection_file(
    tmp_path: Path, reaped: bool, waits: bool
) -> None:
    """No cluster file may name it, so that no stop would find it."""
    starter = subprocess.Popen([sys.executable, "-c", ""], stdout=subprocess.PIPE)
    assert starter.stdout is not None and starter.stdout.read() == b""  # it has ended, or is about to
    if reaped:
        starter.wait(60)
    process = subprocess.Popen(
        [sys.executable, "-m", "ipp_griffin.ipcontroller", f"--profile-dir={tmp_path}", "--ip=127.0.0.1"],
        env={**os.environ, STARTER: str(starter.pid), **({ARGUMENTS: str(tmp_path / "arguments")} if waits else {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        said = process.communicate(timeout=60)[0]
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # all that it should not have started
    starter.wait(60)
    starter.stdout.close()
    assert process.returncode == 1
    assert f"Process {starter.pid}, which started this controller, has ended" in said
    assert "Traceback" not in said
    assert not list((tmp_path / "security").glob("*.json"))


def test_one_that_was_started_before_its_arguments_were_known_waits_for_them(tmp_path: Path) -> None:
    security, arguments = tmp_path / "security", tmp_path / "arguments"
    process = subprocess.Popen(
        [sys.executable, "-m", "ipp_griffin.ipcontroller", f"--profile-dir={tmp_path}"],
        env={**os.environ, STARTER: str(os.getpid()), ARGUMENTS: str(arguments)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        give_arguments(arguments, ["--ip=127.0.0.1", "--location=here"])
        deadline = time.monotonic() + 60
        while len(list(security.glob("ipcontroller-*.json"))) < 2:
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.02)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(60)
    assert '"location": "here"' in (security / "ipcontroller-engine.json").read_text()
    assert not arguments.exists()


def test_one_that_gets_no_arguments_ends_at_its_deadline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(STARTER, str(os.getppid()))
    clock = Clock()
    monkeypatch.setattr(module, "time", SimpleNamespace(sleep=clock.sleep, monotonic=clock))
    with pytest.raises(SystemExit, match="gave no address to this controller within 600 s"):
        module._wait_for_arguments(tmp_path / "arguments")
    assert sum(clock.slept) == pytest.approx(600, abs=1)


def test_a_stop_that_comes_before_its_arguments_is_no_failure(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "ipp_griffin.ipcontroller", f"--profile-dir={tmp_path}"],
        env={**os.environ, STARTER: str(os.getpid()), ARGUMENTS: str(tmp_path / "arguments")},
    )
    try:
        status, deadline = Path(f"/proc/{process.pid}/status"), time.monotonic() + 60
        while not int(status.read_text().partition("SigCgt:")[2].split()[0], 16) >> (signal.SIGTERM - 1) & 1:
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.01)
        process.terminate()
        assert process.wait(60) == 0
    finally:
        process.kill()
