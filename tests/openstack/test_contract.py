"""The dev cloud answers as the real OpenStack services do, field by field.

The requests, and what can't be compared and why, are in contract/requests.yaml; contract/README.md explains them.
"""

import copy
from pathlib import Path

import pytest

from ..conftest import named_cloud
from .contract import runs

pytestmark = pytest.mark.xdist_group(__name__)  # each cloud is asked once
RULES = runs.RULES


@pytest.fixture(scope="module")
def dev(tmp_path_factory: pytest.TempPathFactory) -> runs.Answers:
    """What a fresh dev cloud answers."""
    return runs.of_dev_cloud(tmp_path_factory.mktemp("contract") / "cloud", RULES)


@pytest.fixture(scope="module")
def real(request: pytest.FixtureRequest) -> runs.Answers:
    """What the cloud of --cloud answers now."""
    cloud = request.config.stash[named_cloud]
    if cloud.name not in runs.SPEC["names"]:
        pytest.skip(f"requests.yaml does not say what cloud {cloud.name!r} calls its flavors and images: see `names`")
    return runs.of_cloud(cloud.name, Path(cloud.clouds_yaml), RULES)


def of(group: str) -> list[runs.Step]:
    return [step for step in runs.STEPS if step.group == group]


def test_each_request_has_a_recorded_answer():
    """A request that was added or renamed is recorded before it is committed."""
    assert list(runs.recorded()) == [step.name for step in runs.STEPS]


@pytest.mark.parametrize("group", runs.GROUPS)
def test_the_dev_cloud_answers_as_the_real_services_did(group, dev):
    """Status, headers and body are what the real services answered when they were recorded."""
    assert list(runs.differing(runs.recorded(), dev, of(group))) == []


@pytest.mark.parametrize("late", [0.1, 1.0])
def test_what_is_asked_late_may_have_changed_by_itself(tmp_path, late):
    """A server that was in BUILD for the one who recorded it is a stage further, or ACTIVE, for who asks on a busy machine."""
    changing = [step for step in of("servers") if step.becomes]
    names = {"create a", *(name for step in changing for name in (step.name, step.becomes))}
    todo = [step for step in of("choice") if step.save] + [step for step in of("servers") if step.name in names]
    asked_late = runs.of_dev_cloud(tmp_path / "cloud", RULES, todo, late=late)
    assert list(runs.differing(runs.recorded(), asked_late, todo)) != []
    assert list(runs.differing(runs.recorded(), asked_late, todo, late="dev")) == []
    assert list(runs.differing(asked_late, runs.recorded(), todo, late="real")) == []


@pytest.mark.parametrize(
    ("field", "value"),
    [("status", "SHUTOFF"), ("OS-EXT-STS:task_state", "deleting"), ("hostId", None), ("description", "x")],
)
def test_what_it_never_is_on_its_way_is_a_difference(dev, field, value):
    asked = copy.deepcopy(dev)
    asked["a just after its creation"]["body"]["server"][field] = value
    (difference,) = runs.differing(runs.recorded(), asked, of("servers"), late="dev")
    assert difference.startswith(f"a just after its creation / body.server.{field}: ")


@pytest.mark.openstack
@pytest.mark.parametrize("group", runs.GROUPS)
def test_the_dev_cloud_answers_as_the_cloud(group, real, dev):
    """Status, headers and body are what this cloud answers now."""
    assert list(runs.differing(real, dev, of(group), late="real")) == []


@pytest.mark.openstack
@pytest.mark.parametrize("group", runs.GROUPS)
def test_the_cloud_answers_as_recorded(group, real):
    """What the fast test compares with is still so."""
    assert list(runs.differing(runs.recorded(), real, of(group), late="dev")) == []


@pytest.mark.openstack
def test_no_exception_is_stale(real, dev):
    """Each field that is left out or not compared is one that some answer has."""
    assert RULES.rules - RULES.used == set()
