"""`ipp-griffin`: put the profile into the IPython folder, and run the dev cloud. Thin over the modules it names."""

from __future__ import annotations

import re
import shlex
import sys
from importlib import resources
from pathlib import Path
from typing import Any

from traitlets import Bool, Float, Integer, Unicode
from traitlets.config import Application

from . import __version__
from .plan import GriffinError

PROFILE_FILES = (
    "ipcluster_config.py",
    "ipcluster_config.json",
    "ipcontroller_config.py",
    "ipengine_config.py",
)


class Command(Application):
    """Base of the subcommands: an error is one line and status 1."""

    version = __version__

    def start(self) -> None:
        if self.subapp is not None:
            self.subapp.start()
            return
        if self.extra_args:
            self.fail(f"don't know {' '.join(self.extra_args)!r}. See `{self.called} --help`.")
        try:
            self.run()
        except GriffinError as e:
            self.fail(str(e))
        except OSError as e:
            self.fail(f"{e.strerror or e}: {e.filename}" if e.filename else str(e))

    @property
    def called(self) -> str:
        """What the user typed to get here."""
        return "ipp-griffin" if self.name == "ipp-griffin" else f"ipp-griffin {self.name}"

    def run(self) -> None:
        raise NotImplementedError

    def fail(self, message: str) -> None:
        print(f"{self.called}: {message}", file=sys.stderr)
        self.exit(1)


class Init(Command):
    name = "init"
    description = """Put the griffin profile into the IPython folder, and say what to edit.

    Without it `ipcluster start --profile=griffin` makes an EMPTY profile and starts engines on this machine.
    Files that you have edited are not overwritten without asking.
    """
    examples = "ipp-griffin init\nipp-griffin init --profile physics --cloud mycloud"

    profile = Unicode("griffin", config=True, help="Name of the profile.")
    cloud = Unicode("", config=True, help="Name of the cloud in clouds.yaml, to write into the profile.")
    force = Bool(False, config=True, help="Overwrite edited files without asking.")
    aliases = {"profile": "Init.profile", "cloud": "Init.cloud"}  # noqa: RUF012
    flags = {  # noqa: RUF012
        "force": ({"Init": {"force": True}}, "Overwrite edited files without asking.")
    }

    def run(self) -> None:
        folder = _profile_folder(self.profile)
        made, kept = [], []
        for name, text in profile_files(self.cloud).items():
            path = folder / name
            there = path.read_text() if path.exists() else None
            if there == text:
                continue
            if there is not None and not self.cloud and _without_cloud(there) == _without_cloud(text):
                continue  # the name of the cloud that is in it stays
            if there is not None and not _pristine(name, there) and not self._overwrite(path):
                kept.append(name)
                continue
            path.write_text(text)
            made.append(name)
        print(f"Profile {self.profile!r} is in {folder}")
        if made:
            print(f"  written: {', '.join(made)}")
        if kept:
            print(f"  kept as you edited them: {', '.join(kept)} (--force overwrites)")
        print(
            f"Edit {folder / 'ipcluster_config.py'}: at least the cloud, image, flavor and network, where the defaults don't fit."
        )
        print(f"Then: ipcluster start --profile={self.profile} -n 8")
        print(
            "Mind the name: for a profile that does not exist ipcluster silently makes an EMPTY one, "
            "and starts the engines on this machine."
        )
        if self.cloud and "ipcluster_config.py" in kept:
            self.fail(f"the cloud {self.cloud!r} was not written: set c.GriffinCloud.cloud in ipcluster_config.py.")

    def _overwrite(self, path: Path) -> bool:
        if self.force:
            return True
        if not sys.stdin.isatty():
            return False
        return input(f"{path} was edited. Overwrite it? [y/N] ").strip().lower() in ("y", "yes")


def profile_files(cloud: str = "") -> dict[str, str]:
    """Name -> text of the files of the profile, with the name of a cloud written in."""
    shipped = resources.files("ipp_griffin.profile_griffin")
    files = {name: shipped.joinpath(name).read_text() for name in PROFILE_FILES}
    if cloud:
        before = '# c.GriffinCloud.cloud = ""\n'
        files["ipcluster_config.py"] = files["ipcluster_config.py"].replace(
            before, f"c.GriffinCloud.cloud = {cloud!r}\n"
        )
    return files


def _pristine(name: str, text: str) -> bool:
    """Whether the user has not edited this file, apart from the name of the cloud that `init` writes."""
    shipped = profile_files()[name]
    return _without_cloud(text) == _without_cloud(shipped) or not _statements(text)


def _without_cloud(text: str) -> list[str]:
    return [line for line in text.splitlines() if "c.GriffinCloud.cloud =" not in line]


def _statements(text: str) -> list[str]:
    """What does something in a config file; none in those that `ipython profile create --parallel` makes."""
    lines = (line.strip() for line in text.splitlines())
    return [line for line in lines if line and not line.startswith(("#", "c = get_config()", "c = get_config("))]


def _profile_folder(name: str) -> Path:
    from IPython.core.profiledir import ProfileDir, ProfileDirError
    from IPython.paths import get_ipython_dir

    if not re.fullmatch(r"[\w-]+", name, re.ASCII):
        raise GriffinError(f"{name!r} is not the name of a profile: use letters, digits, - and _.")
    ipython = get_ipython_dir()
    try:
        profile = ProfileDir.find_profile_dir_by_name(ipython, name)
    except ProfileDirError:
        profile = ProfileDir.create_profile_dir_by_name(ipython, name)
    return Path(profile.location)


class DevCloudCommand(Command):
    """Base of `ipp-griffin devcloud ...`."""

    folder = Unicode("~/.local/state/ipp-griffin/devcloud", config=True, help="Folder of the dev cloud's state.")
    aliases: dict[str, Any] = {"folder": "DevCloudCommand.folder"}  # noqa: RUF012

    def run(self) -> None:
        from .devcloud import DevCloudError

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
        from .devcloud import service

        info = service.start(folder, port=self.port, boot_time=self.boot_time, latency=self.latency)
        clouds = openstack_clouds(info.clouds_yaml)
        print(f"The dev cloud runs at {info.url} (process {info.pid}).")
        print(f"It wrote {info.clouds_yaml}, with the clouds {', '.join(clouds)}.")
        print(f'Use it in this shell with:  eval "$(ipp-griffin devcloud env{_option(self)})"')


class DevCloudStop(DevCloudCommand):
    name = "devcloud stop"
    description = "Stop the dev cloud and all servers on it. Its state is gone."

    def act(self, folder: Path) -> None:
        from .devcloud import service

        stopped = service.stop(folder)
        print("The dev cloud is stopped." if stopped else f"No dev cloud runs in {folder}.")


class DevCloudStatus(DevCloudCommand):
    name = "devcloud status"
    description = "Show what is on the dev cloud. Status 3: it does not run."

    def act(self, folder: Path) -> None:
        from .devcloud import service

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
        from .devcloud import service

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
        self.fail("say start, stop, status or env.")


class Griffin(Command):
    name = "ipp-griffin"
    description = "ipyparallel clusters on OpenStack. The clusters themselves are started and stopped by ipcluster."
    examples = """ipp-griffin init
ipcluster start --profile=griffin -n 8
ipcluster stop --profile=griffin"""
    subcommands = {  # noqa: RUF012
        "init": (Init, "Put the griffin profile into the IPython folder."),
        "devcloud": (DevCloud, "Run an OpenStack look-alike on this machine."),
    }

    def run(self) -> None:
        self.print_help()
        self.exit(1)


def openstack_clouds(path: Path) -> list[str]:
    """The names of the clouds in a clouds.yaml."""
    import yaml

    return list(yaml.safe_load(path.read_text())["clouds"])


def _option(command: DevCloudCommand) -> str:
    """The --folder option to repeat in a hint, where it is not the default."""
    default = DevCloudCommand.folder.default_value
    return "" if command.folder == default else f" --folder {shlex.quote(command.folder)}"


def main() -> None:
    """Entry point of the console script."""
    try:
        Griffin.launch_instance()
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        sys.exit(130)
