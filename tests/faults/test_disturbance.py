"""A disturbance tells by name which stage did not meet its faults, or may have met those of another."""

from __future__ import annotations

import pytest

from ipp_griffin.devcloud.faults import Faults

from .disturbance import Disturbance

GET = {"service": "compute", "methods": ["GET"], "path": "/servers$", "status": 503, "count": 1}
POST = {"service": "compute", "methods": ["POST"], "path": "/servers$", "status": 503, "count": 2}


class Cloud:
    """Answers requests as its faults say, and notes them."""

    def __init__(self) -> None:
        self.faults, self.requests = Faults(), []

    def note(self, *request) -> None:
        self.requests.append(request)

    def ask(self, method, path="/servers", service="compute") -> int:
        status = (self.faults.for_request(service, method, path) or {"status": 200})["status"]
        self.note(service, method, path, status)
        return status


def test_a_stage_that_did_not_meet_all_of_its_faults_is_named():
    cloud = Cloud()
    with Disturbance(cloud, {"listing": (GET,), "creating": (POST,)}, {}) as disturbance:
        assert [cloud.ask("GET"), cloud.ask("GET"), cloud.ask("POST")] == [503, 200, 503]
        with pytest.raises(AssertionError, match=r"^not met: creating: compute POST /servers\$ \(1 left\)"):
            disturbance.check()
        cloud.ask("POST")
        disturbance.check()


def test_a_request_that_could_have_met_the_fault_of_another_stage_is_named():
    cloud = Cloud()
    any_of_compute = {"service": "compute", "status": 503, "count": 1}
    with Disturbance(cloud, {"listing": (GET,), "all else": (any_of_compute,)}, {}) as disturbance:
        cloud.ask("GET")
        cloud.ask("GET")
        with pytest.raises(AssertionError, match="compute GET /servers: all else, listing"):
            disturbance.check()


def test_faults_of_a_later_stage_are_set_when_what_comes_before_it_has_been_answered_well():
    cloud = Cloud()
    with Disturbance(cloud, {"creating": (POST,), "listing": (GET,)}, {"listing": POST}) as disturbance:
        assert [cloud.ask("GET"), cloud.ask("POST"), cloud.ask("GET"), cloud.ask("POST")] == [200, 503, 200, 503]
        with pytest.raises(AssertionError, match="listing: nothing came of compute POST"):
            disturbance.check()
        assert [cloud.ask("POST"), cloud.ask("GET"), cloud.ask("GET")] == [200, 503, 200]
        disturbance.check()


def test_what_was_deleted_before_has_been_answered_well_too():
    cloud = Cloud()
    gone = {"service": "compute", "methods": ["DELETE"], "status": 404, "count": 1}
    with Disturbance(cloud, {"deleting": (gone,), "listing": (GET,)}, {"listing": {"methods": ["DELETE"]}}):
        assert [cloud.ask("DELETE"), cloud.ask("GET")] == [404, 503]


def test_nothing_is_disturbed_afterwards():
    cloud = Cloud()
    with Disturbance(cloud, {"listing": (GET,)}, {}):
        pass
    assert cloud.ask("GET") == 200
