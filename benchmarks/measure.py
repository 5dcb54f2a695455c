"""One contender on one dev cloud: what it takes until all servers are ACTIVE, until all engines are registered, and until all are gone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from ipp_griffin.devcloud import DevCloud

HERE = Path(__file__).parent
PEERS = HERE.parent / ".tools" / "peers"  # where dask-cloudprovider is
SCRIPTS = {"ipp-griffin": "griffin.py", "SDK loop": "loop.py", "dask-cloudprovider": "dask_cloud.py"}
BIN = Path(sys.executable).parent
PATIENCE = 150  # seconds that a contender gets; what it has not done by then is said


@dataclass(frozen=True)
class Setting:
    """A cloud, and what is asked of it. ``latency``: seconds added to every request; ``boot``: seconds from the request to ACTIVE;
    ``poll``: this project's ``poll_interval``."""

    n: int
    latency: float = 0.05
    boot: float = 5.0
    poll: float = 1.0

    @property
    def limit(self) -> float:
        """The least seconds until all are ACTIVE: with 10 requests at a time the last is asked for so late, and boots so long."""
        return -(-self.n // 10) * self.latency + self.boot


@dataclass
class Figures:
    """Seconds and requests. None: not done within `PATIENCE` seconds."""

    contender: str
    setting: Setting
    active: float | None = None
    stop: float | None = None
    cpu: float | None = None  # seconds of the launcher's process until all were ACTIVE, without what it did before
    mb: float | None = None
    requests: Counter[str] = field(
        default_factory=Counter
    )  # until all were ACTIVE, by kind, from the log-in on; dask's from when its scheduler is there
    stop_requests: Counter[str] = field(default_factory=Counter)
    seen: int = 0  # servers that were ACTIVE at the end

    @property
    def times(self) -> float | None:
        """How many times the limit."""
        return None if self.active is None else self.active / self.setting.limit

    @property
    def over(self) -> float | None:
        """Seconds over the limit."""
        return None if self.active is None else self.active - self.setting.limit


@contextmanager
def cloud_for(setting: Setting, *, guests: bool = False) -> Iterator[tuple[DevCloud, dict[str, str]]]:
    """A dev cloud in this process, silent without ``guests``; and the environment of a user of it, with the griffin profile."""
    with (
        tempfile.TemporaryDirectory() as folder,
        DevCloud(
            Path(folder, "cloud"),
            latency=setting.latency,
            boot_time=setting.boot,
            guests=guests,
            quota_instances=setting.n + 8,
        ) as cloud,
    ):
        environment = _environment(folder, cloud)
        subprocess.run([BIN / "ipp-griffin", "init"], check=True, capture_output=True, env=environment)
        yield cloud, environment


def stop(environment: Mapping[str, str]) -> float:
    """Seconds that a whole `ipcluster stop` takes, a process of its own."""
    began = time.monotonic()
    command = [BIN / "ipcluster", "stop", "--profile=griffin", "--log-level=ERROR"]
    subprocess.run(command, check=True, env=environment, stderr=subprocess.DEVNULL)
    return time.monotonic() - began


class Bench:
    """A dev cloud in this process, with one contender on it."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting

    def measure(self, contender: str) -> Figures:
        figures = Figures(contender, self.setting)
        with cloud_for(self.setting) as (cloud, environment):
            with _running(contender, cloud, environment, self.setting) as process:
                marks = _Marks(process, cloud)
                if contender == "ipp-griffin":
                    self._griffin(marks, process, cloud, environment, figures)
                else:
                    self._other(marks, process, figures)
            figures.seen = sum(server["status"] == "ACTIVE" for server in cloud.servers())
        return figures

    def _other(self, marks: _Marks, process: subprocess.Popen[str], figures: Figures) -> None:
        begin, active = marks.wait("begin"), marks.wait("active")
        if not (begin and active):
            return
        scheduler = (
            begin["requests"] if figures.contender == "dask-cloudprovider" else None
        )  # its server is not counted
        _fill(figures, begin, active, since=scheduler)
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
        stop, stopped = marks.wait("stop"), marks.wait("stopped")
        if stop and stopped:
            figures.stop = stopped["at"] - stop["at"]
            figures.stop_requests = stopped["requests"] - stop["requests"]

    def _griffin(
        self,
        marks: _Marks,
        process: subprocess.Popen[str],
        cloud: DevCloud,
        environment: Mapping[str, str],
        figures: Figures,
    ) -> None:
        begin, active = marks.wait("begin"), marks.wait("active")
        if begin and active:
            _fill(figures, begin, active)  # from the log-in on
        process.kill()  # it would wait for silent engines, and look on beside the stop
        process.wait()
        before = _kinds(cloud)
        figures.stop, figures.stop_requests = stop(environment), _kinds(cloud) - before


def _fill(
    figures: Figures, begin: Mapping[str, Any], active: Mapping[str, Any], since: Counter[str] | None = None
) -> None:
    figures.active = active["at"] - begin["at"]
    figures.cpu, figures.mb = active["cpu"] - begin["cpu"], active["mb"]
    figures.requests = active["requests"] - (since or Counter())


def _environment(folder: str, cloud: DevCloud) -> dict[str, str]:
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "LC_ALL") if name in os.environ}
    where = {"OS_CLIENT_CONFIG_FILE": str(cloud.clouds_yaml), "OS_CLOUD": "devcloud"}
    return {**kept, **where, "HOME": folder, "IPYTHONDIR": str(Path(folder, "ipython"))}


@contextmanager
def _running(
    contender: str, cloud: DevCloud, environment: Mapping[str, str], setting: Setting
) -> Iterator[subprocess.Popen[str]]:
    dask = contender == "dask-cloudprovider"
    python = str(PEERS / "bin" / "python") if dask else sys.executable
    more = {"dask-cloudprovider": lambda: _dask_arguments(cloud), "ipp-griffin": lambda: [str(setting.poll)]}
    command = [python, str(HERE / "contenders" / SCRIPTS[contender]), str(setting.n), *more.get(contender, list)()]
    with subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def _dask_arguments(cloud: DevCloud) -> list[str]:
    clouds = yaml.safe_load(cloud.clouds_yaml.read_text())["clouds"]
    auth = next(entry["auth"] for entry in clouds.values() if "application_credential_id" in entry["auth"])
    from ipp_griffin.devcloud.things import NETWORK_ID

    return [auth["auth_url"], auth["application_credential_id"], auth["application_credential_secret"], NETWORK_ID]


class _Marks:
    """What a contender has told, each with the requests that the cloud had got by then."""

    def __init__(self, process: subprocess.Popen[str], cloud: DevCloud) -> None:
        self._process, self._cloud = process, cloud
        self._told: dict[str, dict[str, Any]] = {}
        self._news = threading.Condition()
        self._deadline = time.monotonic() + PATIENCE
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith('{"mark"'):
                told = json.loads(line)
                with self._news:
                    self._told.setdefault(told["mark"], {**told, "requests": _kinds(self._cloud)})
                    self._news.notify_all()

    def wait(self, name: str) -> dict[str, Any] | None:
        """None: not in time, or never."""
        with self._news:
            while name not in self._told and self._process.poll() is None:
                left = self._deadline - time.monotonic()
                if left <= 0:
                    return None
                self._news.wait(min(left, 0.5))
            return self._told.get(name)


def _kinds(cloud: DevCloud) -> Counter[str]:
    """The requests so far, by what they are about."""
    kinds: Counter[str] = Counter()
    for service, method, path, _ in cloud.requests:
        about = "servers" if "/servers" in path and not path.endswith("/action") else service
        kinds[f"{method} {about}"] += 1
    return kinds
