"""`ipp_griffin.cloud.store.store` against made-up answers of an object store; no test sleeps or opens a connection."""

import hmac
import json
import logging
import re
import threading
from email.utils import formatdate
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import pytest
import responses
from requests import PreparedRequest
from requests.exceptions import ConnectionError as Dropped
from requests.exceptions import ReadTimeout

from ipp_griffin.cloud.store import account as swift_module
from ipp_griffin.cloud.store import store as store_module
from ipp_griffin.cloud.store.store import Store, StoredObject
from ipp_griffin.common.errors import (
    CredentialsError,
    QuotaError,
    StoreError,
    StoreUnavailable,
    Unavailable,
    Unsupported,
)
from ipp_griffin.model.names import Place, container_name
from ipp_griffin.model.reports import Report

from ...openstack_responses import ACCOUNT, AUTH, STORE, TOKEN, Answer, lines

# The SDK deprecates what it does itself.
pytestmark = pytest.mark.filterwarnings("ignore:.*will be removed in a future release")

UID, SET = "0123456789ab", "0badcafe"
CONTAINER = f"{ACCOUNT}/ipp-griffin-{UID}"
INFO: dict[str, Any] = {
    "swift": {"version": "2.38.3", "container_listing_limit": 10000},
    "tempurl": {"methods": ["GET", "HEAD", "PUT"], "allowed_digests": ["sha1", "sha256", "sha512"]},
    "bulk_delete": {"max_deletes_per_request": 10000},
}
KEY = "k" * 64
OURS = {"X-Container-Meta-Ipp-Griffin": UID, "X-Container-Meta-Temp-Url-Key": KEY}
NOW = 1_700_000_000  # by the store's clock: Tue, 14 Nov 2023 22:13:20 GMT
DATE = {"Date": "Tue, 14 Nov 2023 22:13:20 GMT"}


@pytest.fixture
def store(mock: responses.RequestsMock, session: Any, slept: list[float]) -> Store:
    """A Swift that supports all that is wanted; this machine's clock is an hour behind it."""
    mock.get(f"{STORE}/info", json=INFO, headers=DATE)
    return Store(session, ACCOUNT, sleep=slept.append, clock=lambda: NOW - 3600)


def store_with(mock: responses.RequestsMock, session: Any, info: dict[str, Any], **kwargs: Any) -> Store:
    mock.get(f"{STORE}/info", json=info, headers=DATE)
    return Store(session, ACCOUNT, sleep=lambda seconds: None, clock=lambda: NOW, **kwargs)


def listing(*names: str) -> list[dict[str, Any]]:
    return [{"name": name, "bytes": 7, "last_modified": "2026-01-01T00:00:00.000000"} for name in names]


def signature(text: str, digest: str = "sha256", key: str = KEY) -> str:
    return hmac.new(key.encode(), text.encode(), digest).hexdigest()


# -- publishing -----------------------------------------------------------------------------------------------


def test_a_new_container_gets_our_marker_labels_and_a_random_key(mock: responses.RequestsMock, store: Store) -> None:
    mock.put(CONTAINER, status=201)
    mock.post(CONTAINER, status=204)
    store.publish(UID, {"owner": "Zoë\r\nX-Evil: 1", "cluster id": "x" * 999})
    assert lines(mock) == [
        "GET /info",
        f"PUT /v1/AUTH_p1/ipp-griffin-{UID}",
        f"POST /v1/AUTH_p1/ipp-griffin-{UID}",
    ]
    made, marked = mock.calls[1].request.headers, mock.calls[2].request.headers
    assert not [name for name in made if b"meta" in name.lower().encode()]
    sent = {as_text(name).lower(): as_text(value) for name, value in marked.items()}
    assert sent["x-container-meta-ipp-griffin"] == UID
    assert sent["x-container-meta-ipp-griffin-owner"] == "Zoë X-Evil: 1"
    assert len(sent["x-container-meta-ipp-griffin-cluster-id"].encode()) <= 256
    assert re.fullmatch("[0-9a-f]{64}", sent["x-container-meta-temp-url-key"])


@pytest.mark.parametrize(
    ("info", "count", "bytes_"), [(INFO | {"container_quotas": {}}, "20000", "4294967296"), (INFO, None, None)]
)
def test_a_new_container_has_a_quota_where_the_store_has_quotas(
    mock: responses.RequestsMock, session: Any, info: dict[str, Any], count: str | None, bytes_: str | None
) -> None:
    """In the very request that makes URLs into it possible: it is never without."""
    store = store_with(mock, session, info)
    mock.put(CONTAINER, status=201)
    mock.post(CONTAINER, status=204)
    store.publish(UID, {})
    (marked,) = [call.request for call in mock.calls if call.request.method == "POST"]
    sent = {as_text(name).lower(): as_text(value) for name, value in marked.headers.items()}
    assert sent.get("x-container-meta-quota-count") == count
    assert sent.get("x-container-meta-quota-bytes") == bytes_
    assert "x-container-meta-temp-url-key" in sent


def as_text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value


def test_the_key_of_a_container_that_is_ours_is_taken_over(mock: responses.RequestsMock, store: Store) -> None:
    mock.put(CONTAINER, status=202)
    mock.head(CONTAINER, status=204, headers=OURS)
    store.publish(UID, {})
    assert "POST" not in " ".join(lines(mock))
    expires = NOW + 60
    path = f"/v1/AUTH_p1/ipp-griffin-{UID}/x"
    assert signature(f"GET\n{expires}\n{path}") in store.get_url(UID, "x", 60)


def test_of_two_processes_the_second_waits_for_the_firsts_key(
    mock: responses.RequestsMock, store: Store, slept: list[float]
) -> None:
    mock.put(CONTAINER, status=202)
    mock.head(CONTAINER, status=204)
    mock.head(CONTAINER, status=204)
    mock.head(CONTAINER, status=204, headers=OURS)
    store.publish(UID, {})
    assert len(slept) == 2


def test_a_container_whose_making_was_answered_too_late_is_ours(mock: responses.RequestsMock, store: Store) -> None:
    """The first PUT landed, though its answer was lost; nobody else is going to mark that container."""
    mock.put(CONTAINER, status=503)
    mock.put(CONTAINER, status=202)
    mock.head(CONTAINER, status=204)
    mock.head(CONTAINER, status=204)
    mock.get(CONTAINER, json=[])
    mock.get(CONTAINER, json=[])
    mock.post(CONTAINER, status=204)
    mock.head(CONTAINER, status=204, headers=OURS)
    store.publish(UID, {})
    assert [line.split()[0] for line in lines(mock)].count("POST") == 1


def bare(age: float, objects: int = 0) -> dict[str, str]:
    """The headers of a container that nobody has marked."""
    return {"X-Timestamp": f"{NOW - age:.5f}", "X-Container-Object-Count": str(objects), "Date": formatdate(NOW)}


def test_a_container_that_nobody_marked_for_ten_seconds_is_marked(
    mock: responses.RequestsMock, store: Store, slept: list[float]
) -> None:
    """Whoever made it was killed just then. Two may find that at once: the key that is there afterwards counts."""
    mock.put(CONTAINER, status=202)
    mock.head(CONTAINER, status=204, headers=bare(9))
    mock.head(CONTAINER, status=204, headers=bare(11))
    mock.post(CONTAINER, status=204)
    mock.head(CONTAINER, status=204, headers=OURS)
    store.publish(UID, {}, quota=False)
    assert [line.split()[0] for line in lines(mock)][-5:] == ["PUT", "HEAD", "HEAD", "POST", "HEAD"]
    assert as_text(mock.calls[-2].request.headers["X-Container-Meta-Ipp-Griffin"]) == UID
    assert signature(f"GET\n{NOW + 60}\n/v1/AUTH_p1/ipp-griffin-{UID}/x") in store.get_url(UID, "x", 60)


def test_what_somebody_keeps_in_an_old_container_is_left_alone(mock: responses.RequestsMock, store: Store) -> None:
    mock.put(CONTAINER, status=202)
    mock.head(CONTAINER, status=204, headers=bare(1000, objects=1))
    with pytest.raises(StoreError, match="exists, but does not belong to this cluster"):
        store.publish(UID, {})
    assert "POST" not in " ".join(lines(mock))


def test_what_somebody_has_in_a_container_is_left_alone_after_a_lost_answer_too(
    mock: responses.RequestsMock, store: Store
) -> None:
    mock.put(CONTAINER, status=503)
    mock.put(CONTAINER, status=202)
    mock.head(CONTAINER, status=204)
    mock.get(CONTAINER, json=listing("thesis.txt"))
    with pytest.raises(StoreError, match="exists, but does not belong to this cluster"):
        store.publish(UID, {})
    assert "POST" not in " ".join(lines(mock))


@pytest.mark.parametrize(
    "headers", [{}, {"X-Container-Meta-Ipp-Griffin": UID}, OURS | {"X-Container-Meta-Ipp-Griffin": "x"}]
)
def test_somebody_elses_container_is_refused_and_left_alone(
    mock: responses.RequestsMock, store: Store, slept: list[float], headers: dict[str, str]
) -> None:
    mock.put(CONTAINER, status=202)
    mock.head(CONTAINER, status=204, headers=headers)
    with pytest.raises(StoreError, match=f"Container ipp-griffin-{UID} exists, but does not belong to this cluster"):
        store.publish(UID, {})
    assert {line.split()[0] for line in lines(mock)} == {"GET", "PUT", "HEAD"}
    assert sum(slept) <= 12


@pytest.mark.parametrize(
    "info", [{"swift": {}}, INFO | {"tempurl": {"methods": ["GET"]}}, INFO | {"tempurl": {"allowed_digests": ["md5"]}}]
)
def test_a_store_without_tempurl_is_unsupported_before_anything_is_made(
    mock: responses.RequestsMock, session: Any, info: dict[str, Any]
) -> None:
    with pytest.raises(Unsupported, match="has no TempURL"):
        store_with(mock, session, info).publish(UID, {})
    assert lines(mock) == ["GET /info"]


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_store_that_hides_its_info_is_taken_for_a_plain_swift(
    mock: responses.RequestsMock, session: Any, status: int
) -> None:
    mock.get(f"{STORE}/info", status=status)
    mock.head(CONTAINER, status=204, headers=OURS)
    store = Store(session, ACCOUNT, sleep=lambda s: None, clock=lambda: NOW)
    assert re.search("temp_url_sig=[0-9a-f]{64}&", store.get_url(UID, "x", 60))
    assert "urls" in store.report_urls(UID, f"{SET}/0.0/", 60)


@pytest.mark.parametrize(("status", "said"), [(413, "Upload exceeds quota"), (507, "Insufficient Storage")])
def test_where_there_is_no_room_one_can_make_some(
    mock: responses.RequestsMock, store: Store, status: int, said: str
) -> None:
    mock.put(f"{CONTAINER}/x", status=status, body=f"<html><h1>{said}.</h1></html>")
    with pytest.raises(
        QuotaError, match=f"{status}: {said}. Delete results that nobody needs .*, or ask for more quota"
    ):
        store.put(UID, "x", b"data")


# -- objects --------------------------------------------------------------------------------------------------


def test_put_sends_the_bytes_with_the_sessions_token_and_a_time_out(mock: responses.RequestsMock, store: Store) -> None:
    mock.put(f"{CONTAINER}/{SET}/connection.json", status=201)
    store.put(UID, f"{SET}/connection.json", b"\x00data")
    call = mock.calls[0]
    assert call.request.body == b"\x00data"
    assert as_text(call.request.headers["X-Auth-Token"]) == TOKEN
    assert call.request.req_kwargs["timeout"] == 60


def test_get_reads_no_more_than_its_limit(mock: responses.RequestsMock, store: Store) -> None:
    """Also where the store ignores the range."""
    mock.get(f"{CONTAINER}/x", body=b"a" * 1000)
    assert store.get(UID, "x", 10) == b"a" * 10
    assert as_text(mock.calls[0].request.headers["Range"]) == "bytes=0-9"
    assert store.get(UID, "x") == b"a" * 1000


def test_an_empty_object_reads_as_nothing(mock: responses.RequestsMock, store: Store) -> None:
    mock.get(f"{CONTAINER}/x", status=416)
    assert store.get(UID, "x") == b""


def test_a_missing_object_is_an_error_with_status_404(mock: responses.RequestsMock, store: Store) -> None:
    mock.get(f"{CONTAINER}/x", status=404, body="<html>\n<h1>Not Found</h1></html>", headers={"X-Trans-Id": "tx1"})
    with pytest.raises(StoreError, match=f"Can't read object ipp-griffin-{UID}/x: the cloud said 404: Not Found") as e:
        store.get(UID, "x")
    assert (e.value.status, e.value.request_id) == (404, "tx1")


def test_names_are_quoted(mock: responses.RequestsMock, store: Store) -> None:
    mock.put(f"{CONTAINER}/a%20b%3F%23%25/%C3%A9", status=201)
    store.put(UID, "a b?#%/é", b"")
    assert lines(mock) == [f"PUT /v1/AUTH_p1/ipp-griffin-{UID}/a%20b%3F%23%25/%C3%A9"]


def test_objects_come_from_all_pages(mock: responses.RequestsMock, session: Any) -> None:
    store = store_with(mock, session, {"swift": {"container_listing_limit": 2}})
    mock.get(CONTAINER, json=listing("a", "b"))
    mock.get(CONTAINER, json=listing("c"))
    assert store.objects(UID, "p/") == [StoredObject(n, 7, "2026-01-01T00:00:00.000000") for n in "abc"]
    assert lines(mock, 1) == [
        f"GET /v1/AUTH_p1/ipp-griffin-{UID}?format=json&limit=10000&prefix=p/",
        f"GET /v1/AUTH_p1/ipp-griffin-{UID}?format=json&marker=b&limit=10000&prefix=p/",
    ]


@pytest.fixture
def few_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundredth of what it is."""
    for module in (swift_module, store_module):
        monkeypatch.setattr(module, "MOST_LISTED", 1000)
    monkeypatch.setattr(store_module, "REPORTS_LISTED", 10)


class Flooded:
    """A container in which one server writes without end: its listing has no last page."""

    def __init__(self, mock: responses.RequestsMock, size: int, *, flood: str, others: tuple[str, ...] = ()) -> None:
        self.size, self.flood, self.others = size, flood, sorted(others)
        mock.add_callback(responses.GET, CONTAINER, self.page)

    def page(self, request: PreparedRequest) -> Answer:
        marker = parse_qs(urlsplit(request.url or "").query).get("marker", [""])[0]
        number = int(marker.removeprefix(self.flood).partition("-")[0]) + 1 if marker.startswith(self.flood) else 10**8
        names = [f"{self.flood}{n:09d}-agent" for n in range(number, number + self.size)]
        found = sorted(name for name in [*names, *self.others] if name > marker)
        return 200, {}, json.dumps(listing(*found[: self.size]))


def test_a_listing_without_end_is_given_up_and_said(
    mock: responses.RequestsMock, session: Any, caplog: pytest.LogCaptureFixture, few_are_many: None
) -> None:
    Flooded(mock, 100, flood="a-name-that-is-no-reports/")
    store = store_with(mock, session, {"swift": {"container_listing_limit": 100}})
    assert len(store.objects(UID)) == 1000
    assert len(lines(mock)) == 11
    assert "there are more than 1000 entries" in caplog.text


def test_a_server_that_floods_the_container_hides_no_other_ones_reports(
    mock: responses.RequestsMock, session: Any, few_are_many: None
) -> None:
    """And a poll takes one page more for each that does."""
    others = (f"{SET}/1.0/0000-agent", f"{SET}/3.00/0000-agent", f"{SET}/3.1/0000-agent", f"{SET}/30.0/0000-agent")
    Flooded(mock, 100, flood=f"{SET}/3.0/", others=others)
    found = store_with(mock, session, {"swift": {"container_listing_limit": 100}}).reports(UID, SET)
    assert {report.place for report in found} == {Place(SET, 1), Place(SET, 3), Place(SET, 3, 1), Place(SET, 30)}
    assert len(lines(mock)) == 3


def test_a_page_that_ends_within_a_servers_few_reports_skips_none(mock: responses.RequestsMock, session: Any) -> None:
    store = store_with(mock, session, {"swift": {"container_listing_limit": 2}})
    mock.get(CONTAINER, json=listing(f"{SET}/0.0/0000-agent", f"{SET}/0.0/0001-connected"))
    mock.get(CONTAINER, json=listing(f"{SET}/0.0/0002-engines"))
    assert [report.phase for report in store.reports(UID, SET)] == ["agent", "connected", "engines"]
    assert f"marker={SET}/0.0/0001-connected" in lines(mock)[-1]


def test_no_container_has_no_objects(mock: responses.RequestsMock, store: Store) -> None:
    mock.get(CONTAINER, status=404)
    assert store.objects(UID) == []
    assert store.reports(UID, SET) == []


def test_containers_are_those_of_our_prefix(mock: responses.RequestsMock, store: Store) -> None:
    mock.get(ACCOUNT, json=listing(f"ipp-griffin-{UID}", "ipp-griffin-x"))
    assert store.containers() == [UID, "x"]
    assert "prefix=ipp-griffin-" in lines(mock)[1]


def test_the_prefix_of_containers_is_a_setting(mock: responses.RequestsMock, session: Any) -> None:
    store = store_with(mock, session, INFO, prefix="lab7")
    mock.put(f"{ACCOUNT}/lab7-{UID}/x", status=201)
    store.put(UID, "x", b"")
    assert container_name(UID, "lab7") == f"lab7-{UID}"


# -- failures that any call may meet ----------------------------------------------------------------------------


@pytest.mark.parametrize("status", [429, 498])  # 498 is Swift's own for it
def test_a_pause_that_one_call_was_asked_for_is_kept_by_all(
    mock: responses.RequestsMock, session: Any, slept: list[float], status: int
) -> None:
    store = Store(session, ACCOUNT, retries=0, sleep=slept.append, clock=lambda: NOW + sum(slept))
    mock.put(f"{CONTAINER}/x", status=status, headers={"Retry-After": "7"})
    mock.put(f"{CONTAINER}/y", status=201)
    with pytest.raises(StoreUnavailable):
        store.put(UID, "x", b"data")  # who was told gives up, without a pause
    assert slept == []
    for _ in range(2):
        store.put(UID, "y", b"data")
        assert slept == [7]


@pytest.mark.parametrize("status", [429, 498, 500, 502, 503, 504])
def test_what_fails_for_now_is_repeated(
    mock: responses.RequestsMock, session: Any, slept: list[float], status: int
) -> None:
    store = Store(session, ACCOUNT, sleep=slept.append, clock=lambda: NOW + sum(slept))
    mock.put(f"{CONTAINER}/x", status=status, headers={"Retry-After": "9"})
    mock.put(f"{CONTAINER}/x", status=201)
    store.put(UID, "x", b"data")
    assert 9 <= sum(slept) < 10
    assert mock.calls[1].request.body == b"data"


@pytest.mark.parametrize("failure", [Dropped("reset"), ReadTimeout("slow")])
def test_a_dropped_connection_or_a_time_out_is_repeated(
    mock: responses.RequestsMock, store: Store, slept: list[float], failure: Exception
) -> None:
    mock.get(f"{CONTAINER}/x", body=failure)
    mock.get(f"{CONTAINER}/x", body=b"data")
    assert store.get(UID, "x") == b"data"
    assert len(slept) == 1


def test_what_fails_for_good_is_unavailable_and_a_store_error(
    mock: responses.RequestsMock, store: Store, slept: list[float]
) -> None:
    mock.get(f"{CONTAINER}/x", status=503, body="<html><h1>Service Unavailable</h1></html>")
    with pytest.raises(StoreUnavailable, match="the cloud said 503: Service Unavailable. Try again later") as error:
        store.get(UID, "x")
    assert isinstance(error.value, StoreError) and isinstance(error.value, Unavailable)
    assert len(slept) == 4


@pytest.mark.parametrize("body", ["", "<html>captive portal</html>", "{", "[7]", '{"a": 1}', '[{"bytes": 1}]'])
def test_a_malformed_listing_is_one_clear_error(mock: responses.RequestsMock, store: Store, body: str) -> None:
    mock.get(CONTAINER, body=body)
    with pytest.raises(StoreUnavailable, match=f"Can't list container ipp-griffin-{UID}") as error:
        store.objects(UID)
    assert "\n" not in str(error.value)


def test_a_refused_token_is_renewed_once(mock: responses.RequestsMock, store: Store) -> None:
    mock.get(f"{CONTAINER}/x", status=401)
    mock.get(f"{CONTAINER}/x", body=b"data")
    assert store.get(UID, "x") == b"data"
    assert [line.split()[0] for line in lines(mock)] == ["GET", "POST", "GET"]


def test_a_token_that_is_refused_again_is_a_credentials_error(mock: responses.RequestsMock, store: Store) -> None:
    mock.get(f"{CONTAINER}/x", status=401, body="<html><h1>Unauthorized</h1></html>")
    with pytest.raises(CredentialsError, match="401: Unauthorized"):
        store.get(UID, "x")
    assert len(mock.calls) == 3


def test_revoked_credentials_are_a_credentials_error(mock: responses.RequestsMock, store: Store) -> None:
    mock.get(f"{CONTAINER}/x", status=401)
    mock.replace(responses.POST, f"{AUTH}/auth/tokens", status=401, json={"error": {"message": "Expired"}})
    with pytest.raises(CredentialsError, match="Expired"):
        store.get(UID, "x")


def test_a_reader_gets_the_stores_no(mock: responses.RequestsMock, store: Store) -> None:
    mock.put(f"{CONTAINER}/x", status=403, body="<html><h1>Forbidden</h1>Access was denied</html>")
    with pytest.raises(StoreError, match="Access was denied. These credentials lack the role"):
        store.put(UID, "x", b"")


def test_many_threads_may_share_a_store(mock: responses.RequestsMock, store: Store) -> None:
    mock.get(f"{CONTAINER}/x", body=b"data")
    got: list[bytes] = []
    threads = [threading.Thread(target=lambda: got.append(store.get(UID, "x"))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert got == [b"data"] * 8


def test_no_token_key_or_signature_gets_into_any_log_or_error(
    mock: responses.RequestsMock, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    mock.put(CONTAINER, status=202, headers={"X-Container-Meta-Temp-Url-Key": KEY})
    mock.put(CONTAINER, status=201)
    mock.head(CONTAINER, status=204, headers=OURS)
    mock.post(CONTAINER, status=400, body=f"bad header X-Container-Meta-Temp-URL-Key: {KEY}")
    mock.get(f"{CONTAINER}/x", status=404)
    store.publish(UID, {})
    url = store.get_url(UID, "x", 60)
    urls = store.report_urls(UID, f"{SET}/0.0/", 60)
    with pytest.raises(StoreError):
        store.get(UID, "x")
    with pytest.raises(StoreError, match="bad header") as error:
        store.publish(UID, {})
    said = caplog.text + str(error.value)
    signed = [parse_qs(text)["temp_url_sig"][0] for text in (urlsplit(url).query, urls["query"])]
    for secret in (TOKEN, TOKEN[:16], KEY, KEY[:8], *signed):
        assert secret not in said
    assert "404" in said


def test_other_users_of_swiftclient_keep_their_log(
    mock: responses.RequestsMock, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    mock.get(f"{CONTAINER}/x", body=b"data")
    store.get(UID, "x")
    logging.getLogger("swiftclient").info("not ours")
    assert "not ours" in caplog.text


# -- URLs -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("allowed", "digest"),
    [(["sha1", "sha512", "sha256"], "sha256"), (["sha1", "sha512"], "sha512"), (["sha1"], "sha1"), (None, "sha1")],
)
def test_the_digest_is_the_best_that_the_store_takes(
    mock: responses.RequestsMock, session: Any, allowed: list[str] | None, digest: str
) -> None:
    tempurl = {"methods": ["GET", "PUT"]} | ({"allowed_digests": allowed} if allowed else {})
    store = store_with(mock, session, INFO | {"tempurl": tempurl})
    mock.head(CONTAINER, status=204, headers=OURS)
    expected = signature(f"GET\n{NOW + 60}\n/v1/AUTH_p1/ipp-griffin-{UID}/x", digest)
    assert store.get_url(UID, "x", 60) == f"{CONTAINER}/x?temp_url_sig={expected}&temp_url_expires={NOW + 60}"


def test_urls_expire_by_the_stores_clock(mock: responses.RequestsMock, store: Store) -> None:
    mock.head(CONTAINER, status=204, headers=OURS)
    assert f"temp_url_expires={NOW + 60}" in store.get_url(UID, "x", 60)


def test_the_signature_is_over_the_plain_path_and_the_url_is_quoted(mock: responses.RequestsMock, store: Store) -> None:
    mock.head(CONTAINER, status=204, headers=OURS)
    url = store.get_url(UID, "a b/é%", 60)
    assert urlsplit(url).path == f"/v1/AUTH_p1/ipp-griffin-{UID}/a%20b/%C3%A9%25"
    assert signature(f"GET\n{NOW + 60}\n/v1/AUTH_p1/ipp-griffin-{UID}/a b/é%") in url


@pytest.mark.parametrize(
    ("address", "account"),
    [
        ("https://inside:8443", "https://inside:8443/v1/AUTH_p1"),
        ("https://inside:8443/v1", "https://inside:8443/v1/AUTH_p1"),  # Swift's admin endpoint, by its guide
        ("https://inside:8443/proxy", "https://inside:8443/proxy/v1/AUTH_p1"),
        ("https://inside:8443/proxy/v1/AUTH_p1/", "https://inside:8443/proxy/v1/AUTH_p1"),
        ("https://inside:8443/proxy/v1", "https://inside:8443/proxy/v1/AUTH_p1"),
    ],
)
def test_servers_may_know_the_store_by_another_address(
    mock: responses.RequestsMock, session: Any, address: str, account: str
) -> None:
    store = store_with(mock, session, INFO, servers_url=address)
    mock.head(CONTAINER, status=204, headers=OURS)
    url = store.get_url(UID, "x", 60)
    assert url.startswith(f"{account}/ipp-griffin-{UID}/x?")
    assert signature(f"GET\n{NOW + 60}\n/v1/AUTH_p1/ipp-griffin-{UID}/x") in url
    assert store.report_urls(UID, "p/", 60)["prefix"] == f"{account}/ipp-griffin-{UID}/p/"


@pytest.mark.parametrize("inside", ["http://inside/v1/AUTH_p1", "http://inside/v1"])
def test_a_proxy_before_swift_is_no_part_of_what_is_signed(
    mock: responses.RequestsMock, session: Any, inside: str
) -> None:
    outside = ACCOUNT.replace("/v1/", "/object-store/v1/")
    mock.get(f"{STORE}/object-store/info", json=INFO)
    mock.head(f"{outside}/ipp-griffin-{UID}", status=204, headers=OURS)
    store = Store(session, outside, sleep=lambda seconds: None, clock=lambda: NOW, servers_url=inside)
    url = store.get_url(UID, "x", 60)
    assert url.startswith(f"http://inside/v1/AUTH_p1/ipp-griffin-{UID}/x?")
    assert signature(f"GET\n{NOW + 60}\n/v1/AUTH_p1/ipp-griffin-{UID}/x") in url


def test_reports_go_to_one_prefix_only(mock: responses.RequestsMock, store: Store) -> None:
    mock.head(CONTAINER, status=204, headers=OURS)
    prefix = f"{SET}/3.1/"
    expected = signature(f"PUT\n{NOW + 60}\nprefix:/v1/AUTH_p1/ipp-griffin-{UID}/{prefix}")
    assert store.report_urls(UID, prefix, 60) == {
        "prefix": f"{CONTAINER}/{prefix}",
        "query": f"temp_url_sig={expected}&temp_url_expires={NOW + 60}&temp_url_prefix={quote(prefix, safe='')}",
    }


@pytest.mark.parametrize("version", ["2.11.0", "1.13", "", "ceph version 18.2.0 reef", None])
def test_without_prefix_urls_there_is_one_url_for_each_phase(
    mock: responses.RequestsMock, session: Any, version: str | None
) -> None:
    store = store_with(mock, session, INFO | {"swift": {"version": version}})
    mock.head(CONTAINER, status=204, headers=OURS)
    urls = store.report_urls(UID, f"{SET}/0.0/", 60)["urls"]
    assert {phase: urlsplit(url).path.rsplit("/", 1)[1] for phase, url in urls.items()} == {
        "agent": "0000-agent",
        "connected": "0001-connected",
        "engines": "0002-engines",
        "gone": "0003-gone",
        "failed": "0004-failed",
        "log": "0005-log",
    }
    assert signature(f"PUT\n{NOW + 60}\n/v1/AUTH_p1/ipp-griffin-{UID}/{SET}/0.0/0000-agent") in urls["agent"]


@pytest.mark.parametrize(
    ("status", "headers", "says"), [(404, {}, "There is no container"), (204, {}, "does not belong to this cluster")]
)
def test_there_is_no_url_into_a_container_that_is_not_ours(
    mock: responses.RequestsMock, store: Store, status: int, headers: dict[str, str], says: str
) -> None:
    mock.head(CONTAINER, status=status, headers=headers)
    with pytest.raises(StoreError, match=says):
        store.get_url(UID, "x", 60)


# -- reports --------------------------------------------------------------------------------------------------


def test_all_reports_of_a_set_take_one_listing(mock: responses.RequestsMock, store: Store) -> None:
    names = (
        f"{SET}/1.0/0000-agent",
        f"{SET}/0.0/0001-connected",
        f"{SET}/0.0/0000-agent",
        f"{SET}/connection.json",
        f"{SET}/0.0/0002-log",
        "x",
    )
    mock.get(CONTAINER, json=listing(*names))
    store.objects(UID)
    mock.calls.reset()
    found = store.reports(UID, SET)
    assert found == [
        Report(Place(SET, 0), 0, "agent"),
        Report(Place(SET, 0), 1, "connected"),
        Report(Place(SET, 1), 0, "agent"),
    ]
    assert {report.written for report in found} == {"2026-01-01T00:00:00.000000"}
    assert lines(mock) == [f"GET /v1/AUTH_p1/ipp-griffin-{UID}?format=json&limit=10000&prefix={SET}/"]
    assert store.reports(UID, SET, logs=True)[2] == Report(Place(SET, 0), 2, "log")


@pytest.mark.parametrize(
    ("body", "read"),
    [(b'{"message": "no\\nway"}', {"message": "no way", "engines": []}), (b'{"message": "' + b"x" * (1 << 20), {})],
)
def test_a_report_is_read_up_to_a_limit_and_made_harmless(
    mock: responses.RequestsMock, store: Store, body: bytes, read: dict[str, Any]
) -> None:
    report = Report(Place(SET, 0), 0, "failed")
    mock.get(f"{CONTAINER}/{report.name}", body=body)
    assert store.read_report(UID, report) == read


def test_a_report_that_is_gone_reads_as_nothing(mock: responses.RequestsMock, store: Store) -> None:
    report = Report(Place(SET, 0), 0, "failed")
    mock.get(f"{CONTAINER}/{report.name}", status=404)
    assert store.read_report(UID, report) == {}


# -- deleting -------------------------------------------------------------------------------------------------


def bulk_answer(status: str = "200 OK", errors: list[list[str]] | None = None) -> dict[str, Any]:
    return {"Response Status": status, "Number Deleted": 1, "Number Not Found": 1, "Errors": errors or []}


def test_many_objects_are_deleted_with_one_request(mock: responses.RequestsMock, store: Store) -> None:
    mock.get(CONTAINER, json=listing("p/a b", "p/c"))
    mock.post(ACCOUNT, json=bulk_answer())
    store.delete_prefix(UID, "p/")
    assert lines(mock)[-1] == "POST /v1/AUTH_p1?bulk-delete"
    assert mock.calls[-1].request.body == f"ipp-griffin-{UID}/p/a%20b\nipp-griffin-{UID}/p/c\n".encode()


@pytest.mark.parametrize(
    "answer", [bulk_answer("400 Bad Request", [["x", "409 Conflict"]]), {}, [], bulk_answer("502 Bad Gateway")]
)
def test_what_a_bulk_delete_leaves_is_deleted_one_by_one(
    mock: responses.RequestsMock, store: Store, answer: Any
) -> None:
    mock.get(CONTAINER, json=listing("a", "b"))
    mock.post(ACCOUNT, json=answer)
    mock.delete(f"{CONTAINER}/a", status=204)
    mock.delete(f"{CONTAINER}/b", status=404)
    store.delete_prefix(UID, "")
    assert sum(line.startswith("DELETE") for line in lines(mock)) == 2


def test_without_bulk_delete_every_object_is_tried_and_the_first_failure_raised(
    mock: responses.RequestsMock, session: Any
) -> None:
    store = store_with(mock, session, {"swift": {}})
    mock.get(CONTAINER, json=listing("a", "b", "c"))
    mock.delete(f"{CONTAINER}/a", status=403, body="no")
    mock.delete(f"{CONTAINER}/b", status=204)
    mock.delete(f"{CONTAINER}/c", status=404)
    with pytest.raises(StoreError, match=f"Can't delete object ipp-griffin-{UID}/a: the cloud said 403"):
        store.delete_prefix(UID, "")
    assert sum(line.startswith("DELETE") for line in lines(mock)) == 3


@pytest.mark.parametrize("name", ["s/0.0/../../../victim/object", "s/0.0/./x", ".."])
@pytest.mark.parametrize("bulk", [True, False])
def test_a_name_that_would_be_another_objects_in_a_url_is_never_in_one(
    mock: responses.RequestsMock, session: Any, name: str, bulk: bool
) -> None:
    store = store_with(mock, session, INFO if bulk else {"swift": {}})
    mock.get(CONTAINER, json=listing(name))
    mock.post(ACCOUNT, json=bulk_answer())
    if bulk:
        store.delete_prefix(UID, "")
        assert mock.calls[-1].request.body == f"ipp-griffin-{UID}/{name}\n".encode()
    else:
        with pytest.raises(StoreError, match="its name can't be part of a URL"):
            store.delete_prefix(UID, "")
    assert [line for line in lines(mock) if line.startswith("DELETE")] == []


def test_a_container_is_deleted_with_all_that_is_in_it(mock: responses.RequestsMock, store: Store) -> None:
    mock.head(CONTAINER, status=204, headers=OURS)
    mock.get(CONTAINER, json=listing("a"))
    mock.delete(f"{CONTAINER}/a", status=204)
    mock.delete(CONTAINER, status=204)
    assert store.delete_container(UID) is True
    assert [line.split()[0] for line in lines(mock)] == ["HEAD", "GET", "GET", "DELETE", "DELETE"]


def test_a_container_with_more_than_one_listing_shows_is_emptied_in_rounds(
    mock: responses.RequestsMock, session: Any, few_are_many: None
) -> None:
    there = [f"{SET}/0.0/{n:09d}-agent" for n in range(1050)]

    def page(request: PreparedRequest) -> Answer:
        marker = parse_qs(urlsplit(request.url or "").query).get("marker", [""])[0]
        return 200, {}, json.dumps(listing(*[name for name in there if name > marker][:100]))

    def bulk(request: PreparedRequest) -> Answer:
        gone = {line.partition("/")[2] for line in as_text(request.body or "").splitlines()}
        there[:] = [name for name in there if name not in gone]
        return 200, {}, json.dumps(bulk_answer())

    info = {**INFO, "swift": {"version": "2.38.3", "container_listing_limit": 100}}
    store = store_with(mock, session, info)
    mock.head(CONTAINER, status=204, headers=OURS)
    mock.add_callback(responses.GET, CONTAINER, page)
    mock.add_callback(responses.POST, ACCOUNT, bulk)
    mock.delete(CONTAINER, status=204)
    assert store.delete_container(UID) is True
    assert there == []


def test_a_container_that_is_not_there_is_not_deleted(mock: responses.RequestsMock, store: Store) -> None:
    mock.head(CONTAINER, status=404)
    assert store.delete_container(UID) is True  # there is none
    assert store.remove_if_empty(UID) is True
    assert {line.split()[0] for line in lines(mock)} == {"HEAD"}


def test_a_container_that_somebody_else_just_deleted_counts_as_deleted(
    mock: responses.RequestsMock, store: Store
) -> None:
    mock.head(CONTAINER, status=204, headers=OURS)
    mock.get(CONTAINER, status=404)
    mock.delete(CONTAINER, status=404)
    assert store.delete_container(UID) is True


def test_a_container_with_another_marker_is_never_deleted(mock: responses.RequestsMock, store: Store) -> None:
    mock.head(CONTAINER, status=204, headers={"X-Container-Meta-Ipp-Griffin": "another"})
    assert store.delete_container(UID) is True  # the cluster has none
    assert store.remove_if_empty(UID) is False
    assert {line.split()[0] for line in lines(mock)} == {"HEAD"}


def test_of_unmarked_containers_only_an_empty_one_is_deleted(
    mock: responses.RequestsMock, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    """It is what a process leaves that ends between making the container and marking it."""
    mock.head(CONTAINER, status=204)
    mock.delete(CONTAINER, status=204)
    mock.delete(CONTAINER, status=409)
    assert store.delete_container(UID) is True
    assert store.delete_container(UID) is True
    assert [line.split()[0] for line in lines(mock)] == ["HEAD", "DELETE"] * 2
    assert "exists, but does not belong to this cluster" in caplog.text  # the second


def test_of_an_empty_unmarked_container_it_is_known_when_it_was_made(
    mock: responses.RequestsMock, store: Store
) -> None:
    bare = {"X-Timestamp": "1700000000.12345", "X-Container-Object-Count": "0"}
    for headers in (bare, {**bare, **OURS}, {**bare, "X-Container-Object-Count": "1"}, {**bare, "X-Timestamp": "soon"}):
        mock.head(CONTAINER, status=204, headers=headers)
    mock.head(CONTAINER, status=404)
    assert [store.made_at(UID) for _ in range(5)] == [1700000000.12345, None, None, None, None]


def test_a_report_written_while_deleting_is_deleted_too_and_its_url_is_ended(
    mock: responses.RequestsMock, store: Store, slept: list[float]
) -> None:
    mock.head(CONTAINER, status=204, headers=OURS)
    mock.get(CONTAINER, json=[])
    mock.get(CONTAINER, json=listing("late"))
    mock.delete(f"{CONTAINER}/late", status=204)
    mock.delete(CONTAINER, status=409)
    mock.delete(CONTAINER, status=204)
    mock.post(CONTAINER, status=204)
    assert store.delete_container(UID) is True
    post = next(call.request for call in mock.calls if call.request.method == "POST")
    assert "x-remove-container-meta-temp-url-key" in {as_text(name).lower() for name in post.headers}
    assert len(slept) == 1


def test_a_container_that_stays_full_is_given_up_after_some_tries(
    mock: responses.RequestsMock, store: Store, slept: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    """An expired object stays listed for a while, and its container can't be deleted."""
    mock.head(CONTAINER, status=204, headers=OURS)
    mock.get(CONTAINER, json=listing("expired"))
    mock.delete(f"{CONTAINER}/expired", status=404)
    mock.delete(CONTAINER, status=409)
    mock.post(CONTAINER, status=204)
    assert store.delete_container(UID) is False
    assert len(slept) == 5
    assert "still there" in caplog.text


@pytest.mark.parametrize(("status", "removed"), [(204, True), (409, False)])
def test_only_an_empty_container_is_removed_if_empty(
    mock: responses.RequestsMock, store: Store, status: int, removed: bool
) -> None:
    mock.head(CONTAINER, status=204, headers=OURS)
    mock.delete(CONTAINER, status=status)
    assert store.remove_if_empty(UID) is removed
    assert [line.split()[0] for line in lines(mock)] == ["HEAD", "DELETE"]


def test_a_container_that_was_made_and_could_not_be_marked_is_removed(
    mock: responses.RequestsMock, store: Store
) -> None:
    mock.put(CONTAINER, status=201)
    mock.post(CONTAINER, status=403)
    mock.head(CONTAINER, status=204)
    mock.delete(CONTAINER, status=204)
    assert store.remove_if_empty(UID) is False  # somebody else's, as far as we know
    with pytest.raises(StoreError, match="Can't mark container"):
        store.publish(UID, {})
    assert store.remove_if_empty(UID) is True


def test_a_deleted_containers_key_is_forgotten(mock: responses.RequestsMock, store: Store) -> None:
    """The next container of that uid has another."""
    mock.head(CONTAINER, status=204, headers=OURS)
    mock.delete(CONTAINER, status=204)
    before = store.get_url(UID, "x", 60)
    store.remove_if_empty(UID)
    mock.replace(responses.HEAD, CONTAINER, status=204, headers=OURS | {"X-Container-Meta-Temp-Url-Key": "new"})
    assert store.get_url(UID, "x", 60) != before


def test_info_is_found_beside_the_account_wherever_that_is(mock: responses.RequestsMock, session: Any) -> None:
    seen: list[str] = []

    def info(request: PreparedRequest) -> Answer:
        seen.append(urlsplit(request.url or "").path)
        return 200, {}, json.dumps(INFO)

    mock.add_callback(responses.GET, re.compile(r".*/info$"), info)
    for url in (f"{STORE}/v1/AUTH_p1", f"{STORE}/swift/v1/AUTH_p1", f"{STORE}/swift/v1", f"{STORE}/v1.0/AUTH_p1/"):
        with pytest.raises(StoreError, match="no container"):
            mock.head(re.compile(".*"), status=404)
            Store(session, url).get_url(UID, "x", 1)
    assert seen == ["/info", "/swift/info", "/swift/info", "/info"]
