"""What a caller of `start_engines` gives by name: a typo would start other servers than those meant, which cost money."""

import logging

import pytest
from traitlets import Unicode
from traitlets.config import Config

from ipp_griffin.common.errors import SettingError
from ipp_griffin.launchers import GriffinControllerLauncher, GriffinEngineSetLauncher

from ..fakes import FakeCloud, FakeCluster


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("flavour", "GriffinEngineSetLauncher has no setting 'flavour'. Did you mean 'flavor'?"),
        ("engine_per_server", "GriffinEngineSetLauncher has no setting 'engine_per_server'. Did you mean 'engines_per_server'?"),
        (
            "gpus",
            "GriffinEngineSetLauncher has no setting 'gpus'. The profile's ipcluster_config.py lists its settings.",
        ),
        # traits, but of what the launcher remembers: they would be overwritten
        ("region", "GriffinEngineSetLauncher has no setting 'region'. It is a setting of the whole cluster: GriffinCloud.region."),
        (
            "servers",
            "GriffinEngineSetLauncher has no setting 'servers'. The profile's ipcluster_config.py lists its settings.",
        ),
    ],
)  # fmt: skip
def test_a_name_that_is_no_setting_is_refused(name, said):
    """traitlets only warns of it, once."""
    with pytest.raises(SettingError) as raised:
        GriffinEngineSetLauncher(**{name: "x"})
    assert str(raised.value) == said


def test_that_goes_for_controllers_too():
    with pytest.raises(SettingError, match="GriffinControllerLauncher has no setting 'port'. Did you mean 'ports'?"):
        GriffinControllerLauncher(port="20000-20100")


def test_settings_of_ipyparallels_own_are_settings():
    made = GriffinEngineSetLauncher(engine_args=["--debug"], work_dir=".", stop_timeout=7, environment={"A": "1"})
    assert (made.engine_args, made.stop_timeout, made.environment) == (["--debug"], 7, {"A": "1"})


class Mine(GriffinEngineSetLauncher):
    """A user's own launcher: what it has is its own business."""

    colour = Unicode("red")


def test_a_users_own_launcher_may_have_more():
    assert Mine(colour="blue").colour == "blue"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"flavor": 3}, r"'flavor' trait .* expected a unicode string, not the int 3\."),
        ({"packages": 3}, r"'packages' trait .* expected a list, not the int 3\."),
        ({"engines_per_server": "2"}, r"'engines_per_server' trait .* expected an int, not the str '2'\."),
        ({"security_groups": [1]}, r"'security_groups' trait"),
    ],
)
def test_a_value_of_a_wrong_type_is_one_line(given, said):
    with pytest.raises(SettingError, match=f"^A setting is wrong: .*{said}") as raised:
        GriffinEngineSetLauncher(**given)
    assert "\n" not in str(raised.value)


def test_one_in_the_configuration_is_told_by_the_start_whatever_is_given():
    """ipcluster can't handle an exception while launchers are made."""
    config = Config({"GriffinEngineSetLauncher": {"flavor": 3}})
    launcher = GriffinEngineSetLauncher(config=config, image="snapshot2")
    with pytest.raises(SettingError, match="'flavor' trait"):
        launcher.check_settings()


# --- restarts


@pytest.fixture
def start():
    """Make a launcher as `start_engines` of one cluster does, of a set that then starts."""
    cluster = FakeCluster(FakeCloud(), config=Config({"GriffinEngineSetLauncher": {"flavor": "small"}}))
    log = logging.getLogger("given")

    def start(id, **given):
        made = GriffinEngineSetLauncher(parent=cluster, engine_set_id=id, log=log, **given)
        made._remember()
        return made

    return start


def test_a_set_that_is_restarted_has_what_it_was_started_with(start, caplog):
    """ipyparallel's `restart_engines` gives only the id."""
    caplog.set_level(logging.INFO)
    start("1", flavor="large", packages=["numpy"])
    start("2")
    again = start("1")
    assert (again.flavor, again.packages, again.engines_per_server) == ("large", ["numpy"], 0)
    assert "Engine set 1 starts with its earlier settings: flavor, packages" in caplog.text
    assert start("1").flavor == "large"
    assert start("2").flavor == "small"


def test_new_arguments_count_alone(start):
    start("1", flavor="large", packages=["numpy"])
    again = start("1", flavor="medium")
    assert (again.flavor, again.packages) == ("medium", [])


def test_what_was_refused_does_not_come_again(start):
    with pytest.raises(SettingError):
        start("1", flavor=3)
    assert start("1").flavor == "small"


def test_what_ipyparallel_writes_into_a_sets_environment_is_not_remembered(start):
    """The keys of a controller that may be another's by then."""
    start("1", environment={"A": "1"}).environment["IPP_CONNECTION_INFO"] = "{}"
    assert start("1").environment == {"A": "1"}


def test_another_clusters_set_of_that_id_is_another_one(start):
    start("1", flavor="large")
    assert GriffinEngineSetLauncher(parent=FakeCluster(FakeCloud()), engine_set_id="1").flavor == ""


# --- what is wrong


def test_the_id_of_a_set_that_runs_is_refused_and_that_of_one_that_has_ended_is_not(start):
    """ipyparallel would put the new one in its place, and nobody could stop the first any more."""
    first = start("1")
    first.parent.engines = {"1": first}
    first.state = "running"
    with pytest.raises(SettingError, match="Engine set '1' is already running"):
        start("1", flavor="large")
    start("2")
    first.state = "after"
    assert start("1").flavor == "small"


@pytest.mark.parametrize("environment", [{"A=B": "1"}, {"": "1"}, {"A\0": "1"}, {"A": "1\0"}, {3: "x"}])
def test_what_can_be_in_no_environment_is_refused_before_there_is_a_server(environment):
    with pytest.raises(SettingError, match="environment"):
        GriffinEngineSetLauncher(environment=environment).check_settings()


@pytest.mark.parametrize(
    ("user", "fits"), [("ipp", True), ("root; rm", False), ("", False), ("Ipp", False), ("a" * 33, False)]
)
def test_what_is_no_users_name_is_refused_before_there_is_a_server(user, fits):
    launcher = GriffinEngineSetLauncher(engine_user=user)
    if fits:
        launcher.check_settings()
    else:
        with pytest.raises(SettingError, match=r"^GriffinEngineSetLauncher\.engine_user .* is not a valid user name"):
            launcher.check_settings()
