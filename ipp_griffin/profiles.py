"""The griffin profile: the files that `ipp-griffin init` puts into the IPython folder."""

from __future__ import annotations

import re
from importlib import resources
from pathlib import Path

from .plan import SettingError

PROFILE_FILES = (
    "ipcluster_config.py",
    "ipcluster_config.json",
    "ipcontroller_config.py",
    "ipengine_config.py",
)


def profile_files(**settings: str) -> dict[str, str]:
    """Name -> text of the files of the profile, with these settings of `GriffinCloud` written in ("": the default stays)."""
    shipped = resources.files("ipp_griffin.profile_griffin")
    files = {name: shipped.joinpath(name).read_text() for name in PROFILE_FILES}
    for name, value in settings.items():
        text = files["ipcluster_config.py"]
        if value:
            line = f"c.GriffinCloud.{name} = {value!r}"
            text = re.sub(rf"^# c\.GriffinCloud\.{name} = .*$", lambda _: line, text, flags=re.MULTILINE)  # noqa: B023 - used at once
        files["ipcluster_config.py"] = text
    return files


def is_blank(folder: Path) -> bool:
    """Whether no file of this profile does anything: `ipcluster` makes such profiles."""
    return not any(_statements(text) for text in _texts(folder))


def names_griffin(folder: Path) -> bool:
    """Whether this profile's `ipcluster` has to do with griffin: else it starts its engines elsewhere."""
    return any("griffin" in line.lower() for text in _texts(folder) for line in _statements(text))


def _texts(folder: Path) -> list[str]:
    paths = [folder / name for name in PROFILE_FILES]
    return [path.read_text(errors="replace") for path in paths if path.exists()]


def is_pristine(name: str, text: str) -> bool:
    """Whether the user has not edited this file, apart from the name of the cloud that `init` writes."""
    shipped = profile_files()[name]
    return without_cloud(text) == without_cloud(shipped) or not _statements(text)


def without_cloud(text: str) -> list[str]:
    return [line for line in text.splitlines() if "c.GriffinCloud.cloud =" not in line]


def _statements(text: str) -> list[str]:
    """What does something in a config file; none in those that `ipython profile create --parallel` makes."""
    lines = (line.strip() for line in text.splitlines())
    return [line for line in lines if line and not re.fullmatch(r"#.*|c = get_config\(\)\s*(#.*)?", line)]


def profile_path(name: str) -> Path:
    """Where the profile of that name is, or would be. Raises `SettingError` for what is no name of a profile."""
    from IPython.paths import get_ipython_dir

    if not re.fullmatch(r"[\w-]+", name, re.ASCII):
        raise SettingError(f"{name!r} is not the name of a profile: use letters, digits, - and _.")
    return Path(get_ipython_dir(), f"profile_{name}")


def profile_folder(name: str) -> Path:
    """The folder of a profile, made where there is none. Raises `SettingError` for what is no name of a profile."""
    from IPython.core.profiledir import ProfileDir, ProfileDirError

    ipython = str(profile_path(name).parent)
    try:
        profile = ProfileDir.find_profile_dir_by_name(ipython, name)
    except ProfileDirError:
        profile = ProfileDir.create_profile_dir_by_name(ipython, name)
    return Path(profile.location)
