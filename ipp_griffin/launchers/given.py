"""What `start_engines` and `start_controller` are given by name: ipyparallel hands it to the launcher's constructor."""

from __future__ import annotations

import copy
import difflib
import weakref
from collections.abc import Mapping
from typing import Any

from traitlets import HasTraits

from ..plan import SettingError
from ..settings import GriffinCloud

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


def as_before(launcher: type[HasTraits], given: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that an engine set of this id was started with before in this process, if none are ``given`` now.

    ipyparallel's ``restart_engines`` stops a set, and starts one of that id without what ``start_engines`` had been given.
    """
    cluster, engine_set_id = given.get("parent"), given.get("engine_set_id")
    if cluster is None or not engine_set_id or _settings(launcher, given):
        return {}
    return copy.deepcopy(_started_with.get(cluster, {}).get(engine_set_id, {}))


def remember(launcher: type[HasTraits], given: Mapping[str, Any]) -> None:
    """Keep what is ``given`` for a restart. Not before the launcher has taken it: what it refused must not come again."""
    cluster, engine_set_id, settings = given.get("parent"), given.get("engine_set_id"), _settings(launcher, given)
    if cluster is not None and engine_set_id and settings:
        # a copy: ipyparallel writes into the environment
        _started_with.setdefault(cluster, {})[engine_set_id] = copy.deepcopy(settings)


def _settings(launcher: type[HasTraits], given: Mapping[str, Any]) -> dict[str, Any]:
    names = launcher.class_trait_names(config=True)
    return {name: value for name, value in given.items() if name in names}
