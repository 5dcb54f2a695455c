"""Which TempURL keys and digests are used, against a made-up object store that checks every signature itself."""

import hmac
import itertools
import json
import logging
import re
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
import requests
import responses
from requests import PreparedRequest

from ipp_griffin.agent.reports import report_url
from ipp_griffin.cloud.store.account import Account
from ipp_griffin.cloud.store.account_key import AccountKey
from ipp_griffin.cloud.store.store import Store
from ipp_griffin.cloud.store.tempurl import Signer
from ipp_griffin.common.errors import StoreError, Unavailable, Unsupported

from ...openstack_responses import ACCOUNT, STORE, Answer

# The SDK deprecates what it does itself.
pytestmark = pytest.mark.filterwarnings("ignore:.*will be removed in a future release")

UID, OTHER = "0123456789ab", "ba9876543210"
NOW = 1_700_000_000
DATE = {"Date": "Tue, 14 Nov 2023 22:13:20 GMT"}
FIRST, SECOND = "x-account-meta-temp-url-key", "x-account-meta-temp-url-key-2"
OURS = "ipp-griffin-" + "0" * 64
KEY_OF_CONTAINER = "x-container-meta-temp-url-key"
GATEWAY_INFO = {"swift": {"version": "18.2.4"}, "tempurl": {"methods": ["GET", "HEAD", "PUT"]}}


class Gateway:
    """An object store at ``url``. ``meta``: of the account, ``shown`` or not, with ``about``; ``containers``: metadata by name; ``info`` None: hidden.

    ``keys``: whose keys it honours, "container" or "account". ``refusal``: the status for a bad signature.
    ``before``: is called with the method and the path of every request.
    """

    def __init__(self, mock: responses.RequestsMock, url: str = ACCOUNT) -> None:
        self.url, self.path = url, urlsplit(url).path
        self.meta: dict[str, str] = {}
        self.shown = True
        self.about = {"X-Account-Storage-Policy-Default-Placement-Container-Count": "0"}
        self.containers: dict[str, dict[str, str]] = {}
        self.objects: dict[str, int] = {}  # when each was written, in seconds
        self.info: dict[str, Any] | None = GATEWAY_INFO
        self.keys, self.digests, self.refusal = "account", ["sha1"], 403
        self.before: Callable[[str, str], object] = lambda method, path: None
        self.seen: list[str] = []
        for method in ("GET", "HEAD", "PUT", "POST", "DELETE"):
            mock.add_callback(method, re.compile(re.escape(STORE)), self.answer)

    def answer(self, request: PreparedRequest) -> Answer:
        url, method = urlsplit(request.url or ""), request.method or ""
        path, query = unquote(url.path), parse_qs(url.query)
        self.seen.append(f"{method} {path.removeprefix(self.path)}")
        self.before(method, path)
        given = {text(name).lower(): text(value) for name, value in request.headers.items()}
        if path.endswith("/info"):
            return (404, DATE, "") if self.info is None else (200, DATE, json.dumps(self.info))
        container, _, name = path.removeprefix(self.path).strip("/").partition("/")
        if name:
            return self._object(method, path, query, container, name)
        if container:
            return self._container(method, container, given)
        if method == "GET":
            return 200, DATE, json.dumps([{"name": name} for name in sorted(self.containers)])
        if method == "POST":
            update(self.meta, given, "account")
        return 204, {**DATE, **self.about, **(self.meta if self.shown else {})}, ""

    def _container(self, method: str, name: str, given: dict[str, str]) -> Answer:
        if method == "PUT":
            existed = name in self.containers
            self.containers.setdefault(name, {})
            return 202 if existed else 201, DATE, ""
        if name not in self.containers:
            return 404, DATE, ""
        if method == "POST":
            update(self.containers[name], given, "container")
        if method == "DELETE":
            if any(stored.startswith(f"{name}/") for stored in self.objects):
                return 409, DATE, ""
            del self.containers[name]
        if method == "GET":
            found = [
                {"name": stored.partition("/")[2], "last_modified": f"2026-01-01T00:00:{second:02d}.000Z"}
                for stored, second in sorted(self.objects.items())
                if stored.startswith(f"{name}/")
            ]
            return 200, DATE, json.dumps(found)
        return 204, {**DATE, **self.containers.get(name, {})}, ""

    def _object(self, method: str, path: str, query: dict[str, list[str]], container: str, name: str) -> Answer:
        if "temp_url_sig" in query and not self._lets_in(method, path, query, container):
            return self.refusal, DATE, ""
        if method == "PUT":
            self.objects[f"{container}/{name}"] = max(self.objects.values(), default=0) + 1
            return 201, DATE, ""
        return 200 if f"{container}/{name}" in self.objects else 404, DATE, ""

    def _lets_in(self, method: str, path: str, query: dict[str, list[str]], container: str) -> bool:
        meta = self.meta if self.keys == "account" else self.containers.get(container, {})
        expires = query["temp_url_expires"][0]
        allowed = [
            hmac.new(key.encode(), f"{m}\n{expires}\n{path}".encode(), digest).hexdigest()
            for name, key in meta.items()
            if "temp-url-key" in name
            for m in ([method, "GET", "PUT"] if method == "HEAD" else [method])
            for digest in self.digests
        ]
        return "temp_url_prefix" not in query and query["temp_url_sig"][0] in allowed and int(expires) > NOW


def text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value


def update(meta: dict[str, str], given: dict[str, str], kind: str) -> None:
    for name, value in given.items():
        if name.startswith(f"x-remove-{kind}-meta-"):
            meta.pop(name.replace("x-remove-", "x-"), None)
        elif name.startswith(f"x-{kind}-meta-"):
            meta[name] = value


@pytest.fixture
def fake(mock: responses.RequestsMock) -> Gateway:
    """Ceph's gateway, as far as these tests go."""
    return Gateway(mock)


@pytest.fixture
def key(session: Any) -> AccountKey:
    account = Account(session, ACCOUNT, retries=2, sleep=lambda seconds: None, clock=lambda: NOW)
    return AccountKey(account, "ipp-griffin")


@pytest.fixture
def store(session: Any, fake: Gateway) -> Store:
    return new_store(session, fake)


def new_store(session: Any, fake: Gateway, **options: Any) -> Store:
    """As another process has it."""
    return Store(session, fake.url, sleep=lambda seconds: None, clock=lambda: NOW, **options)


def container(uid: str = UID) -> str:
    return f"ipp-griffin-{uid}"


def when(fake: Gateway, line: str, do: Callable[[], object], nth: int = 1) -> None:
    """``do`` just before the ``nth`` request of that kind from now, such as "POST " for one to the account."""
    count = 0

    def before(method: str, path: str) -> None:
        nonlocal count
        if f"{method} {path.removeprefix(fake.path)}" == line:
            count += 1
            if count == nth:
                do()

    fake.before = before


# -- a slot of the account ------------------------------------------------------------------------------------


def test_a_free_slot_gets_a_random_key_that_is_known_for_ours(key: AccountKey, fake: Gateway) -> None:
    shared = key.share()
    assert fake.meta == {FIRST: shared}
    assert re.fullmatch("ipp-griffin-[0-9a-f]{64}", shared)


@pytest.mark.parametrize("slot", [FIRST, SECOND])
def test_a_key_of_ours_is_shared_and_nothing_is_written(key: AccountKey, fake: Gateway, slot: str) -> None:
    fake.meta[slot] = OURS
    assert key.share() == OURS
    assert fake.seen == ["HEAD "]


@pytest.mark.parametrize(("taken", "free"), [(FIRST, SECOND), (SECOND, FIRST)])
@pytest.mark.parametrize("value", ["theirs", f"{OURS}0", f"ipp-griffin-lab-{'0' * 64}"])
def test_of_two_slots_the_free_one_is_used_and_given_back(
    key: AccountKey, fake: Gateway, taken: str, free: str, value: str
) -> None:
    fake.meta[taken] = value
    assert fake.meta == {taken: value, free: key.share()}
    key.give_back(lambda: False)
    assert fake.meta == {taken: value}


def test_with_both_slots_taken_nothing_is_written_and_one_line_says_what_to_do(key: AccountKey, fake: Gateway) -> None:
    fake.meta |= {FIRST: "theirs", SECOND: "others"}
    with pytest.raises(
        Unsupported,
        match=r"both of them are in use.* Use another project, or free a key that nobody needs: .* Temp-URL-Key`$",
    ) as error:
        key.share()
    assert "\n" not in str(error.value) and "theirs" not in str(error.value)
    assert fake.seen == ["HEAD "]


def test_where_the_store_may_hide_that_a_slot_is_taken_nothing_is_written(key: AccountKey, fake: Gateway) -> None:
    """Old releases of Ceph's gateway show no keys, have no /info, and show no storage policies."""
    fake.about, fake.shown, fake.info, fake.meta = {}, False, None, {FIRST: "theirs"}
    with pytest.raises(Unsupported, match=r"does not show whether they are in use .* Ask the cloud's operators"):
        key.share()
    assert fake.meta == {FIRST: "theirs"} and "POST " not in fake.seen


def test_a_store_that_tells_what_it_can_do_also_tells_whether_a_slot_is_free(key: AccountKey, fake: Gateway) -> None:
    fake.about = {}
    assert fake.meta == {FIRST: key.share()}


def test_where_one_slot_is_shown_to_be_taken_the_other_is_known_to_be_free(key: AccountKey, fake: Gateway) -> None:
    fake.about, fake.info, fake.meta = {}, None, {FIRST: "theirs"}
    assert fake.meta == {FIRST: "theirs", SECOND: key.share()}


def test_of_two_that_set_it_at_once_both_use_what_is_there_in_the_end(key: AccountKey, fake: Gateway) -> None:
    when(fake, "HEAD ", lambda: fake.meta.update({FIRST: OURS}), nth=2)
    assert key.share() == OURS
    assert fake.meta == {FIRST: OURS}


def test_if_somebody_takes_the_slot_meanwhile_the_other_is_used(key: AccountKey, fake: Gateway) -> None:
    when(fake, "HEAD ", lambda: fake.meta.update({FIRST: "theirs"}), nth=2)
    assert fake.meta == {FIRST: "theirs", SECOND: key.share()}


def test_a_key_whose_setting_was_answered_503_though_it_landed_is_found_and_not_set_again(
    key: AccountKey, fake: Gateway, mock: responses.RequestsMock
) -> None:
    """Repeated without a look, it could change what somebody has set since."""
    mock.remove("POST", re.compile(re.escape(STORE)))

    def landed(request: PreparedRequest) -> Answer:
        fake.answer(request)
        return 503, DATE, ""

    mock.add_callback("POST", re.compile(re.escape(STORE)), landed)
    assert fake.meta == {FIRST: key.share()}
    assert fake.seen.count("POST ") == 1


def test_a_setting_that_was_given_up_and_lands_later_changes_nothing(
    key: AccountKey, fake: Gateway, mock: responses.RequestsMock
) -> None:
    """Its answer is lost, and the key is asked for again: a new one would leave all signed URLs dead."""
    mock.remove("POST", re.compile(re.escape(STORE)))
    late: list[PreparedRequest] = []

    def lose_the_first(request: PreparedRequest) -> Answer:
        late.append(request)
        return (503, DATE, "") if len(late) == 1 else fake.answer(request)

    mock.add_callback("POST", re.compile(re.escape(STORE)), lose_the_first)
    shared = key.share()
    fake.answer(late[0])
    assert fake.meta == {FIRST: shared}


def test_a_store_that_stays_unavailable_is_said_to_be(
    key: AccountKey, fake: Gateway, mock: responses.RequestsMock
) -> None:
    mock.remove("POST", re.compile(re.escape(STORE)))
    mock.post(re.compile(re.escape(STORE)), status=503)
    with pytest.raises(Unavailable, match="TempURL keys of the account: the cloud said 503"):
        key.share()


def test_a_store_that_keeps_no_key_is_unsupported(key: AccountKey, fake: Gateway) -> None:
    fake.before = lambda method, path: fake.meta.clear()
    with pytest.raises(Unsupported, match="does not keep a TempURL key of the account"):
        key.share()


@pytest.mark.parametrize(("needed", "left"), [(True, {FIRST: OURS}), (False, {})])
def test_the_slot_is_freed_when_no_cluster_needs_the_key(
    key: AccountKey, fake: Gateway, needed: bool, left: dict[str, str]
) -> None:
    fake.meta[FIRST] = OURS
    key.give_back(lambda: needed)
    assert fake.meta == left


def test_a_key_that_somebody_has_put_in_our_slot_is_not_removed(key: AccountKey, fake: Gateway) -> None:
    fake.meta[FIRST] = OURS
    when(fake, "HEAD ", lambda: fake.meta.update({FIRST: "theirs"}), nth=2)
    key.give_back(lambda: False)
    assert fake.meta == {FIRST: "theirs"}


@pytest.mark.parametrize(
    ("meanwhile", "left"),
    [({}, {FIRST: OURS}), ({FIRST: "theirs"}, {FIRST: "theirs"}), ({SECOND: OURS}, {SECOND: OURS})],
)
def test_the_key_is_put_back_for_a_cluster_that_came_meanwhile_but_over_nothing_else(
    key: AccountKey, fake: Gateway, meanwhile: dict[str, str], left: dict[str, str]
) -> None:
    fake.meta[FIRST] = OURS
    needed = iter([False, True])

    def is_needed() -> bool:
        answer = next(needed)
        if answer:
            fake.meta.update(meanwhile)
        return answer

    key.give_back(is_needed)
    assert fake.meta == left


# -- which key and digest a cluster uses ----------------------------------------------------------------------


@pytest.mark.parametrize("refusal", [401, 403])
@pytest.mark.parametrize("path", ["/v1/AUTH_p1", "/swift/v1/AUTH_p1", "/swift/v1"])
def test_a_gateway_that_ignores_keys_of_containers_gets_one_of_the_account(
    mock: responses.RequestsMock, session: Any, path: str, refusal: int
) -> None:
    fake = Gateway(mock, STORE + path)
    fake.refusal = refusal
    store = new_store(session, fake)
    store.publish(UID, {"owner": "ada"})
    assert fake.containers[container()]["x-container-meta-ipp-griffin-key"] == "account"
    store.put(UID, "set/connection.json", b"")
    assert requests.get(store.get_url(UID, "set/connection.json", 60), timeout=1).status_code == 200
    assert store.delete_container(UID) is False  # something is in it
    fake.objects.clear()
    assert store.delete_container(UID) is True
    assert (fake.meta, fake.containers) == ({}, {})


def test_an_agent_writes_each_report_of_its_own_by_the_url_of_its_phase(store: Store, fake: Gateway) -> None:
    """Ceph's gateway may have no URLs of a prefix; what writes here is the agent's own code."""
    store.publish(UID, {})
    urls = store.report_urls(UID, "set/0.0/", 60)
    phases = ("agent", "connected", "engines", "gone", "failed")
    for sequence, phase in enumerate(phases):
        assert requests.put(report_url(urls, sequence, phase), timeout=1).status_code == 201
    assert [report.phase for report in store.reports(UID, "set")] == list(phases)
    assert requests.put(report_url(urls, 7, "log"), timeout=1).status_code == 201
    assert store.reports(UID, "set", logs=True)[-1].phase == "log"
    elsewhere = report_url(urls, 0, "agent").replace("0.0/", "1.0/")
    assert requests.put(elsewhere, timeout=1).status_code == 403


def test_of_reports_with_one_name_a_phase_the_last_one_written_counts(store: Store, fake: Gateway) -> None:
    """Engines that ended, and were started anew: what they are now is under the name that was used before."""
    store.publish(UID, {})
    urls = store.report_urls(UID, "set/0.0/", 60)
    for sequence, phase in enumerate(["agent", "connected", "engines", "gone", "engines"]):
        requests.put(report_url(urls, sequence, phase), timeout=1)
    assert [report.phase for report in store.reports(UID, "set")][-2:] == ["gone", "engines"]


def test_the_container_says_that_it_needs_the_accounts_key_before_the_slots_are_looked_at(
    store: Store, fake: Gateway
) -> None:
    """Whoever frees our slot at that moment looks at the containers, before and after."""
    store.publish(UID, {})
    noted = [n for n, line in enumerate(fake.seen) if line == f"POST /{container()}"][1]
    assert noted < fake.seen.index("HEAD ")


def test_another_process_signs_with_the_same_key(store: Store, fake: Gateway, session: Any) -> None:
    store.publish(UID, {})
    again = new_store(session, fake)
    assert again.get_url(UID, "x", 60) == store.get_url(UID, "x", 60)
    again.publish(UID, {})
    assert again.get_url(UID, "x", 60) == store.get_url(UID, "x", 60)
    assert fake.seen.count("POST ") == 1


def test_a_store_that_is_no_swift_but_honours_keys_of_containers_needs_none_of_the_account(
    store: Store, fake: Gateway
) -> None:
    fake.keys = "container"
    store.publish(UID, {})
    assert fake.meta == {} and "HEAD " not in fake.seen
    assert "x-container-meta-ipp-griffin-key" not in fake.containers[container()]
    assert store.remove_if_empty(UID)


@pytest.mark.parametrize("keys", ["container", "account"])
def test_a_store_that_hides_what_it_can_do_and_takes_only_sha1_is_found_out(
    store: Store, fake: Gateway, session: Any, keys: str
) -> None:
    fake.info, fake.keys = None, keys
    store.publish(UID, {})
    assert fake.containers[container()]["x-container-meta-ipp-griffin-key"] == f"{keys} sha1"
    fake.objects[f"{container()}/x"] = b""
    for process in (store, new_store(session, fake)):
        assert requests.get(process.get_url(UID, "x", 60), timeout=1).status_code == 200


@pytest.mark.parametrize(
    "info",
    [
        {"swift": {"version": "2.38.3"}, "tempurl": {"allowed_digests": ["sha1"]}},
        {"swift": {"version": "2.10.2"}, "tempurl": {}},
    ],
)
def test_a_swift_that_takes_only_sha1_gets_sha1(store: Store, fake: Gateway, info: dict[str, Any]) -> None:
    """Whether it says so, or says nothing of digests, as those before 2.17 do; the store checks the signature."""
    fake.info, fake.keys = info, "container"
    store.publish(UID, {})
    fake.objects[f"{container()}/x"] = b""
    assert requests.get(store.get_url(UID, "x", 60), timeout=1).status_code == 200
    fake.digests = ["sha256"]
    assert requests.get(store.get_url(UID, "x", 60), timeout=1).status_code == 403


def test_a_store_that_honours_no_key_is_unsupported_and_gets_its_slot_back(store: Store, fake: Gateway) -> None:
    fake.digests = []
    with pytest.raises(Unsupported, match=r"honours neither .*rgw_swift_account_in_url"):
        store.publish(UID, {})
    assert fake.meta == {}
    assert "x-container-meta-ipp-griffin-key" not in fake.containers[container()]


@pytest.mark.parametrize("keys", ["container", "account"])
def test_an_outage_while_a_key_is_tried_says_nothing_about_the_key(
    store: Store, fake: Gateway, monkeypatch: pytest.MonkeyPatch, keys: str
) -> None:
    fake.keys = keys
    monkeypatch.setattr(fake, "_object", during(fake._object, iter([503, 429])))
    store.publish(UID, {})
    assert len(fake.meta) == (keys == "account")


def test_an_outage_while_a_key_is_tried_that_lasts_is_told_as_such(
    store: Store, fake: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fake, "_object", during(fake._object, itertools.repeat(503)))
    with pytest.raises(Unavailable, match="Can't try a TempURL: the cloud said 503"):
        store.publish(UID, {})
    assert fake.meta == {}


def during(handle: Callable[..., Answer], statuses: Iterator[int]) -> Callable[..., Answer]:
    """Answers with ``statuses``, and then as ``handle`` does."""

    def answer(*request: Any) -> Answer:
        status = next(statuses, 0)
        return (status, DATE, "") if status else handle(*request)

    return answer


def test_a_gateway_that_answers_201_for_somebody_elses_container_changes_nothing_in_it(
    store: Store, fake: Gateway
) -> None:
    fake.containers[container()] = {"x-container-meta-owner": "somebody"}
    with pytest.raises(StoreError, match="exists, but does not belong to this cluster"):
        store.publish(UID, {})
    assert fake.containers[container()] == {"x-container-meta-owner": "somebody"}
    assert {line.split()[0] for line in fake.seen} == {"GET", "HEAD"}


def test_two_clusters_share_the_key_and_the_last_one_frees_the_slot(store: Store, fake: Gateway, session: Any) -> None:
    other = new_store(session, fake)
    store.publish(UID, {})
    other.publish(OTHER, {})
    shared = dict(fake.meta)
    assert len(shared) == 1
    assert store.delete_container(UID) is True
    assert fake.meta == shared
    assert other.remove_if_empty(OTHER) is True
    assert fake.meta == {}


def test_a_gateway_that_lists_containers_of_all_names_is_asked_about_ours_only(store: Store, fake: Gateway) -> None:
    """Old ones know no prefix of an account's listing (src/rgw/rgw_rest_swift.cc)."""
    fake.containers["photos"] = {}
    store.publish(UID, {})
    assert store.containers() == [UID]
    assert store.delete_container(UID) is True
    assert fake.containers == {"photos": {}} and not any("photos" in line for line in fake.seen)


def test_clusters_with_another_prefix_of_container_names_have_a_key_of_their_own(
    store: Store, fake: Gateway, session: Any
) -> None:
    """Their containers aren't looked at when the slot is freed."""
    lab = new_store(session, fake, prefix="ipp-griffin-lab")
    store.publish(UID, {})
    lab.publish(OTHER, {})
    assert len(set(fake.meta.values())) == 2
    store.delete_container(UID)
    assert [value.rpartition("-")[0] for value in fake.meta.values()] == ["ipp-griffin-lab"]


def test_a_slot_that_cannot_be_freed_does_not_fail_the_stop(
    store: Store, fake: Gateway, caplog: pytest.LogCaptureFixture, mock: responses.RequestsMock
) -> None:
    store.publish(UID, {})
    mock.remove("POST", re.compile(re.escape(STORE)))
    mock.post(re.compile(re.escape(STORE)), status=403)
    assert store.delete_container(UID) is True
    assert "a TempURL key stays in the object store's account, for the next cluster" in caplog.text
    assert caplog.text.count("\n") == 1


def test_no_key_of_the_account_gets_into_any_log_or_error(
    store: Store, fake: Gateway, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    store.publish(UID, {})
    shared = fake.meta[FIRST]
    store.delete_container(UID)
    assert shared.rpartition("-")[2][:8] not in caplog.text
    assert "secret" not in repr(Signer("secret", "sha1"))


@pytest.mark.parametrize(
    ("version", "known"),
    [("2.38.3", True), ("2.12.0", True), ("2.11.0", False), ("1.13", False), ("", False), (None, False)]
    + [("18.2.4", False), ("9.2.1", False), ("0.94.10", False), ("20.3.0-123-gabc", False), ("ceph 18.2", False)],
)
def test_only_the_versions_of_swift_are_taken_for_swift(session: Any, fake: Gateway, version: Any, known: bool) -> None:
    """Ceph's gateway has a section "swift" too, with its own version."""
    fake.info = {"swift": {"version": version}}
    account = Account(session, ACCOUNT, retries=0, sleep=lambda seconds: None, clock=lambda: NOW)
    assert account.is_swift() is known


def test_pages_that_a_gateway_cuts_shorter_than_it_says_are_all_read(
    session: Any, mock: responses.RequestsMock
) -> None:
    names = [f"set/{n:05d}" for n in range(2500)]

    def page(request: PreparedRequest) -> Answer:
        marker = parse_qs(urlsplit(request.url or "").query).get("marker", [""])[0]
        return 200, DATE, json.dumps([{"name": name} for name in names if name > marker][:1000])

    mock.get(f"{STORE}/info", json={"swift": {"version": "18.2.4", "container_listing_limit": 10000}})
    mock.add_callback("GET", re.compile(re.escape(f"{ACCOUNT}/{container()}")), page)
    store = Store(session, ACCOUNT, sleep=lambda seconds: None, clock=lambda: NOW)
    assert [stored.name for stored in store.objects(UID)] == names
