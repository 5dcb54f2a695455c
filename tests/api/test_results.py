"""`Results` and its `Uploader` on a dev cloud: what is stored is whole, what failed is not there, and an uploader only stores."""

import contextlib
import hashlib
import json
import os
import pickle
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from datetime import timedelta
from pathlib import Path

import ipyparallel as ipp
import pytest
import swiftclient.client

import ipp_griffin
from ipp_griffin.agent.uploader import Content, Uploader
from ipp_griffin.api.results import NAME, Results
from ipp_griffin.cli.results import ListResults
from ipp_griffin.common.errors import CloudError, SettingError, StoreUnavailable
from ipp_griffin.common.times import timestamp
from ipp_griffin.devcloud.things import Container

from ..conftest import running_cloud
from ..tls import Authority, tls_in_front_of

UID, OTHER = "0123456789ab", "ba9876543210"
STORE = "object-store"


@pytest.fixture(scope="module")
def devcloud(tmp_path_factory):
    with running_cloud(tmp_path_factory.mktemp("results")) as cloud:
        yield cloud


@pytest.fixture
def clean(devcloud):
    """The dev cloud, without results."""
    yield devcloud
    devcloud.faults.clear()
    for project, name in list(devcloud.state.containers):
        devcloud.state.containers.pop((project, name))


@pytest.fixture
def results(clean, monkeypatch):
    """Those of a cluster; its connection pauses for nobody."""
    results = Results(UID)
    results._store.account.sleep = lambda seconds: None
    return results


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "here" / "table.csv"
    path.parent.mkdir()
    path.write_bytes(b"1,2\n" * 100_000)
    return path


def patient(upload: Uploader) -> Uploader:
    """The same uploader, without pauses."""
    upload._sleep = lambda seconds: None
    return upload


def names(results):
    return [one.name for one in results.all()]


# -- storing and fetching


def test_a_file_is_stored_below_its_clusters_uid_and_comes_back_whole(results, table, tmp_path):
    assert results.put(table) == f"{UID}/table.csv"
    (found,) = results.all()
    assert (found.name, found.cluster, found.bytes) == (f"{UID}/table.csv", UID, 400_000)
    assert found.md5 == hashlib.md5(table.read_bytes()).hexdigest()
    fetched = results.get("table.csv", tmp_path / "copy.csv")
    assert fetched == tmp_path / "copy.csv" and fetched.read_bytes() == table.read_bytes()
    assert results.read(f"{UID}/table.csv") == table.read_bytes()


def test_bytes_have_a_name_of_their_choice(results):
    assert results.put(b"", "run 1/é.npy") == f"{UID}/run 1/é.npy"
    assert results.read("run 1/é.npy") == b""
    assert Results().read(f"{UID}/run 1/é.npy") == b""


def test_without_a_cluster_there_are_all_results_of_the_project(results):
    results.put(b"a", "x")
    everything = Results()
    assert everything.put(b"b", "y") == "y"
    assert names(everything) == [f"{UID}/x", "y"]
    assert [one.cluster for one in everything.all()] == [UID, ""]
    assert names(results) == [f"{UID}/x"]
    assert names(Results(OTHER)) == []


def test_a_fetched_file_has_the_name_and_place_that_one_expects(results, tmp_path, monkeypatch):
    results.put(b"a", "run1/x")
    monkeypatch.chdir(tmp_path)
    assert str(results.get("run1/x")) == "x"
    (tmp_path / "folder").mkdir()
    assert results.get("run1/x", tmp_path / "folder") == tmp_path / "folder" / "x"
    assert (tmp_path / "x").stat().st_mode & 0o777 == 0o666 & ~_umask()


def _umask():
    value = os.umask(0)
    os.umask(value)
    return value


def test_where_a_file_can_not_be_is_said_so_before_anything_is_fetched(results, tmp_path, clean):
    results.put(b"1", "x")
    results.put(b"1", "長" * 100)
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "astray").symlink_to("nowhere")
    (tmp_path / "folder" / "x").mkdir(parents=True)
    clean.clear_requests()
    for name, path, said in (
        ("x", f"{tmp_path}/new/", f"There is no folder {tmp_path}/new/. Create it first"),
        ("x", f"{tmp_path}/new/x", f"There is no folder {tmp_path}/new. Create it first"),
        ("x", "/dev/null", "/dev/null is not a regular file. Give another name"),
        ("x", f"{tmp_path}/loop", "loop is not a regular file"),
        ("x", f"{tmp_path}/astray", "astray is not a regular file"),
        ("x", f"{tmp_path}/folder", "folder/x is not a regular file"),
        ("長" * 100, tmp_path, "is too long for a file name. Name the file to write"),
    ):
        with pytest.raises(SettingError, match=said):
            results.get(name, path, overwrite=True)
    assert "GET" not in [method for _, method, _, _ in clean.requests]
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["astray", "folder", "loop", "x"]


def test_a_long_name_of_wide_letters_is_fetched(results, tmp_path):
    name = "長" * 85  # 255 bytes, as much as file systems take
    results.put(b"1", name)
    assert results.get(name, tmp_path) == tmp_path / name


def test_a_link_stays_one_and_a_file_keeps_its_permissions(results, tmp_path):
    results.put(b"new", "x")
    (tmp_path / "real").write_bytes(b"old")
    (tmp_path / "real").chmod(0o600)
    (tmp_path / "link").symlink_to("real")
    with pytest.raises(SettingError, match="There is a file .*link already"):
        results.get("x", tmp_path / "link")
    results.get("x", tmp_path / "link", overwrite=True)
    assert (tmp_path / "link").is_symlink() and (tmp_path / "real").read_bytes() == b"new"
    assert (tmp_path / "real").stat().st_mode & 0o777 == 0o600


def test_nothing_is_replaced_unless_one_says_so(results, table, tmp_path):
    results.put(table)
    with pytest.raises(SettingError, match=f"There is a result {UID}/table.csv already"):
        results.put(b"other", "table.csv")
    results.put(b"other", "table.csv", overwrite=True)
    with pytest.raises(SettingError, match="There is a file .*table.csv already"):
        results.get("table.csv", table)
    results.get("table.csv", table, overwrite=True)
    assert table.read_bytes() == b"other"


def test_who_is_a_moment_late_does_not_replace_it_either(results, monkeypatch):
    results.put(b"theirs", "x")
    seen = iter([None])
    there = Results._at
    monkeypatch.setattr(
        Results, "_at", lambda self, name: next(seen, None) or (there(self, name) if seen is None else None)
    )
    with pytest.raises(SettingError, match="already"):
        results.put(b"ours", "x")
    assert results.read("x") == b"theirs"


def test_a_name_without_its_cluster_is_enough_where_it_is_clear(results):
    results.put(b"1", "only")
    results.put(b"1", "both")
    Results(OTHER).put(b"2", "both")
    everything = Results()
    assert everything.read("only") == b"1"
    with pytest.raises(
        SettingError, match=f"Several results are called 'both'. Name one of them: {UID}/both, {OTHER}/both"
    ):
        everything.read("both")
    assert results.read("both") == b"1"
    with pytest.raises(
        SettingError, match=f"There is no result 'nope' of cluster {UID}. Existing results: {UID}/both, {UID}/only"
    ):
        results.get("nope")


def test_a_deleted_result_is_gone_and_no_other(results):
    results.put(b"1", "x")
    results.put(b"1", "x2")
    results.delete("x")
    assert names(results) == [f"{UID}/x2"]


@pytest.mark.parametrize("name", ["..", "a/../b", "a//b", "/a", "a/", ".", "a\nb", "\x1b[2J", "é" * 451, "\udcff"])
def test_what_can_be_no_name_is_refused_before_anything_is_made(results, clean, name):
    with pytest.raises(SettingError, match="can't be the name of a result"):
        results.put(b"x", name)
    with pytest.raises(SettingError, match="can't be the name of a result"):
        results.uploader(name)
    with pytest.raises(ValueError, match="can't be the name of a result"):
        patient(Uploader("http://127.0.0.1:1/", "q", UID))(b"x", name)
    assert not clean.state.containers


def test_what_makes_no_sense_is_refused_before_anything_is_asked(results, clean):
    clean.clear_requests()
    upload = patient(Uploader("http://127.0.0.1:1/", "q", UID))
    for call in (
        lambda: results.put(b"x", 5),
        lambda: results.get(None),
        lambda: results.delete(5),
        lambda: upload(b"x", 5),
    ):
        with pytest.raises(TypeError, match="The name of a result is text, not (int|NoneType)"):
            call()
    for seconds in (0, -1, float("nan"), float("inf"), "60", None, True):
        with pytest.raises(SettingError, match="An uploader can't be good for"):
            results.uploader(seconds=seconds)
    for retries in (-1, 1.5, "2", True):
        with pytest.raises(ValueError, match="retries: a whole number, 0 or more"):
            upload(b"x", "x", retries=retries)
    for timeout in (0, -1, float("nan"), "2", None):
        with pytest.raises(ValueError, match="timeout: a number of seconds, more than 0"):
            upload(b"x", "x", timeout=timeout)
    with pytest.raises(SettingError, match="'' is not the uid of a cluster"):
        Results("")
    assert clean.requests == []


def test_any_kind_of_bytes_is_stored(store, results):
    for number, what in enumerate((b"1", bytearray(b"1"), memoryview(b"213")[1:2])):
        store(what, f"x{number}")
        assert results.read(f"x{number}") == b"1"


ODD = [
    "a?b#c%41&d=e +f",
    "two  spaces ",
    "line\nline",
    "日本",
    "'$(x)\"",
    "-x",
    "/lead",
    "trail/",
    "a//b",
    "../up",
    "./x",
    "..",
]


def store_as_is(upload, name):
    """What somebody on an engine can do who has an uploader: any name below the cluster's prefix."""
    url = f"{upload._state['start']}{urllib.parse.quote(name)}?{upload._state['query']}"
    urllib.request.urlopen(urllib.request.Request(url, data=name.encode(), method="PUT")).close()


@pytest.mark.parametrize("name", ODD)
def test_whatever_name_there_is_can_be_read_fetched_and_deleted(results, tmp_path, monkeypatch, name):
    """And nothing else is: `..` leads nowhere, here or there."""
    others = Results()
    upload = results.uploader()
    for neighbour in ("up", "x", f"{UID}/up", f"{UID}/x"):
        others.put(b"another", neighbour)
    store_as_is(upload, name)
    assert f"{UID}/{name}" in names(others)
    for where in (results, others):
        assert where.read(f"{UID}/{name}") == name.encode() == where.read(name if name != "-x" else f"{UID}/-x")
    results.get(f"{UID}/{name}", tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == name.encode()
    results.delete(f"{UID}/{name}")
    assert sorted(names(others)) == sorted(["up", "x", f"{UID}/up", f"{UID}/x"])


@pytest.mark.parametrize("name", ["..", "x/..", "trail/", "line\nline", "\x1b[2J", "."])
def test_a_name_that_ends_in_none_of_a_file_needs_one(results, tmp_path, monkeypatch, name):
    folder = tmp_path / "within" / "here"
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)
    store_as_is(results.uploader(), name)
    for path in ("", ".", folder):
        with pytest.raises(SettingError, match="does not end in a valid file name. Name the file to write"):
            results.get(name, path)
    assert list(tmp_path.rglob("*")) == [tmp_path / "within", folder]


def test_a_result_in_segments_has_no_md5_and_is_fetched_all_the_same(results, clean, table):
    """What `swift upload --segment-size` makes: its ETag is none of its content."""
    results.put(table)
    answer = {"ETag": f'"{"0" * 32}"', "X-Static-Large-Object": "True", "Content-Length": "3"}
    for method in ("HEAD", "GET"):
        clean.faults.set(service=STORE, methods=[method], path="table.csv", status=200, body="1,2", headers=answer)
        if method == "HEAD":
            assert (results.find("table.csv").md5, results.find("table.csv").bytes) == ("", 3)
        else:
            assert results.read("table.csv") == b"1,2"


def test_an_exact_name_is_one_request_and_no_listing(results, clean):
    """Listings of a busy Swift may be minutes behind."""
    results.put(b"1", "x")
    found = results.find("x")
    (listed,) = results.all()
    assert (found.name, found.bytes, found.md5) == (listed.name, listed.bytes, listed.md5)
    assert abs(timestamp(found.modified) - timestamp(listed.modified)) < timedelta(milliseconds=2)
    assert found.modified.endswith("Z") and listed.modified.endswith("Z")
    clean.clear_requests()
    assert results.find(f"{UID}/x") == found
    assert [(method, path.rpartition("results")[2]) for _, method, path, _ in clean.requests] == [("HEAD", f"/{UID}/x")]


def test_a_cluster_is_named_by_its_uid_or_itself(clean):
    with pytest.raises(SettingError, match="'griffin' is not the uid of a cluster"):
        Results("griffin")
    with pytest.raises(SettingError, match="Start it first"):
        Results(ipp.Cluster(engines="griffin", n=1))


def test_it_is_found_in_the_package():
    assert ipp_griffin.Results is Results


# -- what goes wrong


def test_a_file_that_is_not_there_is_said_so_before_anything_is_made(results, clean):
    with pytest.raises(FileNotFoundError, match=r"missing\.csv"):
        results.put("missing.csv")
    assert not clean.state.containers


def test_a_file_larger_than_an_object_may_be_is_refused_before_anything_is_made(clean, table):
    info = {"swift": {"version": "2.38.3", "max_file_size": 399_999}, "tempurl": {"methods": ["GET", "PUT"]}}
    clean.faults.set(service=STORE, path="^/info$", status=200, body=info, headers={"Content-Type": "application/json"})
    results = Results(UID)
    with pytest.raises(SettingError, match="has 400000 bytes; this object store takes 399999 in one object"):
        results.put(table)
    assert not clean.state.containers
    with pytest.raises(OSError, match="table.csv has 400000 bytes; this object store takes 399999"):
        patient(results.uploader())(table)
    assert names(results) == []


def test_an_upload_whose_answer_was_lost_is_a_success(results, clean, table):
    clean.faults.set(service=STORE, methods=["PUT"], path="table.csv", drop=True, after=True, count=1)
    assert results.put(table) == f"{UID}/table.csv"
    assert results.read("table.csv") == table.read_bytes()


def test_an_upload_goes_on_when_the_store_is_back(results, clean, table):
    clean.faults.set(service=STORE, methods=["PUT"], path="table.csv", status=503, count=2)
    results.put(table)
    assert results.read("table.csv") == table.read_bytes()


@pytest.mark.parametrize("fault", [{"status": 503}, {"drop": True}, {"status": 413, "body": "Upload exceeds quota."}])
def test_a_failed_upload_never_looks_done(results, clean, table, fault):
    clean.faults.set(service=STORE, methods=["PUT"], path="table.csv", **fault)
    with pytest.raises(CloudError, match=f"Can't store {UID}/table.csv"):
        results.put(table)
    assert names(results) == []


@pytest.fixture(params=["put", "uploader"])
def store(request, results):
    """The two ways to store a file."""
    return results.put if request.param == "put" else patient(results.uploader())


def after_measuring(monkeypatch, happens):
    """Let something happen when a file was measured, before it is sent."""
    measure = Content._measure

    def measured(content):
        measure(content)
        happens()

    monkeypatch.setattr(Content, "_measure", measured)


@pytest.mark.timeout(30)
@pytest.mark.parametrize("new", [b"3,4\n" * 100_000, b"1,2\n" * 10, b""], ids=["another", "shorter", "empty"])
def test_a_file_that_changes_while_it_is_read_is_not_stored(store, results, table, monkeypatch, new):
    """A shorter one at once: the store would wait for the rest."""
    after_measuring(monkeypatch, lambda: table.write_bytes(new))
    with pytest.raises(OSError, match="table.csv changed while it was read, or on its way: nothing is stored"):
        store(table)
    assert names(results) == []


def test_a_file_that_grows_while_it_is_read_is_stored_as_it_was(store, results, table, monkeypatch):
    before = table.read_bytes()
    after_measuring(monkeypatch, lambda: table.write_bytes(before * 2))
    store(table)
    assert results.read("table.csv") == before


def test_a_file_that_vanishes_is_not_looked_for_again_and_not_the_clouds_fault(store, clean, table, monkeypatch):
    after_measuring(monkeypatch, table.unlink)
    clean.clear_requests()
    with pytest.raises(FileNotFoundError, match=f"No such file or directory: '{table}'"):
        store(table)
    assert not [line for line in clean.requests if line[1] == "PUT" and line[2].endswith("/table.csv")]


@pytest.mark.timeout(30)
def test_what_is_no_file_is_said_so_before_anything_is_sent(store, clean, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    clean.clear_requests()
    for path, why in {"pipe": "Not a regular file", ".": "Is a directory", "/dev/null": "Not a regular file"}.items():
        with pytest.raises(OSError, match=f"{why}: ") as raised:
            store(tmp_path / path, "x")
        assert raised.value.filename == str(tmp_path / path)
    for what in (None, 5, ["table.csv"]):
        with pytest.raises(TypeError, match="Give bytes, or the path of a file"):
            store(what, "x")
    assert clean.requests == []


def test_a_file_larger_than_an_object_may_be_is_not_even_read(store, clean, tmp_path, monkeypatch):
    with (tmp_path / "large").open("wb") as file:
        file.truncate(1 << 42)
    with pytest.raises((SettingError, OSError), match=f"{1 << 42} bytes; this object store takes"):
        store(tmp_path / "large")


@pytest.mark.parametrize(
    "fault",
    [
        {"status": 503},
        {"drop": True},
        {"status": 200, "body": "1,2", "headers": {"ETag": "0" * 32}},
    ],
)
def test_a_file_that_did_not_come_whole_is_not_there(results, clean, table, tmp_path, fault):
    results.put(table)
    clean.faults.set(service=STORE, methods=["GET"], path="table.csv", **fault)
    with pytest.raises(StoreUnavailable, match=f"Can't fetch {UID}/table.csv"):
        results.get("table.csv", tmp_path / "copy.csv")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["here"]


def test_a_download_goes_on_when_the_store_is_back(results, clean, table, tmp_path):
    results.put(table)
    clean.faults.set(
        service=STORE, methods=["GET"], path="table.csv", status=200, body="1,2", headers={"ETag": "0" * 32}, count=1
    )
    assert results.get("table.csv", tmp_path / "copy.csv").read_bytes() == table.read_bytes()


def test_a_full_disk_is_not_the_stores_fault_and_leaves_nothing(results, clean, table, tmp_path, monkeypatch):
    results.put(table)
    clean.clear_requests()
    appearing = ipp_griffin.api.results._appearing

    @contextlib.contextmanager
    def on_a_full_disk(target, overwrite):
        with appearing(target, overwrite), Path("/dev/full").open("r+b") as full:
            yield full

    monkeypatch.setattr(ipp_griffin.api.results, "_appearing", on_a_full_disk)
    with pytest.raises(OSError, match=f"No space left on device: '{tmp_path}/copy.csv'"):
        results.get("table.csv", tmp_path / "copy.csv")
    assert [line[2].rpartition("/")[2] for line in clean.requests if line[1] == "GET"].count("table.csv") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["here"]


def test_an_interrupt_leaves_nothing_here_and_nothing_there(results, store, table, tmp_path, monkeypatch):
    results.put(b"1", "x")

    def interrupted(*_args, **_kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(ipp_griffin.agent.uploader.Reader, "read", interrupted)
    with pytest.raises(KeyboardInterrupt):
        store(table)
    monkeypatch.setattr(swiftclient.client._ObjectBody, "read", interrupted)
    with pytest.raises(KeyboardInterrupt):
        results.get("x", tmp_path / "x")
    monkeypatch.undo()
    assert names(results) == [f"{UID}/x"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["here"]


def test_a_container_that_was_made_and_never_marked_is_taken_over(results, clean, monkeypatch):
    """Whoever made it was interrupted just then."""
    project = next(project for project in clean.state.projects if project.name == "devcloud")
    clean.state.containers[project.id, "ipp-griffin-results"] = Container(time.time() - 11, {})
    monkeypatch.setattr(results._store, "_sleep", lambda seconds: None)
    results.put(b"1", "x")
    patient(results.uploader())(b"2", "y")
    assert names(Results()) == [f"{UID}/x", f"{UID}/y"]


# -- the uploader

ON_AN_ENGINE = """
import pickle, sys
upload = pickle.load(sys.stdin.buffer)
assert "ipp_griffin" not in sys.modules
upload = pickle.loads(pickle.dumps(upload))  # from one engine to another
print(upload(b"42", "answer"), upload(sys.argv[1]))
"""


def test_it_stores_where_there_is_no_ipp_griffin(results, table):
    upload = results.uploader()
    python = getattr(sys, "_base_executable", sys.executable)
    done = subprocess.run(
        [python, "-I", "-S", "-c", ON_AN_ENGINE, str(table)],
        input=pickle.dumps(upload),
        capture_output=True,
        check=True,
        timeout=60,
    )
    assert done.stdout.decode().split() == [f"{UID}/answer", f"{UID}/table.csv"]
    assert results.read("answer") == b"42"
    assert results.read("table.csv") == table.read_bytes()


def test_it_replaces_nothing_unless_one_says_so(results):
    upload = patient(results.uploader())
    upload(b"1", "x")
    with pytest.raises(FileExistsError, match=f"There is a result {UID}/x already"):
        upload(b"2", "x")
    assert results.read("x") == b"1"
    upload(b"2", "x", overwrite=True)
    assert results.read("x") == b"2"


def test_its_url_opens_nothing_but_new_results_of_its_cluster(results):
    Results(OTHER).put(b"theirs", "x")
    results.put(b"ours", "x")
    state = results.uploader()._state
    root, query = state["start"].removesuffix(f"{UID}/"), state["query"]

    def status(method, path):
        request = urllib.request.Request(f"{root}{path}?{query}", method=method, data=b"z" if method == "PUT" else None)
        try:
            with urllib.request.urlopen(request) as answer:
                return answer.status
        except urllib.error.HTTPError as error:
            return error.code

    assert status("PUT", f"{UID}/y") == 201
    assert [status(method, f"{UID}/x") for method in ("GET", "DELETE")] == [401] * 2
    assert [status("PUT", path) for path in (f"{OTHER}/x", "x", f"../{NAME}x/y")] == [401] * 3
    assert status("GET", "") == 401
    assert Results(OTHER).read("x") == b"theirs"


def test_it_expires_by_the_stores_clock_and_says_so(results, clean, monkeypatch):
    upload = patient(results.uploader(seconds=60))
    monkeypatch.setattr(clean.state, "clock", lambda: time.time() + 62)
    with pytest.raises(PermissionError, match=f"Can't store {UID}/x: this uploader has expired"):
        upload(b"1", "x")


def test_one_for_a_single_result_stores_no_other(results, table):
    upload = patient(results.uploader("run1/x"))
    assert upload(b"1") == upload(table, overwrite=True) == f"{UID}/run1/x"
    assert results.read("run1/x") == table.read_bytes()
    again = patient(results.uploader(f"{UID}/run1/x"))
    assert again(b"2", overwrite=True) == again(b"2", f"{UID}/run1/x", overwrite=True) == f"{UID}/run1/x"
    assert patient(results.uploader())(b"2", f"{UID}/y") == f"{UID}/y"
    assert names(results) == [f"{UID}/run1/x", f"{UID}/y"]
    with pytest.raises(ValueError, match="stores 'run1/x' only"):
        upload(b"1", "y")
    with pytest.raises(SettingError, match="Name the cluster"):
        Results().uploader()


def test_a_store_with_urls_of_single_objects_only_says_what_to_do(clean):
    info = {"swift": {"version": "18.2.0", "max_file_size": 5 << 30}, "tempurl": {"methods": ["GET", "PUT"]}}
    clean.faults.set(service=STORE, path="^/info$", status=200, body=info, headers={"Content-Type": "application/json"})
    results = Results(UID)
    with pytest.raises(SettingError, match="Give each result its own uploader"):
        results.uploader()
    patient(results.uploader("x"))(b"1")
    assert results.read("x") == b"1"


def test_its_answers_may_be_lost_and_the_store_down_for_a_while(results, clean):
    upload = patient(results.uploader())
    clean.faults.set(
        {"service": STORE, "methods": ["PUT"], "path": "/x$", "status": 503, "count": 1},
        {"service": STORE, "methods": ["PUT"], "path": "/x$", "drop": True, "after": True, "count": 1},
    )
    assert upload(b"1", "x") == f"{UID}/x"
    assert results.read("x") == b"1"


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ({"status": 503}, "the object store said 503"),
        ({"drop": True}, "Can't store"),
        ({"status": 413}, "larger than the object store"),
        ({"status": 507}, "Delete results that nobody needs, or ask for more quota"),
        ({"status": 422}, "changed while it was read"),
    ],
)
def test_what_it_could_not_store_is_not_there_and_no_error_tells_its_url(results, clean, fault, said):
    upload = patient(results.uploader())
    clean.faults.set(service=STORE, methods=["PUT"], path="/x$", **fault)
    with pytest.raises(OSError, match=said) as raised:
        upload(b"1", "x")
    assert names(results) == []
    signature = upload._state["query"].partition("temp_url_sig=")[2][:40]
    assert signature
    assert signature not in repr(raised.value) + repr(raised.value.__cause__) + repr(raised.value.__context__) + repr(
        upload
    )


def test_it_trusts_the_cloud_s_own_authority_and_no_other(results, clean, tmp_path):
    authority = Authority(tmp_path)
    upload = patient(results.uploader())
    with tls_in_front_of(int(clean.url.rpartition(":")[2]), authority.server()) as port:
        upload._state["start"] = upload._state["start"].replace(clean.url, f"https://127.0.0.1:{port}")
        with pytest.raises(OSError, match="certificate verify failed"):
            upload(b"1", "x")
        upload._state["ca_certificates"] = authority.pem
        upload(bytes(3_000_000), "x")
    assert results.read("x") == bytes(3_000_000)


@pytest.mark.timeout(60)
def test_a_refusal_that_comes_before_all_is_sent_is_heard():
    """As of a Swift whose quota is used up: it answers when it has the headers, and closes."""
    asked = []

    def serve(listening):
        while len(asked) < 2:
            connection, _ = listening.accept()
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                head += connection.recv(1)
            asked.append(head.split()[0])
            status = b"404 Not Found" if asked[-1] == b"HEAD" else b"413 Request Entity Too Large"
            connection.sendall(b"HTTP/1.1 " + status + b"\r\nContent-Length: 0\r\n\r\n")
            connection.close()

    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=serve, args=[listening], daemon=True).start()
        upload = patient(Uploader(f"http://127.0.0.1:{listening.getsockname()[1]}/", "q", UID))
        with pytest.raises(OSError, match="or its quota, allows"):
            upload(bytes(50 << 20), "x", timeout=60)
    assert asked == [b"HEAD", b"PUT"]


# -- the command


@pytest.fixture
def command(clean, griffin, tmp_path, monkeypatch):
    """Run `ipp-griffin` in the folder ``tmp_path``; returns its status and what it printed."""
    monkeypatch.chdir(tmp_path)

    def run(*args):
        status, out, err = griffin(*args)
        return status, out + err

    return run


def test_put_results_and_get_are_a_round_trip(command, results, table, tmp_path):
    results.put(b"1", "of a cluster")
    assert command("put", str(table)) == (0, "table.csv\n")
    status, printed = command("results")
    assert (status, [line.split()[-2] for line in printed.splitlines()]) == (0, ["BYTES", "1", "400000"])
    assert command("results", UID)[1].splitlines()[1].startswith(f"'{UID}/of a cluster'  1  ")
    listed = json.loads(command("results", "--json")[1])
    assert [(one["name"], one["cluster"], one["bytes"]) for one in listed] == [
        (f"{UID}/of a cluster", UID, 1),
        ("table.csv", None, 400_000),
    ]
    assert command("get", "table.csv") == (0, "table.csv\n")
    assert (tmp_path / "table.csv").read_bytes() == table.read_bytes()
    assert command("get", "of a cluster", "--output", "here/one") == (0, "here/one\n")


def test_what_is_typed_wrong_is_one_line(command, table, clean):
    for args, said in {
        ("put",): "put: name the files to store.",
        ("put", ""): "put: name the files to store.",
        ("put", "."): "put: Is a directory: .",
        ("put", "/dev/null"): "put: Not a regular file: /dev/null",
        ("put", str(table), "--of", ""): "put: There is no cluster '' in this project.",
        ("put", str(table), "--name", ""): "put: --name needs exactly one file.",
        ("put", str(table), str(table), "--name", "x"): "put: --name needs exactly one file.",
        ("get", ""): "get: name a result. `ipp-griffin results` lists them.",
        ("get", "x", "--output", ""): "get: --output needs a file or a folder.",
        ("get", os.fsdecode(b"\xff")): "get: '\\udcff' can't be the name of a result: it is not UTF-8.",
        ("results", ""): "results: '' is not the uid of a cluster. `ipp-griffin ps` shows them.",
        ("results", "--delete"): "results: name the results to delete. `ipp-griffin results` lists them.",
        ("results", "--delete", "nope"): "results: There is no result 'nope'. Existing results: none.",
        ("results", "--delete", "nope/"): "results: There is no result 'nope/'. Existing results: none.",
        ("put", "missing.csv"): "put: No such file or directory: missing.csv",
        ("put", str(table), "--of", "nobody"): "put: There is no cluster 'nobody' in this project. Existing clusters: ",
        ("get",): "get: name a result. `ipp-griffin results` lists them.",
        ("get", "nope"): "get: There is no result 'nope'. Existing results: none.",
        ("results", "griffin"): "results: 'griffin' is not the uid of a cluster. `ipp-griffin ps` shows them.",
        ("results", UID, UID): "results: give the uid of one cluster, or none.",
    }.items():
        status, printed = command(*args)
        assert (status, printed.count("\n")) == (1, 1) and printed.startswith(f"ipp-griffin {said}"), printed
    assert command("results") == (0, "There is no result in this project.\n")
    assert command("results", UID) == (0, f"There is no result of cluster {UID} in this project.\n")
    assert json.loads(command("results", "--json")[1]) == []
    assert not clean.state.containers


def test_what_is_there_is_replaced_only_with_overwrite(command, table, tmp_path):
    command("put", str(table))
    table.write_bytes(b"new")
    status, printed = command("put", str(table))
    assert (status, printed) == (
        1,
        "ipp-griffin put: There is a result table.csv already. Give another name, or overwrite it (--overwrite; in Python, overwrite=True).\n",
    )
    assert command("put", str(table), "--overwrite")[0] == 0
    (tmp_path / "table.csv").write_bytes(b"mine")
    assert command("get", "table.csv")[0] == 1
    assert (tmp_path / "table.csv").read_bytes() == b"mine"
    assert command("get", "table.csv", "--overwrite")[0] == 0
    assert (tmp_path / "table.csv").read_bytes() == b"new"


def test_one_file_can_have_another_name_and_be_of_a_cluster_that_has_ended(command, table, results):
    assert command("put", str(table), "--name", "monday/table", "--of", UID) == (0, f"{UID}/monday/table\n")
    assert results.read("monday/table") == table.read_bytes()


def test_names_that_an_engine_chose_are_shown_as_one_types_them_and_move_no_terminal(command, results, tmp_path):
    upload, odd = results.uploader(), ["\x1b[2J", "\u202egpj.exe", *ODD]
    for name in odd:
        store_as_is(upload, name)
    status, printed = command("results")
    assert (status, printed.count("\n"), "\x1b" in printed, "\u202e" in printed) == (0, len(odd) + 1, False, False)
    words = [re.fullmatch(r"(.*?) +\d+ +[\d-]+T[\d:]+Z", line)[1] for line in printed.splitlines()[1:]]
    read = subprocess.run(
        ["bash", "-c", f"printf '%s\\0' {' '.join(words)}"], capture_output=True, text=True, check=True
    )
    assert read.stdout.split("\0")[:-1] == sorted(f"{UID}/{name}" for name in odd)
    assert [one["name"] for one in json.loads(command("results", "--json")[1])] == read.stdout.split("\0")[:-1]
    assert command("get", f"{UID}/line\nline", "--output", "copy") == (0, "copy\n")
    assert command("results", "--delete", "--yes", *(f"{UID}/{name}" for name in odd))[0] == 0
    assert names(results) == []


def test_a_long_name_is_shown_exactly_though_it_looks_like_a_token(command, results):
    name = "0123456789abcdef" * 6
    results.put(b"1", name)
    assert f"{UID}/{name} " in command("results")[1]


def test_results_are_deleted_when_one_agrees(command, clean, monkeypatch, capsys):
    everything = Results()
    for name in ("x", f"{UID}/x", f"{UID}/run1/a", f"{UID}/run1/b", f"{UID}/run10"):
        everything.put(b"1", name)
    status, printed = command("results", "--delete", f"{UID}/run1/")
    assert (status, printed.splitlines()[-1]) == (
        1,
        "ipp-griffin results: there is no terminal to ask on. Add --yes to delete, or --json to only show what would be deleted.",
    )
    assert [line.split()[0] for line in printed.splitlines()[1:-1]] == [f"{UID}/run1/a", f"{UID}/run1/b"]
    assert json.loads(command("results", "--delete", "--json", "run10")[1])[0]["name"] == f"{UID}/run10"
    assert command("results", "--delete", "--yes", "run10", "nope")[0] == 1
    assert len(names(everything)) == 5
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    for answer, left in (("n", 5), ("y", 3)):
        monkeypatch.setattr("builtins.input", lambda question, answer=answer: answer)
        app = ListResults()
        app.initialize(["--delete", f"{UID}/run1/"])
        app.start()
        assert len(names(everything)) == left
    assert capsys.readouterr().out.endswith("Deleted: 2.\n")
    assert command("results", "--delete", "--yes", "x", f"{UID}/x", f"{UID}/x")[1].endswith("Deleted: 2.\n")
    assert names(everything) == [f"{UID}/run10"]


def test_a_closed_terminal_ends_a_command_as_sigterm_does(command, results, table):
    results.put(table)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(
            number, signal.SIG_DFL
        )  # the parent process may have them ignored; the `griffin` fixture restores them
    assert command("get", "table.csv")[0] == 0
    for number, status in ((signal.SIGTERM, 143), (signal.SIGHUP, 129)):
        with pytest.raises(SystemExit) as ended:
            signal.getsignal(number)(number, None)
        assert ended.value.code == status


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_command_that_is_ended_leaves_no_part_of_a_file(clean, results, table, tmp_path, number, status):
    results.put(table)
    clean.faults.set(service=STORE, methods=["GET"], path="table.csv", delay=300)
    program = "from ipp_griffin.cli import main; main()"
    with subprocess.Popen([sys.executable, "-c", program, "get", "table.csv"], cwd=tmp_path, stderr=-1) as get:
        try:
            deadline = time.monotonic() + 60
            while not list(tmp_path.glob(".*.part")):
                assert get.poll() is None and time.monotonic() < deadline
                time.sleep(0.05)
            get.send_signal(number)
            said = get.communicate(timeout=60)[1]
        finally:
            get.kill()
    assert (get.returncode, said) == (status, b"Interrupted.\n" if status == 130 else b"")
    assert [path.name for path in tmp_path.iterdir()] == ["here"]
