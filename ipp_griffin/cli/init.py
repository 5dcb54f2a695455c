"""`ipp-griffin init`: put the profile into the IPython folder."""

from __future__ import annotations

import re
import sys
from importlib import resources
from pathlib import Path

from traitlets import Bool, Unicode

from ..plan import GriffinError
from .command import Command, agreed

PROFILE_FILES = (
    "ipcluster_config.py",
    "ipcluster_config.json",
    "ipcontroller_config.py",
    "ipengine_config.py",
)


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
        return agreed(f"{path} was edited. Overwrite it?")


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
