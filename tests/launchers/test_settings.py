"""`ServerSettings`: what a launcher's own servers are, in place of `GriffinCloud`'s."""

import pytest
from ipyparallel.cluster.launcher import LocalControllerLauncher
from traitlets.config import Config

from ipp_griffin.launchers import GriffinControllerLauncher, GriffinEngineSetLauncher, GriffinServerControllerLauncher
from ipp_griffin.launchers.on_cloud import OnCloud
from ipp_griffin.launchers.settings import ServerSettings

SHARED = {
    "image": "debian-12",
    "flavor": "m1.small",
    "network": "net",
    "key_name": "ada",
    "security_groups": ["default"],
    "availability_zone": "north",
}
OWN = {
    "image": "snapshot2",
    "flavor": "m1.large",
    "network": "lab",
    "key_name": "bob",
    "security_groups": ["gpu"],
    "availability_zone": "south",
}


class ControllerFirst(OnCloud, ServerSettings, LocalControllerLauncher):
    """Another launcher that makes servers."""


class SettingsFirst(ServerSettings, OnCloud, LocalControllerLauncher):
    """The order of the classes does not matter."""


@pytest.mark.parametrize(
    "launcher", [GriffinEngineSetLauncher, GriffinServerControllerLauncher, ControllerFirst, SettingsFirst]
)
def test_what_a_launcher_sets_takes_the_place_of_griffinclouds(launcher):
    config = Config({"GriffinCloud": SHARED, launcher.__name__: OWN})
    assert settled(launcher(config=config)) == OWN


@pytest.mark.parametrize("name", sorted(OWN))
def test_what_it_does_not_set_is_griffinclouds(name):
    config = Config({"GriffinCloud": SHARED, "GriffinEngineSetLauncher": {name: OWN[name]}})
    assert settled(GriffinEngineSetLauncher(config=config)) == {**SHARED, name: OWN[name]}


def test_without_any_all_is_griffinclouds():
    assert settled(GriffinEngineSetLauncher(config=Config({"GriffinCloud": SHARED}))) == SHARED


def test_what_start_engines_is_given_beats_the_configuration():
    """ipyparallel gives it to the constructor."""
    config = Config({"GriffinCloud": SHARED, "GriffinEngineSetLauncher": OWN})
    launcher = GriffinEngineSetLauncher(config=config, flavor="m1.huge", security_groups=["a", "b"])
    assert settled(launcher) == {**OWN, "flavor": "m1.huge", "security_groups": ["a", "b"]}


def test_those_of_engines_are_not_the_controllers():
    """It looks for the network that servers are on by default."""
    config = Config({"GriffinCloud": SHARED, "GriffinEngineSetLauncher": OWN})
    assert settled(GriffinControllerLauncher(config=config)) == SHARED


def test_errors_name_the_launchers_own_setting_where_that_counts_else_both():
    launcher = GriffinEngineSetLauncher(flavor="m1.large")
    assert launcher.naming("flavor") == "GriffinEngineSetLauncher.flavor"
    assert launcher.naming("image") == "GriffinCloud.image (or GriffinEngineSetLauncher.image, for these servers alone)"
    assert ControllerFirst(image="x").naming("image") == "ControllerFirst.image"


def settled(launcher):
    settings = launcher.settle_cloud()
    return {name: getattr(settings, name) for name in SHARED}
