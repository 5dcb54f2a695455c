"""`ipp-griffin`: put the profile into the IPython folder, and run the dev cloud. Thin over the modules it names."""

from __future__ import annotations

import shlex
import sys
from importlib import resources
from pathlib import Path
from typing import Any

from traitlets import Bool, Float, Integer, List, Unicode, Union
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
        super().start()
        if self.extra_args:
            self.fail(f"Don't know {' '.join(self.extra_args)!r}. See `ipp-griffin {self.name} --help`.")
        try:
            self.run()
        except GriffinError as e:
            self.fail(str(e))
        except OSError as e:
            self.fail(f"{e.strerror or e}: {e.filename}" if e.filename else str(e))

    def run(self) -> None:
        raise NotImplementedError

    def fail(self, message: str) -> None:
        print(f"ipp-griffin {self.name}: {message}", file=sys.stderr)
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
            if path.exists() and path.read_text() == text:
                continue
            if path.exists() and not _pristine(name, path.read_text()) and not self._overwrite(path):
                kept.append(name)
                continue
            path.write_text(text)
            made.append(name)
        print(f"Profile {self.profile!r} is in {folder}")
        if made:
            print(f"  written: {', '.join(made)}")
        if kept:
            print(f"  kept as you edited them: {', '.join(kept)} (--force overwrites)")
        print(f"Edit {folder / 'ipcluster_config.py'}: at least the cloud, image, flavor and network, where the defaults don't fit.")
        print(f"Then: ipcluster start --profile={self.profile} -n 8")
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
        files["ipcluster_config.py"] = files["ipcluster_config.py"].replace(before, f"c.GriffinCloud.cloud = {cloud!r}\n")
    return files


def _pristine(name: str, text: str) -> bool:
    """Whether the user has not edited this file, apart from the name of the cloud that `init` writes."""
    lines = [line for line in text.splitlines() if "c.GriffinCloud.cloud =" not in line]
    shipped = profile_files()[name].splitlines()
    return lines == [line for line in shipped if "c.GriffinCloud.cloud =" not in line] or not text.strip()


def _profile_folder(name: str) -> Path:
    from IPython.core.profiledir import ProfileDir, ProfileDirError
    from IPython.paths import get_ipython_dir

    if not name or "/" in name:
        raise GriffinError(f"{name!r} is not the name of a profile: use letters, digits, - and _.")
    ipython = get_ipython_dir()
    try:
        profile = ProfileDir.find_profile_dir_by_name(ipython, name)
    except ProfileDirError:
        profile = ProfileDir.create_profile_dir_by_name(ipython, name)
    return Path(profile.location)


class DevCloudCommand(Command):
    """Base of `ipp-griffin devcloud ...`."""

    folder = Unicode("", config=True, help="State folder. Default: ~/.local/state/ipp-griffin/devcloud").tag(config=True)
    aliases = {"folder": "DevCloudCommand.folder"}  # noqa: RUF012

    @property
    def path(self) -> Path:
        if self.folder:
            return Path(self.folder).expanduser().absolute()
        return Path("~/.local/state/ipp-griffin/devcloud").expanduser()


def main() -> None:
    """Entry point of the console script."""
    Griffin.launch_instance()
