"""`ipp-griffin init`: put the profile into the IPython folder."""

from __future__ import annotations

import sys
from pathlib import Path

from traitlets import Bool, Unicode

from ..launchers.profiles import is_pristine, profile_files, profile_folder, without_cloud
from .command import Command, agreed


class Init(Command):
    name = "init"
    description = """Put the griffin profile into the IPython folder, and say which file to edit.

    Without this, `ipcluster start --profile=griffin` makes an EMPTY profile and starts engines on this machine.
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
        folder = profile_folder(self.profile)
        made, kept = [], []
        for name, text in profile_files(cloud=self.cloud).items():
            path = folder / name
            there = path.read_text() if path.exists() else None
            if there == text:
                continue
            if there is not None and not self.cloud and without_cloud(there) == without_cloud(text):
                continue  # keeps the name of the cloud in it
            if there is not None and not is_pristine(name, there) and not self._overwrite(path):
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
            f"Edit {folder / 'ipcluster_config.py'}: set at least cloud, image, flavor and network if the "
            "defaults don't fit."
        )
        print(f"Then: ipcluster start --profile={self.profile} -n 8")
        print(
            "Mind the name: if a profile does not exist, ipcluster silently makes an EMPTY one and starts the "
            "engines on this machine."
        )
        if self.cloud and "ipcluster_config.py" in kept:
            self.fail(f"the cloud {self.cloud!r} was not written: set c.GriffinCloud.cloud in ipcluster_config.py.")

    def _overwrite(self, path: Path) -> bool:
        if self.force:
            return True
        if not sys.stdin.isatty():
            return False
        return agreed(f"{path} was edited. Overwrite it?")
