"""What every agent does: get the private object, prepare, work, report how it ended, and switch its server off."""

import os
import socket
import threading
import time
from typing import Any, Callable

from .children import Children
from .connection import connect_error, controller_address, parse_private_object, secrets_of
from .errors import ControllerGone, Expired, Failure, Stopped
from .reports import Reports
from .runtime import Runtime
from .state import State
from .store import Store
from .system import Json, Run, read, run_command, say, write
from .text import Redactor

POLL = 0.25  # seconds between two polls of the children
PROBE = 5.0  # seconds between two tries to reach the controller
INSTANCE_ID = "/var/lib/cloud/data/instance-id"


class Agent:
    """One server's agent. ``root``: it runs as the unit, so engines get a user of their own and it may power off."""

    def __init__(
        self,
        parameters: Json,
        folder: str,
        root: bool,
        urlopen: Callable[..., Any],
        run: Run = run_command,
        sleep: Callable[[float], None] = time.sleep,
        monotonic: Callable[[], float] = time.monotonic,
        connect: Callable[[str, int], str] = connect_error,
        log: Callable[[str], None] = say,
        thread: Callable[..., Any] = threading.Thread,
    ) -> None:
        self.parameters, self.root = parameters, root
        self.run, self.sleep, self.monotonic, self.connect, self._log = run, sleep, monotonic, connect, log
        self.private_object: Json = {}
        self.redactor = Redactor(secrets_of(parameters, {}))
        self.state = State(folder, self.log)
        self.store = Store(urlopen, sleep, monotonic, self.log)
        self.runtime = Runtime(parameters, folder, root, run, urlopen, self.log)
        self.children = Children(monotonic)
        self.reports = Reports(
            parameters, self.state, self.store, self.children, self.redactor, self.log, monotonic, thread
        )

    def log(self, line: str) -> None:
        self._log(self.redactor.text(line))

    # -- what the roles do differently --

    def check(self, private_object: Json) -> None:
        """Raise ValueError for a private object that is not for this server, or not yet."""

    def needs_python(self) -> bool:
        """Return whether the agent needs a Python with ipyparallel even if the user set the command to run."""
        return False

    def work(self) -> None:
        """Do all that comes after the preparations, until something is raised."""
        raise NotImplementedError

    def summary(self) -> str:
        """Return how the children are, for a report."""
        raise NotImplementedError

    def end(self) -> None:
        """End the children."""
        self.children.end()

    # -- what they share --

    def timeout(self, name: str, default: float) -> Any:
        """Return one of the user's timeouts, in seconds."""
        return self.private_object.get("timeouts", {}).get(name, default)

    def controller_address(self) -> str:
        return controller_address(self.private_object, socket.gethostname())

    def expired(self) -> bool:
        """Return whether this server's life is over."""
        return bool(self.parameters.get("expires")) and self.store.now() >= self.parameters["expires"]

    def poll_reports(self) -> None:
        self.reports.poll(self.timeout("log_interval", 60), self.summary)

    def profile(self) -> str:
        """Return the path of the profile folder."""
        return self.runtime.path("profile_" + self.parameters["engine_set"])

    def load(self) -> None:
        """Get the private object: the kept one after a reboot, else from the store."""
        path = self.state.path("private_object.json")
        try:
            found = parse_private_object(read(path))
        except ValueError:
            body = self.store.fetch(
                self.parameters["private_object"],
                self.parameters.get("fetch_timeout", 600),
                lambda body: self.check(parse_private_object(body)),
            )
            write(path, body)
            found = parse_private_object(body)
        self.private_object = found
        self.redactor.hide(secrets_of(self.parameters, found))

    def main(self) -> int:
        """Work from the first report to the end; return the exit status: 0 also for a unit's final failure, so that systemd does not restart it."""
        try:
            with self.reports.writing("agent", f"the agent runs on {socket.gethostname()}"):
                self.load()
            self.reports.retry()  # the store is back; and packages may take minutes now
            self.runtime.prepare(self.private_object, self.needs_python())
            self.work()
        except Stopped:
            self.children.uninterruptible = True  # a second SIGTERM changes nothing
            self.end()
            if self.children.all:
                self.reports.write("gone", "the agent was told to end", tries=1)
        except ControllerGone as e:
            self.reports.write("gone", f"the controller is gone: {e}")
            if self.root:
                self.power_off()
        except Expired as e:
            self.end()
            self.reports.write("gone", str(e) or "the life of this server is over (max_lifetime)")
            if self.root:
                self.power_off()
        except Failure as e:
            self.end()
            self.reports.write("failed", str(e))
            if not self.root:
                return 1
            self.give_up()
        return 0

    def give_up(self) -> None:
        """Power off. A launcher that lives deletes this server within seconds; if it is dead, powering off makes the server visible to `reap`."""
        self.sleep(self.timeout("controller_gone", 300))
        self.power_off()

    def power_off(self) -> None:
        """Power the server off, if it is still the one that the agent was made for."""
        if read(INSTANCE_ID) != read(self.state.path("instance-id")) or not read(INSTANCE_ID):
            self.log("not powering off: this is not the server that this agent was made for")
            return
        self.log("switching this server off")
        for command in (["systemctl", "poweroff"], ["poweroff"], ["shutdown", "-P", "now"]):
            if self.run(command, timeout=30)[0] == 0:
                return


def make_profile(profile: str) -> None:
    """Make the folders of a profile."""
    for folder in ("security", "log"):
        os.makedirs(os.path.join(profile, folder), mode=0o700, exist_ok=True)
