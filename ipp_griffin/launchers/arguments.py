"""What `start_engines` and `start_controller` are given by name: ipyparallel hands it to the launcher's constructor."""

from __future__ import annotations

import copy
import difflib
import re
import weakref
from collections.abc import Callable, Mapping
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
            text += f" All of a cluster have one: set GriffinCloud.{name}."
        else:
            text += " The profile's ipcluster_config.py shows those that it has."
        raise SettingError(text)


def check_not_running(given: Mapping[str, Any]) -> None:
    """Raise `SettingError` where the cluster has an engine set of this id that runs: ipyparallel would forget that, which goes on."""
    running = getattr(given.get("parent"), "engines", {}).get(given.get("engine_set_id"))
    if getattr(running, "running", False):
        raise SettingError(
            f"Engine set {given['engine_set_id']!r} is running. Give another engine_set_id, or none; or stop that one first."
        )


def check_environment(name: str, environment: Mapping[Any, Any]) -> None:
    """Raise `SettingError` for what can be in no process's environment. ``name``: of the setting."""
    for variable, value in environment.items():
        if not isinstance(variable, str) or not re.fullmatch(r"[^=\0]+", variable) or "\0" in str(value):
            raise SettingError(
                f"{name} has {variable!r}, which can't be a variable's name, or has a value that can't be one's."
            )


def check_user(name: str, user: str) -> None:
    """Raise `SettingError` for what is no user's name. ``name``: of the setting. As in `agent.Agent.make_user`."""
    if not re.fullmatch(r"[a-z_][a-z0-9_-]{0,31}", user):
        raise SettingError(f"{name} {user!r} is no user's name: lower-case letters, digits, _ and -, 32 at most.")


def as_before(launcher: type[HasTraits], given: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that an engine set of this id was started with before in this process, if none are ``given`` now.

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
