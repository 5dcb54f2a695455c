"""The griffin profile: the files that `ipp-griffin init` puts into the IPython folder."""

from __future__ import annotations

import re
import traceback
from importlib import resources
from pathlib import Path

from traitlets.config import Config
from traitlets.config.loader import JSONFileConfigLoader, PyFileConfigLoader

from ..common.errors import SettingError

PROFILE_FILES = (
    "ipcluster_config.py",
    "ipcluster_config.json",
    "ipcontroller_config.py",
    "ipengine_config.py",
)


def profile_files(**settings: str) -> dict[str, str]:
    """Return the profile's files, name -> text, with these settings of `GriffinCloud` written into them ("": the default stays)."""
    shipped = resources.files("ipp_griffin.profile_griffin")
    files = {name: shipped.joinpath(name).read_text() for name in PROFILE_FILES}
    for name, value in settings.items():
        text = files["ipcluster_config.py"]
        if value:
            line = f"c.GriffinCloud.{name} = {value!r}"
            text = re.sub(rf"^# c\.GriffinCloud\.{name} = .*$", lambda _: line, text, flags=re.MULTILINE)  # noqa: B023 - used at once
        files["ipcluster_config.py"] = text
    return files


def profile_config(name: str) -> Config:
    """Return the configuration that `ipcluster` would read from a profile. Raises `SettingError` if the profile is missing or broken."""
    folder = profile_path(name)
    if not folder.exists():
        raise SettingError(f"There is no profile {name!r} yet. Create it with `ipp-griffin init --profile={name}`.")
    check_files(folder)
    config = Config()
    for loader, file in ((JSONFileConfigLoader, "ipcluster_config.json"), (PyFileConfigLoader, "ipcluster_config.py")):
        if (folder / file).exists():
            config.merge(loader(file, path=str(folder)).load_config())
    return config


def check_files(profile: Path) -> None:
    """Refuse a profile with a file that is not valid Python: IPython only logs it and continues without its settings.

    Raises `SettingError` naming the file and the line.
    """
    for name in ("ipcluster_config.py", "ipcontroller_config.py", "ipengine_config.py"):
        path = profile / name
        if not path.exists():
            continue
        try:
            PyFileConfigLoader(path.name, path=str(path.parent)).load_config()
        except Exception as e:  # anything that the user's Python raises
            frames = [f.lineno for f in traceback.extract_tb(e.__traceback__) if f.filename == str(path)]
            line = e.lineno if isinstance(e, SyntaxError) else next(reversed(frames), None)
            raise SettingError(
                f"{path}, line {line or '?'}: {type(e).__name__}: {getattr(e, 'msg', e)}. Correct it, or "
                "replace it with `ipp-griffin init --force`."
            ) from e


def is_blank(folder: Path) -> bool:
    """Return whether no file of this profile sets anything, as in a profile that `ipcluster` makes."""
    return not any(_statements(text) for text in _texts(folder))


def names_griffin(folder: Path) -> bool:
    """Return whether this profile's configuration mentions griffin; otherwise its engines start elsewhere."""
    return any("griffin" in line.lower() for text in _texts(folder) for line in _statements(text))


def _texts(folder: Path) -> list[str]:
    paths = [folder / name for name in PROFILE_FILES]
    return [path.read_text(errors="replace") for path in paths if path.exists()]


def is_pristine(name: str, text: str) -> bool:
    """Return whether the user has not edited this file, apart from the name of the cloud that `init` writes."""
    shipped = profile_files()[name]
    return without_cloud(text) == without_cloud(shipped) or not _statements(text)


def without_cloud(text: str) -> list[str]:
    return [line for line in text.splitlines() if "c.GriffinCloud.cloud =" not in line]


def _statements(text: str) -> list[str]:
    """Return the statements of a config file; there are none in the files of `ipython profile create --parallel`."""
    lines = (line.strip() for line in text.splitlines())
    return [line for line in lines if line and not re.fullmatch(r"#.*|c = get_config\(\)\s*(#.*)?", line)]


def profile_path(name: str) -> Path:
    """Return the path of the profile's folder, whether or not it exists. Raises `SettingError` for an invalid name."""
    from IPython.paths import get_ipython_dir

    if not re.fullmatch(r"[\w-]+", name, re.ASCII):
        raise SettingError(f"{name!r} is not the name of a profile: use letters, digits, - and _.")
    return Path(get_ipython_dir(), f"profile_{name}")


def profile_folder(name: str) -> Path:
    """Return the folder of a profile; create it if necessary. Raises `SettingError` for an invalid name."""
    from IPython.core.profiledir import ProfileDir, ProfileDirError

    ipython = str(profile_path(name).parent)
    try:
        profile = ProfileDir.find_profile_dir_by_name(ipython, name)
    except ProfileDirError:
        profile = ProfileDir.create_profile_dir_by_name(ipython, name)
    return Path(profile.location)
