"""Check arguments: keyword arguments of `start_engines` and `start_controller`, and the user's arguments for ipcontroller."""

from __future__ import annotations

import copy
import difflib
import re
import weakref
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from traitlets import HasTraits

from ..common.errors import SettingError
from .cloud_settings import GriffinCloud

# cluster (ipyparallel's) -> engine set id -> the settings that this set was started with
_started_with: weakref.WeakKeyDictionary[Any, dict[str, dict[str, Any]]] = weakref.WeakKeyDictionary()


def check_arguments(launcher: type[HasTraits], given: Mapping[str, Any]) -> None:
    """Raise `SettingError` for an argument that is not a setting. traitlets would ignore a misspelt one and start other servers.

    A trait that holds the launcher's own state is not a setting, but every trait of ipyparallel's launchers is.
    """
    settings = launcher.class_trait_names(config=True)
    known = launcher.class_traits()
    for name in given:
        if name in settings or (name in known and not known[name].this_class.__module__.startswith("ipp_griffin.")):
            continue
        text = f"{launcher.__name__} has no setting {name!r}."
        if close := difflib.get_close_matches(name, settings, 1, 0.7):
            text += f" Did you mean {close[0]!r}?"
        elif name in GriffinCloud.class_trait_names(config=True):
            text += f" It is a setting of the whole cluster: GriffinCloud.{name}."
        else:
            text += " The profile's ipcluster_config.py lists its settings."
        raise SettingError(text)


def check_not_running(given: Mapping[str, Any]) -> None:
    """Raise `SettingError` if the cluster has a running engine set with this id: ipyparallel would forget it, and it would keep running."""
    running = getattr(given.get("parent"), "engines", {}).get(given.get("engine_set_id"))
    if getattr(running, "running", False):
        raise SettingError(
            f"Engine set {given['engine_set_id']!r} is already running. Stop it first, or give another "
            "engine_set_id, or none."
        )


def check_environment(name: str, environment: Mapping[Any, Any]) -> None:
    """Raise `SettingError` for a variable that no process can have in its environment. ``name``: of the setting."""
    for variable, value in environment.items():
        if not isinstance(variable, str) or not re.fullmatch(r"[^=\0]+", variable) or "\0" in str(value):
            raise SettingError(
                f'{name} has the variable {variable!r}: its name must be text without "=", and neither name nor '
                "value may have a null character."
            )


def check_user(name: str, user: str) -> None:
    """Raise `SettingError` for an invalid user name, by the rule of the agent. ``name``: of the setting."""
    if not re.fullmatch(r"[a-z_][a-z0-9_-]{0,31}", user):
        raise SettingError(
            f"{name} {user!r} is not a valid user name: use lower-case letters, digits, _ and -, at most 32 characters."
        )


def as_before(launcher: type[HasTraits], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that this process started an engine set of this id with before, unless ``given`` has some.

    ipyparallel's ``restart_engines`` stops a set and starts one of that id, but without the arguments of ``start_engines``.
    """
    cluster, engine_set_id = given.get("parent"), given.get("engine_set_id")
    if cluster is None or not engine_set_id or _settings(launcher, given):
        return {}
    return copy.deepcopy(_started_with.get(cluster, {}).get(engine_set_id, {}))


def remembering(launcher: type[HasTraits], given: Mapping[str, Any]) -> Callable[[], None]:
    """Return a function that remembers the settings in ``given`` for a restart; call it when the set has started.

    Not earlier: ipyparallel makes ids from whole seconds, so a refused set and the next one may have the same id.
    """
    cluster, engine_set_id = given.get("parent"), given.get("engine_set_id")
    settings = copy.deepcopy(_settings(launcher, given))  # ipyparallel writes into the environment

    def remember() -> None:
        if cluster is not None and engine_set_id and settings:
            _started_with.setdefault(cluster, {})[engine_set_id] = settings

    return remember


def _settings(launcher: type[HasTraits], given: Mapping[str, Any]) -> dict[str, Any]:
    names = launcher.class_trait_names(config=True)
    return {name: value for name, value in given.items() if name in names}


PORTS_NEEDED = 20  # ipcontroller binds 16 to 18 sockets at its default broadcast depth

KEYS = ("Session.key", "IPController.curve_secretkey", "IPController.curve_publickey")


def check_args(user: Iterable[str]) -> None:
    """Raise `SettingError` for arguments that would switch the cluster's protection off, or publish its keys."""
    user = list(user)
    if value_of(user, "IPController.enable_curve"):
        raise SettingError("CurveZMQ is always on: remove --IPController.enable_curve from the controller's arguments.")
    if value_of(user, "reuse", "restore", "IPController.reuse_files", "IPController.restore_engines"):
        raise SettingError(
            "Connection files can't be reused, because the launcher makes new CurveZMQ keys in every run: remove "
            "--reuse and --restore."
        )
    if value_of(user, *KEYS):
        raise SettingError(
            "Keys must not be in the controller's arguments, which every user of this machine can read: remove "
            f"{next(name for name in KEYS if value_of(user, name))}. The launcher makes new keys in every run."
        )


def port_range(ports: str, count: int, setting: str) -> tuple[int, int]:
    """Return the first and the last of "FIRST-LAST". Raises `SettingError`, naming the ``setting``, if it is not a range of at least ``count``
    ports."""
    match = re.fullmatch(r"\s*(\d+)\s*-\s*(\d+)\s*", ports)
    first, last = (int(match[1]), int(match[2])) if match else (0, 0)
    if not match or last - first + 1 < count or not 0 < first <= last <= 65535:
        raise SettingError(
            f"{setting} is {ports!r}: it must be a range FIRST-LAST of at least {count} ports below 65536."
        )
    return first, last


def value_of(args: Iterable[str], *names: str) -> str:
    """Return the value of the first of these options in a user's command line arguments, "" for none."""
    args = list(args)
    for position, arg in enumerate(args):
        name, equals, value = arg.lstrip("-").partition("=")
        if arg.startswith("-") and name in names:
            return value if equals else (args[position + 1] if position + 1 < len(args) else " ")
    return ""
