"""Check arguments: what `start_engines` and `start_controller` are given by name, and what a user gives ipcontroller."""

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


def check_given(launcher: type[HasTraits], given: Mapping[str, Any]) -> None:
    """Raise `SettingError` for names that are no settings: traitlets ignores them, and other servers than those meant would start.

    What is a launcher's own state is no setting, either; what ipyparallel's launchers have may be given.
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
    """Raise `SettingError` where the cluster has an engine set of this id that runs: ipyparallel would forget that, which goes on."""
    running = getattr(given.get("parent"), "engines", {}).get(given.get("engine_set_id"))
    if getattr(running, "running", False):
        raise SettingError(
            f"Engine set {given['engine_set_id']!r} is already running. Stop it first, or give another "
            "engine_set_id, or none."
        )


def check_environment(name: str, environment: Mapping[Any, Any]) -> None:
    """Raise `SettingError` for what can be in no process's environment. ``name``: of the setting."""
    for variable, value in environment.items():
        if not isinstance(variable, str) or not re.fullmatch(r"[^=\0]+", variable) or "\0" in str(value):
            raise SettingError(
                f'{name} has the variable {variable!r}: its name must be text without "=", and neither name nor '
                "value may have a null character."
            )


def check_user(name: str, user: str) -> None:
    """Raise `SettingError` for what is no user's name. ``name``: of the setting. As in `agent.Agent.make_user`."""
    if not re.fullmatch(r"[a-z_][a-z0-9_-]{0,31}", user):
        raise SettingError(
            f"{name} {user!r} is not a valid user name: use lower-case letters, digits, _ and -, at most 32 characters."
        )


def as_before(launcher: type[HasTraits], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that an engine set of this id was started with before in this process, if none are ``given`` now.

    ipyparallel's ``restart_engines`` stops a set, and starts one of that id without what ``start_engines`` had been given.
    """
    cluster, engine_set_id = given.get("parent"), given.get("engine_set_id")
    if cluster is None or not engine_set_id or _settings(launcher, given):
        return {}
    return copy.deepcopy(_started_with.get(cluster, {}).get(engine_set_id, {}))


def remembering(launcher: type[HasTraits], given: Mapping[str, Any]) -> Callable[[], None]:
    """Return a function that keeps what is ``given`` for a restart, to be called when the set has started.

    Not before: ipyparallel makes ids of seconds, so that the set after one that was refused may have its id.
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
    """Raise `SettingError` for what would switch off, or make public, what protects the cluster."""
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
    """Return the first and the last of "FIRST-LAST". Raises `SettingError`, naming the ``setting``, where that is no range of ``count`` ports."""
    match = re.fullmatch(r"\s*(\d+)\s*-\s*(\d+)\s*", ports)
    first, last = (int(match[1]), int(match[2])) if match else (0, 0)
    if not match or last - first + 1 < count or not 0 < first <= last <= 65535:
        raise SettingError(
            f"{setting} is {ports!r}: it must be a range FIRST-LAST of at least {count} ports below 65536."
        )
    return first, last


def value_of(args: Iterable[str], *names: str) -> str:
    """Return the value that a user's own command line arguments give one of these options, "" for none."""
    args = list(args)
    for position, arg in enumerate(args):
        name, equals, value = arg.lstrip("-").partition("=")
        if arg.startswith("-") and name in names:
            return value if equals else (args[position + 1] if position + 1 < len(args) else " ")
    return ""
