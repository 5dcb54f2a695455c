"""Forecast what a start would take: servers, quota, requests and time. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .plan import Limits, Plan

# Requests of a start that do not depend on the number of servers: login (2), what the cloud offers (8), the container and its content (3).
FIXED = 13
# What a controller on a server adds: its second private object and its connection files (3); what the cloud offers, asked again (5); the
# container and its content for the engines (3).
ON_SERVER = 11
ON_SERVER_ROUNDS = 6  # of those, one after the other
ROUNDS = 7  # of requests before the first creation, one after the other: 2, 3 (the others at the same time), 2


@dataclass(frozen=True)
class Quota:
    """One kind of the project's quota. ``most``: the limit, -1 for none."""

    needed: int
    most: int
    used: int

    @property
    def left(self) -> int | None:
        """Return how much is left; None if there is no limit."""
        return None if self.most < 0 else max(self.most - self.used, 0)

    @property
    def enough(self) -> bool:
        return self.left is None or self.needed <= self.left


@dataclass(frozen=True)
class Forecast:
    """What ``plans`` take: the engines', and that of a controller on a server. ``latency``: seconds per request; ``parallel``: how many
    servers are created at the same time."""

    plans: Sequence[Plan]
    limits: Limits
    latency: float
    parallel: int

    @property
    def servers(self) -> int:
        return sum(len(plan.servers) for plan in self.plans)

    @property
    def quota(self) -> Mapping[str, Quota]:
        """Return the quota by kind: servers, vCPUs, and RAM in MiB."""
        limits = self.limits
        vcpus, ram = (sum(len(p.servers) * getattr(p.flavor, kind) for p in self.plans) for kind in ("vcpus", "ram"))
        return {
            "servers": Quota(self.servers, limits.instances, limits.instances_used),
            "vCPUs": Quota(vcpus, limits.cores, limits.cores_used),
            "RAM (MiB)": Quota(ram, limits.ram, limits.ram_used),
        }

    @property
    def enough(self) -> bool:
        """Return whether the quota is enough now."""
        return all(quota.enough for quota in self.quota.values())

    @property
    def controller_on_server(self) -> bool:
        return len(self.plans) > 1

    @property
    def requests(self) -> int:
        """Return the number of requests until the last server is requested; each poll of all servers adds one or two.

        Security groups and floating IPs of the cluster's own are not counted.
        """
        named = sum(
            bool(n) for plan in self.plans for n in (plan.key_name, plan.security_groups, plan.availability_zone)
        )
        return FIXED + named + self.servers + ON_SERVER * self.controller_on_server

    @property
    def seconds(self) -> float:
        """Return the seconds from the first request until the last server is requested: some rounds of requests, and the creations.

        Without the time that a controller's server takes to boot and to answer.
        """
        rounds = ROUNDS + ON_SERVER_ROUNDS * self.controller_on_server
        return (rounds + math.ceil(self.servers / self.parallel)) * self.latency
