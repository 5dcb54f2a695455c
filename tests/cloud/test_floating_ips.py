"""`ipp_griffin.cloud.floating_ips` against a made-up Neutron; no test sleeps or opens a connection."""

import json
import re
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import responses
from requests import PreparedRequest
from requests.exceptions import ConnectionError as Dropped

from ipp_griffin.cloud.floating_ips import FloatingIp
from ipp_griffin.common.errors import CloudError, QuotaError, SettingError, Unavailable, Unsupported

from ..openstack_responses import NETWORK, Answer, lines

# The SDK deprecates what it does itself.
pytestmark = pytest.mark.filterwarnings("ignore:.*will be removed in a future release")

UID, OTHER = "0123456789ab", "ba9876543210"
TRAIT = r"GriffinServerControllerLauncher\.floating_ip"
PUBLIC = {"id": "n1", "name": "public", "project_id": "x", "router:external": True}
SECOND = {"id": "n2", "name": "dmz", "project_id": "x", "router:external": True}
INNER = {"id": "n3", "name": "mine", "project_id": "p1", "router:external": False}
LIST = "GET /v2.0/floatingips?project_id=p1"
NETWORKS = "GET /v2.0/networks?router%3Aexternal=true"
PORTS = "GET /v2.0/ports?device_id=s1&project_id=p1"


def error(status: int, kind: str, message: str) -> Answer:
    return status, {}, json.dumps({"NeutronError": {"type": kind, "message": message, "detail": ""}})


class Neutron:
    """Floating IPs with state. ``outcomes``: of the next changes; "ok", "lost" (done, but nobody hears of it), "dropped", or an
    answer; then all is well."""

    def __init__(self, mock: responses.RequestsMock) -> None:
        self.outcomes: list[str | Answer] = []
        self.meanwhile: list[Any] = []  # what others do to a floating IP right before it is changed
        self.ips: dict[str, dict[str, Any]] = {}
        self.networks = [PUBLIC, INNER]
        self.ports = [{"id": "port1", "device_id": "s1", "device_owner": "compute:nova"}]
        self.listing: Answer | None = None
        url = f"{NETWORK}/v2.0/floatingips"
        mock.add_callback(responses.GET, re.compile(re.escape(url)), self._list)
        mock.add_callback(responses.POST, url, lambda request: self._outcome(request, self._create))
        mock.add_callback(responses.PUT, re.compile(re.escape(f"{url}/")), lambda r: self._outcome(r, self._update))
        mock.add_callback(responses.DELETE, re.compile(re.escape(f"{url}/")), lambda r: self._outcome(r, self._delete))
        mock.add_callback(
            responses.GET,
            re.compile(re.escape(f"{NETWORK}/v2.0/networks")),
            lambda request: (200, {}, json.dumps({"networks": self.networks})),
        )
        mock.add_callback(
            responses.GET,
            re.compile(re.escape(f"{NETWORK}/v2.0/ports")),
            lambda request: (200, {}, json.dumps({"ports": self.ports})),
        )

    def add(self, address: str, description: str = "", port: str | None = None) -> dict[str, Any]:
        made = {
            "id": f"f{len(self.ips) + 1}",
            "floating_ip_address": address,
            "description": description,
            "port_id": port,
            "created_at": "2026-01-01T00:00:00Z",
            "revision_number": 0,
        }
        return self.ips.setdefault(str(made["id"]), made)

    def of(self, uid: str, address: str = "203.0.113.5", user: str = "u1") -> dict[str, Any]:
        return self.add(address, f"ipp-griffin: controller of cluster {uid}, user {user}")

    def _outcome(self, request: PreparedRequest, do: Any) -> Answer:
        outcome = self.outcomes.pop(0) if self.outcomes else "ok"
        if isinstance(outcome, tuple):
            return outcome
        answer: Answer = do(request) if outcome != "dropped" else (0, {}, "")
        if outcome != "ok":
            return 0, {}, Dropped("Remote end closed connection without response")  # type: ignore[return-value]
        return answer

    def _list(self, request: PreparedRequest) -> Answer:
        assert parse_qs(urlsplit(request.url or "").query)["project_id"] == ["p1"]
        return self.listing or (200, {}, json.dumps({"floatingips": list(self.ips.values())}))

    def _create(self, request: PreparedRequest) -> Answer:
        wanted = json.loads(request.body or b"")["floatingip"]
        assert wanted.keys() == {"floating_network_id", "description"}
        made = self.add(f"203.0.113.{len(self.ips) + 10}", wanted["description"])
        made["network"] = wanted["floating_network_id"]
        return 201, {}, json.dumps({"floatingip": made})

    def _update(self, request: PreparedRequest) -> Answer:
        made = self.ips[(request.url or "").rsplit("/", 1)[1]]
        if self.meanwhile:
            self.meanwhile.pop(0)(made)
        if request.headers["If-Match"] != f"revision_number={made['revision_number']}":
            return error(412, "RevisionNumberConstraintFailed", "Constrained to another one")
        made["revision_number"] += 1
        made |= json.loads(request.body or b"")["floatingip"]
        return 200, {}, json.dumps({"floatingip": made})

    def _delete(self, request: PreparedRequest) -> Answer:
        id = (request.url or "").rsplit("/", 1)[1]
        if self.ips.pop(id, None):
            return 204, {}, ""
        return error(404, "FloatingIPNotFound", f"Floating IP {id} could not be found")


@pytest.fixture
def neutron(mock: responses.RequestsMock) -> Neutron:
    return Neutron(mock)


# reserve: "auto"


def test_one_is_allocated_from_the_only_external_network_and_says_whose_it_is(mock, connected, neutron):
    made = connected.floating_ips.reserve(UID, "auto", "")
    assert made == FloatingIp("f1", "203.0.113.10", UID, "", "u1", "2026-01-01T00:00:00Z", 0)
    assert neutron.ips["f1"]["network"] == "n1"
    assert neutron.ips["f1"]["description"] == f"ipp-griffin: controller of cluster {UID}, user u1"
    assert lines(mock) == [LIST, NETWORKS, "POST /v2.0/floatingips"]


def test_a_second_reserve_finds_what_the_first_one_allocated(mock, connected, neutron):
    made = connected.floating_ips.reserve(UID, "auto", "")
    mock.calls.reset()
    assert connected.floating_ips.reserve(UID, "auto", "") == made
    assert lines(mock) == [LIST]


def test_an_allocation_whose_answer_is_lost_is_found_and_not_made_twice(connected, neutron):
    neutron.outcomes = ["dropped", error(503, "X", "overloaded"), "lost"]
    assert connected.floating_ips.reserve(UID, "auto", "").uid == UID
    assert len(neutron.ips) == 1 and neutron.outcomes == []


def test_an_outage_that_lasts_is_told(connected, neutron):
    neutron.outcomes = ["dropped"] * 9
    with pytest.raises(Unavailable, match="Can't allocate a floating IP from network public"):
        connected.floating_ips.reserve(UID, "auto", "")
    assert neutron.ips == {} and len(neutron.outcomes) == 4


@pytest.mark.parametrize("pool", ["dmz", "n2"])
def test_the_external_network_is_chosen_by_name_or_id(connected, neutron, pool):
    neutron.networks = [PUBLIC, SECOND, INNER]
    connected.floating_ips.reserve(UID, "auto", pool)
    assert neutron.ips["f1"]["network"] == "n2"


@pytest.mark.parametrize(
    ("networks", "pool", "message"),
    [
        ([], "", rf"no external network .* \({TRAIT}_pool = ''\). Leave {TRAIT} empty"),
        ([INNER], "mine", "sees no external network"),
        ([PUBLIC, SECOND], "", rf"Several .* are there: dmz \(n2\), public \(n1\)\. Set {TRAIT}_pool to the id of one"),
        ([PUBLIC, {**SECOND, "name": "public"}], "public", r"are called 'public': public \(n1\), public \(n2\)"),
        ([PUBLIC, INNER], "mine", rf"no external network 'mine'\. External networks: public \(n1\)\. Set {TRAIT}_pool"),
    ],
)
def test_a_network_that_is_not_the_only_one_of_its_kind_is_a_matter_of_settings(
    connected, neutron, networks, pool, message
):
    neutron.networks = networks
    with pytest.raises(SettingError, match=message):
        connected.floating_ips.reserve(UID, "auto", pool)
    assert neutron.ips == {}


@pytest.mark.parametrize(
    "answer",
    [
        error(409, "IpAddressGenerationFailure", "No more IP addresses available on network n1."),
        error(409, "OverQuota", "Quota exceeded for resources: ['floatingip']."),
        error(400, "ExternalIpAddressExhausted", "Unable to find any IP address on external network n1."),
    ],
    ids=["no address", "quota", "no subnet"],
)
def test_no_floating_ip_left_is_one_line_that_says_what_next(connected, neutron, answer):
    neutron.outcomes = [answer]
    with pytest.raises(QuotaError, match=r"^No floating IP is left on network public: the cloud said 4") as raised:
        connected.floating_ips.reserve(UID, "auto", "")
    text, said = str(raised.value), json.loads(answer[2])["NeutronError"]["message"].rstrip(".")
    assert f"{said}. Release one that nobody needs" in text and "engines" not in text
    assert "`openstack floating ip list`" in text and re.search(f"set {TRAIT} to the address", text)


def test_another_refusal_is_told_as_it_is(connected, neutron):
    neutron.outcomes = [error(409, "Conflict", "The network is in use.")]
    with pytest.raises(CloudError, match="Can't allocate a floating IP .*409: The network is in use") as raised:
        connected.floating_ips.reserve(UID, "auto", "")
    assert type(raised.value) is CloudError


@pytest.mark.parametrize("wanted", ["auto", "203.0.113.5"])
def test_a_cloud_without_routers_has_no_floating_ips(connected, neutron, wanted):
    neutron.listing = error(404, "HTTPNotFound", "The resource could not be found.")
    with pytest.raises(Unsupported, match=rf"has no floating IPs: .*router extension\. Leave {TRAIT} empty"):
        connected.floating_ips.reserve(UID, wanted, "")


# reserve: an address


def test_one_that_the_project_has_is_found_by_its_address(mock, connected, neutron):
    neutron.add("203.0.113.4", port="p")
    neutron.add("203.0.113.5", "the web's")
    found = connected.floating_ips.reserve(UID, "203.0.113.5", "")
    assert found == FloatingIp("f2", "203.0.113.5", created="2026-01-01T00:00:00Z", revision=0)
    assert lines(mock) == [LIST]


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ("203.0.113.9", rf"no floating IP 203\.0\.113\.9\. Set {TRAIT} to one that is free \(203\.0\.113\.5\), or"),
        ("203.0.113.4", r"203\.0\.113\.4 is in use: it is attached to port p\. .*free \(203\.0\.113\.5\)"),
        ("203.0.113.6", rf"203\.0\.113\.6 was allocated for cluster {OTHER}\. "),
        ("public", rf"{TRAIT} 'public' is neither \"auto\" nor an IP address"),
    ],
)
def test_an_address_that_can_not_be_had_is_told_with_those_that_can(connected, neutron, wanted, message):
    neutron.add("203.0.113.4", port="p")
    neutron.add("203.0.113.5")
    neutron.of(OTHER, "203.0.113.6")
    with pytest.raises(SettingError, match=message):
        connected.floating_ips.reserve(UID, wanted, "")


# attach


def test_it_is_attached_to_the_servers_port_again_and_again(mock, connected, neutron):
    floating = connected.floating_ips.reserve(UID, "auto", "")
    mock.calls.reset()
    neutron.outcomes = ["lost"]
    connected.floating_ips.attach(floating, "s1")
    connected.floating_ips.attach(floating, "s1")
    assert neutron.ips["f1"]["port_id"] == "port1"
    put = "PUT /v2.0/floatingips/f1"  # whose answer was lost; the second listing shows it attached
    assert lines(mock) == [PORTS, LIST, put, LIST, PORTS, LIST]
    assert json.loads(mock.calls[2].request.body) == {"floatingip": {"port_id": "port1"}}


def test_one_of_the_project_is_not_taken_from_whoever_was_faster(connected, neutron):
    neutron.add("203.0.113.5"), neutron.add("203.0.113.6")
    floating = connected.floating_ips.reserve(UID, "203.0.113.5", "")
    neutron.meanwhile = [lambda made: made.update(port_id="somebody's", revision_number=7)]
    with pytest.raises(SettingError, match=r"attached to port somebody's\. .*free \(203\.0\.113\.6\)"):
        connected.floating_ips.attach(floating, "s1")
    assert neutron.ips["f1"]["port_id"] == "somebody's"


def test_a_change_of_something_else_meanwhile_does_not_matter(connected, neutron):
    neutron.add("203.0.113.5")
    floating = connected.floating_ips.reserve(UID, "203.0.113.5", "")
    neutron.meanwhile = [lambda made: made.update(description="mine", revision_number=7)]
    connected.floating_ips.attach(floating, "s1")
    assert neutron.ips["f1"]["port_id"] == "port1"


def test_it_moves_to_the_server_that_takes_anothers_place(connected, neutron):
    neutron.add("203.0.113.5")
    floating = connected.floating_ips.reserve(UID, "203.0.113.5", "")
    connected.floating_ips.attach(floating, "s1")
    neutron.ports = [{"id": "port2", "device_id": "s2", "device_owner": "compute:nova"}]
    connected.floating_ips.attach(floating, "s2")
    assert neutron.ips["f1"]["port_id"] == "port2"


def test_a_server_without_a_port_can_not_have_one(connected, neutron):
    neutron.ports = []
    with pytest.raises(CloudError, match=r"attach floating IP 203\.0\.113\.5 to server s1: the server has no port"):
        connected.floating_ips.attach(FloatingIp("f1", "203.0.113.5"), "s1")


def test_a_network_without_a_way_out_is_told_with_what_makes_one(connected, neutron):
    text = "External network n1 is not reachable from subnet s.  Therefore, cannot associate Port p with a Floating IP."
    neutron.add("203.0.113.5")
    neutron.outcomes = [error(404, "ExternalGatewayForFloatingIPNotFound", text)]
    with pytest.raises(CloudError, match=rf"is not reachable .* `openstack router add subnet`\), or set {TRAIT}_pool"):
        connected.floating_ips.attach(FloatingIp("f1", "203.0.113.5"), "s1")


def test_one_that_went_meanwhile_can_not_be_attached(connected, neutron):
    with pytest.raises(CloudError, match=r"Can't attach floating IP 203\.0\.113\.5 to server s1: it is gone\."):
        connected.floating_ips.attach(FloatingIp("f1", "203.0.113.5"), "s1")


# those of clusters, and their end


def test_those_of_clusters_are_told_from_others(mock, connected, neutron):
    neutron.of(UID, user="u1"), neutron.of(OTHER, "203.0.113.6", user="u2"), neutron.add("203.0.113.7")
    neutron.add("203.0.113.8", f"ipp-griffin: controller of cluster {UID}, user u1, not really")
    assert [(f.id, f.uid, f.user_id) for f in connected.floating_ips.all()] == [("f1", UID, "u1"), ("f2", OTHER, "u2")]
    assert [f.address for f in connected.floating_ips.of(UID)] == ["203.0.113.5"]
    assert lines(mock) == [LIST] * 2


def test_those_of_a_cluster_are_released_and_no_others(mock, connected, neutron):
    neutron.of(UID)["port_id"] = "port1"
    neutron.of(UID, "203.0.113.9"), neutron.of(OTHER, "203.0.113.6"), neutron.add("203.0.113.7", port="port2")
    neutron.outcomes = ["lost", error(503, "X", "overloaded")]
    connected.floating_ips.release(UID)
    assert sorted(neutron.ips) == ["f3", "f4"]
    mock.calls.reset()
    connected.floating_ips.release(UID)
    assert lines(mock) == [LIST]


def test_one_that_can_not_be_released_is_named_after_all_were_tried(connected, neutron):
    neutron.of(UID), neutron.of(UID, "203.0.113.6")
    neutron.outcomes = [error(409, "X", "Not now.")]
    with pytest.raises(CloudError, match=r"Can't release floating IP 203\.0\.113\.5: the cloud said 409"):
        connected.floating_ips.release(UID)
    assert sorted(neutron.ips) == ["f1"]


@pytest.mark.parametrize("status", [403, 404])
def test_where_none_can_be_seen_there_is_none_to_release(mock, connected, neutron, status):
    neutron.listing = error(status, "X", "no")
    assert connected.floating_ips.all() == []
    connected.floating_ips.release(UID)
    assert lines(mock) == [LIST] * 2


def test_an_outage_is_not_taken_for_none(connected, neutron):
    neutron.listing = error(503, "X", "overloaded")
    with pytest.raises(Unavailable):
        connected.floating_ips.release(UID)


def test_an_address_that_is_none_is_left_out(connected, neutron):
    neutron.add("; rm", f"ipp-griffin: controller of cluster {UID}, user u1")["floating_ip_address"] = None
    assert [f.address for f in connected.floating_ips.all()] == [""]
