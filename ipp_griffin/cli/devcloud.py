"""`ipp-griffin devcloud`: run the dev cloud."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from traitlets import Float, Integer, Unicode

from ..common.errors import GriffinError
from .command import Command


class DevCloudCommand(Command):
    """Base of `ipp-griffin devcloud ...`."""

    folder = Unicode("~/.local/state/ipp-griffin/devcloud", config=True, help="Folder of the dev cloud's state.")
    aliases: dict[str, Any] = {"folder": "DevCloudCommand.folder"}  # noqa: RUF012

    def run(self) -> None:
        from ..devcloud import DevCloudError

        try:
            self.act(Path(self.folder).expanduser().absolute())
        except DevCloudError as e:
            raise GriffinError(str(e)) from e

    def act(self, folder: Path) -> None:
        raise NotImplementedError


class DevCloudStart(DevCloudCommand):
    name = "devcloud start"
    description = "Start the dev cloud in the background and print the clouds.yaml it wrote."
    boot_time = Float(1.0, min=0, config=True, help="Seconds from the creation of a server to ACTIVE.")
    latency = Float(0.0, min=0, config=True, help="Seconds that every request takes longer.")
    port = Integer(0, min=0, max=65535, config=True, help="Port on 127.0.0.1. 0: any free one.")
    aliases = {  # noqa: RUF012
        **DevCloudCommand.aliases,
        "boot-time": "DevCloudStart.boot_time",
        "latency": "DevCloudStart.latency",
        "port": "DevCloudStart.port",
    }

    def act(self, folder: Path) -> None:
        from ..devcloud import service

        info = service.start(folder, port=self.port, boot_time=self.boot_time, latency=self.latency)
        clouds = openstack_clouds(info.clouds_yaml)
        print(f"The dev cloud runs at {info.url} (process {info.pid}).")
        print(f"It wrote {info.clouds_yaml}, with the clouds {', '.join(clouds)}.")
        print(f'Use it in this shell with:  eval "$(ipp-griffin devcloud env{_option(self)})"')


class DevCloudStop(DevCloudCommand):
    name = "devcloud stop"
    description = "Stop the dev cloud and all servers on it. Its state is gone."

    def act(self, folder: Path) -> None:
        from ..devcloud import service

        stopped = service.stop(folder)
        print("The dev cloud is stopped." if stopped else f"No dev cloud runs in {folder}.")


class DevCloudStatus(DevCloudCommand):
    name = "devcloud status"
    description = "Show what is on the dev cloud. Status 3: it does not run."

    def act(self, folder: Path) -> None:
        from ..devcloud import service

        info = service.status(folder)
        if not info.running:
            print(f"No dev cloud runs in {folder}.")
            self.exit(3)
        print(f"The dev cloud runs at {info.url} (process {info.pid}).")
        print(f"Servers: {', '.join(info.servers) or 'none'}")
        print(f"Containers: {', '.join(info.containers) or 'none'}")


class DevCloudEnv(DevCloudCommand):
    name = "devcloud env"
    description = 'Print what sets up a shell for the dev cloud: eval "$(ipp-griffin devcloud env)"'

    def act(self, folder: Path) -> None:
        from ..devcloud import service

        for name, value in service.env(folder).items():
            print(f"export {name}={shlex.quote(value)}")


class DevCloud(Command):
    name = "devcloud"
    description = "An OpenStack look-alike on this machine, for demos and tests: servers are local processes."
    subcommands = {  # noqa: RUF012
        "start": (DevCloudStart, DevCloudStart.description),
        "stop": (DevCloudStop, DevCloudStop.description),
        "status": (DevCloudStatus, DevCloudStatus.description),
        "env": (DevCloudEnv, DevCloudEnv.description),
    }

    def run(self) -> None:
        self.fail("name one of start, stop, status and env.")


def openstack_clouds(path: Path) -> list[str]:
    """Return the names of the clouds in a clouds.yaml."""
    import yaml

    return list(yaml.safe_load(path.read_text())["clouds"])


def _option(command: DevCloudCommand) -> str:
    """Return the --folder option for a hint, if it is not the default."""
    default = DevCloudCommand.folder.default_value
    return "" if command.folder == default else f" --folder {shlex.quote(command.folder)}"
