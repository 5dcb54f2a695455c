"""The dev cloud as a background process, with everything it has in one folder.

FOLDER holds ``clouds.yaml`` (0600), ``devcloud.log``, ``service.json`` (which process it is), ``id`` and, while
servers exist, ``servers/<server id>/`` (home, user-data, console.log). Faults (see `faults`) are set by

    curl -H 'Content-Type: application/json' URL/devcloud/faults -d '{"service": "compute", "status": 503, "count": 2}'

and removed by ``curl -X DELETE URL/devcloud/faults``, or by `set_faults` here.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

from .app import DevCloud, DevCloudError
from .guests import kill_cloud

_PACKAGE_ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Info:
    """A background dev cloud, with the names of what is on it. Where it does not run, only ``folder`` matters."""

    folder: Path
    running: bool = False
    url: str = ""
    pid: int = 0
    servers: tuple[str, ...] = ()
    containers: tuple[str, ...] = ()

    @property
    def clouds_yaml(self) -> Path:
        return self.folder / "clouds.yaml"


@dataclass(frozen=True)
class _Record:
    """Which process serves: its creation time tells it from a later one with the same pid."""

    pid: int
    created: float
    url: str

    @classmethod
    def load(cls, folder: Path) -> _Record | None:
        try:
            return cls(**json.loads((folder / "service.json").read_text()))
        except (OSError, ValueError, TypeError):
            return None

    def process(self) -> psutil.Process | None:
        """Return the process if it lives."""
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(self.pid)
            if abs(process.create_time() - self.created) < 1 and process.status() != psutil.STATUS_ZOMBIE:
                return process
        return None


def start(
    folder: Path,
    *,
    port: int = 0,
    boot_time: float = 0.5,
    latency: float = 0.0,
    quota_instances: int = 64,
    guests: bool = True,
    timeout: float = 30.0,
) -> Info:
    """Start the dev cloud of ``folder``, unless it runs already, and wait until it answers.

    The options are those of `DevCloud`. Raises `DevCloudError` if it doesn't answer within ``timeout`` seconds.
    """
    folder = Path(folder).absolute()
    if (info := status(folder)).running:
        return info
    options = [f"--port={port}", f"--boot-time={boot_time}", f"--latency={latency}"]
    options += [f"--quota-instances={quota_instances}", *([] if guests else ["--no-guests"])]
    process = _spawn(folder, options)
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        if (info := status(folder)).running:
            if info.pid == process.pid:
                process.returncode = 0  # it is left alone from now on: no ResourceWarning when this object goes
            else:
                process.wait()  # somebody else was faster; ours finds the folder in use
            return info
        if process.poll() is not None:
            # Somebody else may have started it at the same time, and need a little longer to answer.
            if process.returncode == _BUSY and time.monotonic() < deadline - timeout + 5:
                time.sleep(0.05)
                continue
            raise DevCloudError(_last_line(folder) or f"The dev cloud ended with status {process.returncode}.")
        time.sleep(0.05)
    process.kill()
    process.wait()
    raise DevCloudError(f"The dev cloud did not answer within {timeout:g} s; see {folder / 'devcloud.log'}.")


def stop(folder: Path, *, timeout: float = 15.0) -> bool:
    """End the dev cloud of ``folder`` with all its guests, also those of one that was killed. False: none ran."""
    folder = Path(folder).absolute()
    record = _Record.load(folder)
    process = record.process() if record else None
    if process is not None:
        with contextlib.suppress(psutil.Error):
            process.terminate()
            try:
                process.wait(timeout)
            except psutil.TimeoutExpired:
                process.kill()
                process.wait(timeout)
    with contextlib.suppress(OSError):
        kill_cloud(folder / "servers", (folder / "id").read_text().strip())
    shutil.rmtree(folder / "servers", ignore_errors=True)
    for name in ("clouds.yaml", "service.json"):
        with contextlib.suppress(OSError):
            (folder / name).unlink()
    return process is not None


def status(folder: Path) -> Info:
    """Return whether the dev cloud of ``folder`` runs and answers."""
    folder = Path(folder).absolute()
    record = _Record.load(folder)
    process = record.process() if record else None
    if record is None or process is None:
        return Info(folder)
    try:
        answer = _ask(f"{record.url}/devcloud")
    except (OSError, ValueError):
        return Info(folder, pid=record.pid)
    if answer.get("pid") != record.pid:
        return Info(folder)
    servers, containers = (tuple(map(str, answer.get(kind, ()))) for kind in ("servers", "containers"))
    return Info(folder, True, record.url, record.pid, servers, containers)


def env(folder: Path) -> dict[str, str]:
    """Return the environment variables that point OpenStack clients to it. Raises `DevCloudError` if it doesn't run."""
    info = status(folder)
    if not info.running:
        raise DevCloudError(
            f"No dev cloud runs in {info.folder}. Start it: ipp-griffin devcloud start --folder {shlex.quote(str(info.folder))}"
        )
    return {"OS_CLIENT_CONFIG_FILE": str(info.clouds_yaml), "OS_CLOUD": "devcloud"}


def set_faults(folder: Path, *faults: Mapping[str, Any]) -> None:
    """Replace the faults of a running dev cloud; none clears them. Raises `DevCloudError` with what is wrong."""
    info = status(folder)
    if not info.running:
        raise DevCloudError(f"No dev cloud runs in {info.folder}. Start it: ipp-griffin devcloud start")
    try:
        _ask(f"{info.url}/devcloud/faults", json.dumps(faults).encode())
    except urllib.error.HTTPError as error:
        raise DevCloudError(str(json.loads(error.read())["error"])) from error


_BUSY = 3  # exit status: another dev cloud runs in that folder


def serve(folder: Path, options: Mapping[str, Any]) -> int:
    """Run the dev cloud until SIGTERM or SIGINT. Return the exit status."""
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: ended.set())
    try:
        cloud = DevCloud(folder, **options).start()
    except DevCloudError as error:
        print(error, file=sys.stderr, flush=True)
        return _BUSY if str(error).startswith("Another") else 1
    try:
        record = _Record(os.getpid(), psutil.Process().create_time(), cloud.url)
        new = cloud.folder / "service.new"
        new.write_text(json.dumps(asdict(record)))
        new.rename(cloud.folder / "service.json")
        print(f"The dev cloud listens at {cloud.url}", flush=True)
        ended.wait()
        (cloud.folder / "service.json").unlink(missing_ok=True)
    finally:
        cloud.stop()
    return 0


def _spawn(folder: Path, options: list[str]) -> subprocess.Popen[bytes]:
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        log = os.open(folder / "devcloud.log", os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
    except OSError as error:
        raise DevCloudError(f"Can't use the folder {folder}: {error.strerror}.") from error
    path = os.pathsep.join(filter(None, (str(_PACKAGE_ROOT), os.environ.get("PYTHONPATH", ""))))
    try:
        return subprocess.Popen(
            [sys.executable, "-m", "ipp_griffin.devcloud", str(folder), *options],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": path},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    finally:
        os.close(log)


def _last_line(folder: Path) -> str:
    lines = (folder / "devcloud.log").read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else ""


def _ask(url: str, body: bytes | None = None) -> dict[str, Any]:
    """Return the JSON that ``url`` answers, past any proxy."""
    request = urllib.request.Request(url, data=body, headers={"Content-Type": "application/json"})
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=5) as response:
        answer = json.load(response)
    return answer if isinstance(answer, dict) else {}
