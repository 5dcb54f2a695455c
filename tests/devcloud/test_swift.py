"""The object store over HTTP, with the clients' libraries."""

import hashlib
from urllib.parse import quote, urlsplit

import pytest
import swiftclient
from swiftclient.utils import generate_temp_url


@pytest.fixture
def swift(connection):
    opened = swiftclient.Connection(session=connection.session, retries=0)
    yield opened
    opened.close()


def test_swiftclient_stores_lists_reads_and_deletes(swift):
    swift.put_container("box", {"X-Container-Meta-Owner": "me"})
    for name in ("b", "set/a b", "set/é"):
        swift.put_object("box", name, f"content of {name}", content_type="text/plain")
    headers, listing = swift.get_container("box", prefix="set/")
    assert headers["x-container-meta-owner"] == "me" and headers["x-container-object-count"] == "3"
    assert [row["name"] for row in listing] == ["set/a b", "set/é"]
    assert [row.get("subdir") or row["name"] for row in swift.get_container("box", delimiter="/")[1]] == ["b", "set/"]
    assert [row["name"] for row in swift.get_container("box", limit=1, full_listing=True)[1]] == [
        "b",
        "set/a b",
        "set/é",
    ]
    headers, body = swift.get_object("box", "set/é")
    assert body.decode() == "content of set/é"
    assert headers["etag"] == hashlib.md5(body).hexdigest() and "last-modified" in headers and "date" in headers
    assert [row["name"] for row in swift.get_account()[1]] == ["box"]
    with pytest.raises(swiftclient.ClientException) as refused:
        swift.delete_container("box")
    assert refused.value.http_status == 409
    answer = swift.post_account(
        {}, query_string="bulk-delete", data="box/b\nbox/set%2Fa%20b\nbox/set/%C3%A9\nbox/no\nbox\n"
    )
    assert b'"Number Deleted": 4, "Number Not Found": 1' in answer[1]
    assert swift.get_account()[1] == []


def test_container_metadata_is_added_changed_and_removed(swift):
    swift.put_container("box", {"X-Container-Meta-Temp-URL-Key": "one", "X-Container-Meta-X": "1"})
    swift.post_container("box", {"X-Container-Meta-Temp-URL-Key-2": "two", "X-Remove-Container-Meta-X": "x"})
    headers = swift.head_container("box")
    assert headers["x-container-meta-temp-url-key"] == "one" and headers["x-container-meta-temp-url-key-2"] == "two"
    assert "x-container-meta-x" not in headers


def test_putting_a_container_again_is_accepted(http, swift):
    path = urlsplit(swift.get_auth()[0]).path
    assert [http("PUT", f"{path}/box").status_code for _ in range(2)] == [201, 202]


@pytest.mark.parametrize(
    ("method", "what", "headers", "status"),
    [
        ("GET", "/none", {}, 404),
        ("PUT", "/none/a", {}, 404),
        ("GET", "/box/none", {}, 404),
        ("DELETE", "/box/none", {}, 404),
        ("GET", "/box?limit=10001", {}, 412),
        ("PUT", "/" + "x" * 257, {}, 400),
        ("GET", "/box/a", {"X-Auth-Token": "no"}, 401),
    ],
)
def test_refusals_have_swifts_status_a_page_and_a_transaction_id(http, swift, method, what, headers, status):
    swift.put_container("box")
    swift.put_object("box", "a", b"x")
    reply = http(method, urlsplit(swift.get_auth()[0]).path + what, headers=headers)
    assert reply.status_code == status
    assert reply.headers["Content-Type"] == "text/html; charset=UTF-8"
    assert reply.headers["X-Trans-Id"] == reply.headers["X-Openstack-Request-Id"]


@pytest.mark.parametrize(("what", "method"), [("/new", "PUT"), ("/box/new", "PUT"), ("/box", "POST")])
def test_what_is_refused_is_not_done(http, swift, what, method):
    swift.put_container("box")
    path = urlsplit(swift.get_auth()[0]).path + what
    kind = "Object" if what.count("/") > 1 else "Container"
    assert http(method, path, headers={f"X-{kind}-Meta-A": "x" * 257}).status_code == 400
    there = http("HEAD", path)
    assert there.status_code == (204 if what == "/box" else 404)
    assert f"X-{kind}-Meta-A" not in there.headers


def test_a_fault_refuses_what_is_of_no_account_too(dev, http):
    dev.faults.set(service="object-store", status=401)
    assert http("GET", "/info").status_code == 401


def test_another_projects_account_is_forbidden(http):
    assert http("GET", "/v1/AUTH_somebody").status_code == 403


def test_an_agent_reads_and_reports_by_temp_urls_without_a_token(http, swift):
    swift.put_container("box", {"X-Container-Meta-Temp-URL-Key": "k"})
    swift.put_object("box", "set/a b", b"secret")
    account = urlsplit(swift.get_auth()[0]).path
    get = generate_temp_url(f"{account}/box/set/a b", 60, "k", "GET")
    quoted = quote(get.partition("?")[0]) + "?" + get.partition("?")[2]
    assert http("GET", quoted, token="").content == b"secret"
    assert http("HEAD", quoted, token="").headers["Content-Length"] == "6"
    assert http("PUT", quoted, token="", data=b"x").status_code == 401
    put = generate_temp_url(f"{account}/box/set/0.0/", 60, "k", "PUT", prefix=True)
    path, _, query = put.partition("?")
    assert http("PUT", f"{path}0001-agent?{query}", token="", data=b"{}").status_code == 201
    assert http("GET", f"{path}0001-agent?{query}", token="").status_code == 401
    assert http("GET", f"{account}/box/set/a%20b", token="").status_code == 401
    assert [row["name"] for row in swift.get_container("box")[1]] == ["set/0.0/0001-agent", "set/a b"]


@pytest.mark.parametrize(("quota", "bodies"), [({"Count": "2"}, ["a", "b", "c"]), ({"Bytes": "5"}, ["abc", "de", "f"])])
def test_a_container_takes_no_more_than_its_quota_also_by_temp_urls(http, swift, quota, bodies):
    headers = {f"X-Container-Meta-Quota-{kind}": value for kind, value in quota.items()}
    swift.put_container("box", {"X-Container-Meta-Temp-URL-Key": "k", **headers})
    account = urlsplit(swift.get_auth()[0]).path
    path, _, query = generate_temp_url(f"{account}/box/set/", 60, "k", "PUT", prefix=True).partition("?")
    for number, body in enumerate(bodies):
        reply = http("PUT", f"{path}{number}?{query}", token="", data=body)
        assert reply.status_code == (201 if number < 2 else 413)
    assert reply.text == "Upload exceeds quota."
    assert http("PUT", f"{account}/box/mine", data="abcdef").status_code == 413
    assert http("PUT", f"{path}x", token="", data="abcdef").status_code == 401


def test_an_object_is_as_large_as_info_says_and_no_larger(http, swift):
    swift.put_container("box")
    largest = http("GET", "/info").json()["swift"]["max_file_size"]
    path = f"{urlsplit(swift.get_auth()[0]).path}/box/a"
    body = bytes(largest + 1)
    refused = http("PUT", path, data=body)
    assert (refused.status_code, refused.text) == (413, "Your request is too large.")
    assert http("HEAD", path).status_code == 404
    assert http("PUT", path, data=memoryview(body)[1:]).status_code == 201
    assert http("HEAD", path).headers["Content-Length"] == str(largest)


@pytest.mark.parametrize("kind", ["Bytes", "Count"])
def test_a_quota_is_a_number(http, swift, kind):
    swift.put_container("box")
    path = urlsplit(swift.get_auth()[0]).path
    for method, name in (("PUT", "new"), ("POST", "box")):
        reply = http(method, f"{path}/{name}", headers={f"X-Container-Meta-Quota-{kind}": "much"})
        assert (reply.status_code, reply.text) == (400, f"Invalid {kind.lower()} quota.")


def test_the_sdk_stores_and_lists(connection):
    connection.object_store.create_container("box")
    connection.object_store.upload_object("box", "a", data=b"hello")
    assert [o.name for o in connection.object_store.objects("box")] == ["a"]
    assert connection.object_store.download_object("a", "box") == b"hello"
    assert connection.object_store.get_info().tempurl["allowed_digests"] == ["sha1", "sha256", "sha512"]
