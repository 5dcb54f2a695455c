"""`Forecast`: what a start would take, by plans and limits that are made up."""

from dataclasses import replace

import pytest

from ipp_griffin.model.forecast import FIXED, ON_SERVER, ON_SERVER_ROUNDS, ROUNDS, Forecast, Quota
from ipp_griffin.model.plan import Limits

from ..fakes.cloud import plan_of

NO_LIMITS = Limits(-1, 0, -1, 0, -1, 0)


def test_it_adds_up_what_all_servers_need():
    forecast = Forecast([plan_of(3), plan_of(1)], Limits(10, 4, -1, 7, 8000, 0), 0.05, 10)
    flavor = plan_of(1).flavor
    assert forecast.servers == 4
    assert forecast.quota == {
        "servers": Quota(4, 10, 4),
        "vCPUs": Quota(4 * flavor.vcpus, -1, 7),
        "RAM (MiB)": Quota(4 * flavor.ram, 8000, 0),
    }
    assert forecast.requests == FIXED + 4 + ON_SERVER


@pytest.mark.parametrize(
    ("quota", "left", "enough"),
    [
        (Quota(5, 10, 4), 6, True),
        (Quota(6, 10, 5), 5, False),
        (Quota(9, -1, 4), None, True),
        (Quota(1, 3, 7), 0, False),
    ],
)
def test_what_is_left_is_enough_or_not(quota, left, enough):
    assert (quota.left, quota.enough) == (left, enough)


@pytest.mark.parametrize(("servers", "rounds"), [(1, 1), (10, 1), (11, 2), (25, 3)])
def test_creations_go_side_by_side_and_all_else_one_after_the_other(servers, rounds):
    forecast = Forecast([plan_of(servers)], NO_LIMITS, 0.2, 10)
    assert forecast.seconds == pytest.approx((ROUNDS + rounds) * 0.2)


def test_a_controller_on_a_server_comes_before_the_engines():
    forecast = Forecast([plan_of(3), plan_of(1)], NO_LIMITS, 0.2, 10)
    assert forecast.seconds == pytest.approx((ROUNDS + ON_SERVER_ROUNDS + 1) * 0.2)


@pytest.mark.parametrize("named", [{"key_name": "k"}, {"security_groups": ("s",)}, {"availability_zone": "z"}])
def test_what_is_named_is_looked_for_with_a_request_more(named):
    assert Forecast([replace(plan_of(1), **named)], NO_LIMITS, 0.2, 10).requests == FIXED + 1 + 1
