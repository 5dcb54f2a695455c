"""`ipp-griffin`: what it writes, asks and prints, and with which status it ends."""

import json
import os
import shlex
import subprocess
import sys
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

import pytest
import yaml
from IPython.core.profileapp import ProfileCreate
from traitlets.config import Config
from traitlets.config.loader import PyFileConfigLoader

from ipp_griffin import __version__, cli
from ipp_griffin.cli import Griffin
from ipp_griffin.cli.command import table
from ipp_griffin.cli.ps import HEADINGS, SERVER_HEADINGS, Ps, as_json, row, server_rows
from ipp_griffin.cli.reap import Reap
from ipp_griffin.cli.stop import Stop
from ipp_griffin.cluster.cluster import LABELS, Cluster, Leftover, Member
from ipp_griffin.launchers.profiles import PROFILE_FILES, profile_files
from ipp_griffin.model.names import Place
from ipp_griffin.model.server import Server

from ..conftest import answer
from ..fakes import FakeClusters

BIN = Path(sys.executable).parent


def texts(folder, profile="griffin"):
    return {name: (folder / f"profile_{profile}" / name).read_text() for name in PROFILE_FILES}


def config(folder, profile="griffin") -> Config:
    return PyFileConfigLoader("ipcluster_config.py", str(folder / f"profile_{profile}")).load_config()


# --- init


def test_init_writes_the_profile_and_says_what_to_do_next(griffin, ipython):
    folder = ipython / "profile_griffin"
    assert griffin("init") == (
        0,
        f"Profile 'griffin' is in {folder}\n"
        "  written: ipcluster_config.py, ipcluster_config.json, ipcontroller_config.py, ipengine_config.py\n"
        f"Edit {folder}/ipcluster_config.py: set at least cloud, image, flavor and network if "
        "the defaults don't fit.\n"
        "Then: ipcluster start --profile=griffin -n 8\n"
        "Mind the name: if a profile does not exist, ipcluster silently makes an EMPTY one "
        "and starts the engines on this machine.\n",
        "",
    )
    assert texts(ipython) == profile_files()


@pytest.mark.parametrize("first", [("init",), ("init", "--cloud", "mine"), ("init", "--profile", "griffin")])
def test_a_second_init_writes_nothing(griffin, ipython, first):
    griffin(*first)
    before = texts(ipython)
    for again in (first, ("init",)):
        status, out, err = griffin(*again)
        assert (status, err) == (0, "")
        assert "written" not in out
        assert texts(ipython) == before


def test_an_edited_file_is_kept_where_nobody_can_be_asked(griffin, ipython):
    griffin("init")
    path = ipython / "profile_griffin" / "ipcluster_config.py"
    edited = path.read_text() + 'c.GriffinCloud.image = "mine"\n'
    path.write_text(edited)
    status, out, err = griffin("init")
    assert (status, err) == (0, "")
    assert "  kept as you edited them: ipcluster_config.py (--force overwrites)\n" in out
    assert path.read_text() == edited


@pytest.mark.parametrize(
    ("typed", "overwritten"),
    [("y", True), ("YES ", True), ("n", False), ("", False), ("maybe", False)],
)
def test_an_edited_file_is_overwritten_only_after_a_yes(griffin, ipython, monkeypatch, typed, overwritten):
    griffin("init")
    path = ipython / "profile_griffin" / "ipengine_config.py"
    path.write_text("c.IPEngine.timeout = 3\n")
    asked = answer(monkeypatch, typed)
    assert griffin("init")[0] == 0
    assert asked == [f"{path} was edited. Overwrite it? [y/N] "]
    assert (path.read_text() == profile_files()["ipengine_config.py"]) is overwritten


def test_force_overwrites_without_asking(griffin, ipython):
    griffin("init")
    (ipython / "profile_griffin" / "ipcluster_config.json").write_text('{"Cluster": {}}')
    assert griffin("init", "--force")[0] == 0
    assert texts(ipython) == profile_files()


@pytest.mark.parametrize("name", ["mycloud", 'it\'s "mine" ', "back\\slash", "two\nlines", "{0} %s"])
def test_the_clouds_name_is_written_whatever_is_in_it(griffin, ipython, name):
    assert griffin("init", f"--cloud={name}")[0] == 0
    assert config(ipython) == {"GriffinCloud": {"cloud": name}, "Cluster": {"delay": 0}}
    lines = texts(ipython)["ipcluster_config.py"].splitlines()
    assert len(lines) == len(profile_files()["ipcluster_config.py"].splitlines())


def test_another_cloud_replaces_the_first(griffin, ipython):
    griffin("init", "--cloud", "one")
    assert griffin("init", "--cloud", "two")[0] == 0
    assert config(ipython).GriffinCloud.cloud == "two"


def test_a_clouds_name_that_an_edited_file_did_not_take_is_an_error(griffin, ipython):
    griffin("init")
    with (ipython / "profile_griffin" / "ipcluster_config.py").open("a") as f:
        f.write("c.GriffinCloud.flavor = 'big'\n")
    status, _, err = griffin("init", "--cloud", "mine")
    assert (status, err) == (
        1,
        "ipp-griffin init: the cloud 'mine' was not written: set c.GriffinCloud.cloud in ipcluster_config.py.\n",
    )
    assert config(ipython).GriffinCloud == {"flavor": "big"}


def test_the_empty_profile_that_ipcluster_made_is_filled(griffin, ipython):
    for name in ("db", "log", "pid", "security", "startup"):
        (ipython / "profile_physics" / name).mkdir(parents=True)
    assert griffin("init", "--profile", "physics")[0] == 0
    assert texts(ipython, "physics") == profile_files()


@pytest.mark.filterwarnings("ignore:ipyparallel.apps")
def test_files_that_ipython_made_and_nobody_edited_are_replaced(griffin, ipython):
    """`ipython profile create --parallel` writes every setting as a comment."""
    creating = ProfileCreate()
    creating.initialize(["--parallel", "physics"])
    creating.start()
    before = (ipython / "profile_physics" / "ipcluster_config.py").read_text()
    assert "c = get_config()" in before
    assert griffin("init", "--profile", "physics")[0] == 0
    assert texts(ipython, "physics") == profile_files()


@pytest.mark.parametrize("name", ["", "a/b", "../up", "/", "a b", "a.b", "é", "a\n"])
def test_what_can_be_no_profiles_name_is_refused(griffin, ipython, name):
    status, out, err = griffin("init", f"--profile={name}")
    assert (status, out) == (1, "")
    assert err == f"ipp-griffin init: {name!r} is not the name of a profile: use letters, digits, - and _.\n"
    assert list(ipython.parent.rglob("profile_*")) == []


def test_a_folder_that_cannot_be_written_is_one_line(griffin, ipython):
    (ipython / "profile_griffin" / "ipcluster_config.json").mkdir(parents=True)
    status, _, err = griffin("init")
    assert (status, len(err.splitlines())) == (1, 1)
    assert "profile_griffin/ipcluster_config.json" in err


# --- what is typed wrong


@pytest.mark.parametrize(
    ("args", "line"),
    [
        (["frobnicate"], "ipp-griffin: unknown option or argument 'frobnicate'. See `ipp-griffin --help`."),
        (["init", "physics"], "ipp-griffin init: unknown option or argument 'physics'. See `ipp-griffin init --help`."),
        (["devcloud"], "ipp-griffin devcloud: name one of start, stop, status and env."),
        (
            ["devcloud", "go"],
            "ipp-griffin devcloud: unknown option or argument 'go'. See `ipp-griffin devcloud --help`.",
        ),
        (
            ["reap", "--yes", "--dryrun=1"],
            "ipp-griffin reap: unknown option or argument '--dryrun'. See `ipp-griffin reap --help`.",
        ),
        (
            ["reap", "--all"],
            "ipp-griffin reap: argument --all: expected one argument. See `ipp-griffin reap --help`.",
        ),  # not --all-owners
        (
            ["stop", "--timeout"],
            "ipp-griffin stop: argument --Stop.timeout: expected one argument. See `ipp-griffin stop --help`.",
        ),
    ],
)
def test_what_it_does_not_know_is_one_line_and_status_1(griffin, args, line):
    assert griffin(*args) == (1, "", f"{line}\n")


def test_no_subcommand_prints_the_help(griffin):
    status, out, _ = griffin()
    assert status == 1
    assert "init" in out
    assert "devcloud" in out


def test_ctrl_c_is_one_line_and_status_130(monkeypatch, capsys):
    def interrupt():
        raise KeyboardInterrupt

    monkeypatch.setattr(Griffin, "launch_instance", interrupt)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert (ended.value.code, capsys.readouterr().err) == (130, "Interrupted.\n")


def test_version(griffin):
    assert griffin("--version") == (0, f"{__version__}\n", "")


# --- devcloud


def test_the_dev_cloud_from_start_to_stop(griffin, tmp_path):
    folder = tmp_path / "a dev cloud's"
    not_running = f"No dev cloud runs in {folder}."
    assert griffin("devcloud", "status", f"--folder={folder}") == (3, f"{not_running}\n", "")
    assert griffin("devcloud", "env", f"--folder={folder}") == (
        1,
        "",
        f"ipp-griffin devcloud env: {not_running} Start it: ipp-griffin devcloud start --folder {shlex.quote(str(folder))}\n",
    )
    assert griffin("devcloud", "stop", f"--folder={folder}") == (0, f"{not_running}\n", "")
    try:
        status, out, err = griffin("devcloud", "start", f"--folder={folder}", "--boot-time=0.2")
        assert (status, err) == (0, "")
        clouds_yaml = (folder / "clouds.yaml").read_text()
        names = ", ".join(yaml.safe_load(clouds_yaml)["clouds"])
        assert out.splitlines()[1] == f"It wrote {folder / 'clouds.yaml'}, with the clouds {names}."
        assert "password" not in out
        # What it says to type is what works, in a shell.
        typed = f"""{out.splitlines()[-1].partition("with:  ")[2]}; echo "$OS_CLOUD"; cat "$OS_CLIENT_CONFIG_FILE\""""
        shell = {"capture_output": True, "text": True, "timeout": 60, "cwd": tmp_path, "stdin": subprocess.DEVNULL}
        done = subprocess.run(
            ["sh", "-c", typed], env={**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}"}, check=True, **shell
        )
        assert (done.stdout, done.stderr) == (f"devcloud\n{clouds_yaml}", "")
        status, out, _ = griffin("devcloud", "status", f"--folder={folder}")
        assert (status, out.splitlines()[1:]) == (0, ["Servers: none", "Containers: none"])
    finally:
        stopped = griffin("devcloud", "stop", f"--folder={folder}")
    assert stopped == (0, "The dev cloud is stopped.\n", "")
    assert griffin("devcloud", "status", f"--folder={folder}")[0] == 3


def test_a_port_in_use_is_one_line_and_status_1(griffin, tmp_path):
    import socket

    with socket.create_server(("127.0.0.1", 0)) as busy:
        port = busy.getsockname()[1]
        status, out, err = griffin("devcloud", "start", f"--folder={tmp_path / 'cloud'}", f"--port={port}")
    assert (status, out) == (1, "")
    assert err == f"ipp-griffin devcloud start: Can't listen on 127.0.0.1:{port}: Address already in use.\n"


def test_clusters_are_listed_in_columns():
    made = Member(
        Server("i", "griffin-u-s-0", "ACTIVE", created="2026-01-01T10:00:00Z", vcpus=4), Place("s", 0), 4, "engines"
    )
    labels = dict.fromkeys(LABELS, "") | {"owner": "ada", "profile": "griffin"}
    now = datetime(2026, 1, 1, 12, 30, tzinfo=timezone.utc)
    cluster = Cluster("0123456789ab", labels, (made, replace(made, phase="agent")), True)
    assert table([HEADINGS, row(cluster, now), row(replace(cluster, members=()), now)]).splitlines() == [
        "CLUSTER       OWNER  PROFILE  ID  SERVERS               ENGINES  AGE   EXPIRES  VCPU-HOURS",
        "0123456789ab  ada    griffin  -   agent: 1, engines: 1  4 of 8   2:30  never    20.0",
        "0123456789ab  ada    griffin  -   none                  0 of 0   -     never    0.0",
    ]
    assert as_json(cluster, now)["vcpu_hours"] == 20
    assert as_json(cluster, now)["expires"] is None


@pytest.fixture
def three():
    """A cluster of three servers: one that expires, one that has, and somebody else's."""

    def member(slot, expires="", incarnation=0, **options):
        server = Server(
            f"i{slot}",
            f"griffin-u-s-{slot}",
            "ACTIVE",
            address="10.0.0.5",
            created="2026-01-01T10:00:00Z",
            metadata={"griffin:expires": expires},
            flavor="m1.large" if slot else "",
        )
        return Member(server, Place("s", slot, incarnation), 2, "engines", **options)

    servers = (
        member(0, "2026-01-01T13:40:00Z"),
        member(1, "2026-01-01T12:29:59Z", incarnation=2),
        member(2, mine=False),
    )
    return Cluster("0123456789ab", dict.fromkeys(LABELS, ""), servers, True)


NOW = datetime(2026, 1, 1, 12, 30, tzinfo=timezone.utc)
IDS = {Place("s", 0): [0, 3], Place("s", 1): [7], Place("s", 1, 2): [1, 2]}


def test_servers_are_listed_with_their_engines_ids_and_their_expiry(three):
    assert table([SERVER_HEADINGS, *server_rows(three, NOW, IDS)]).splitlines() == [
        "CLUSTER       SERVER                           FLAVOR    PHASE    ENGINES  IDS  ADDRESS   AGE   EXPIRES",
        "0123456789ab  griffin-u-s-0                    ?         engines  2        0,3  10.0.0.5  2:30  in 1:10",
        "0123456789ab  griffin-u-s-1                    m1.large  engines  2        1,2  10.0.0.5  2:30  expired",
        "0123456789ab  griffin-u-s-2 (somebody else's)  m1.large  engines  2        -    10.0.0.5  2:30  never",
    ]
    assert row(three, NOW)[-2] == "expired"


def test_where_the_controller_can_not_be_asked_nothing_is_said_of_ids(three):
    assert [line[5] for line in server_rows(three, NOW, None)] == ["?"] * 3
    assert [server["engine_ids"] for server in as_json(three, NOW)["servers"]] == [None] * 3


def test_json_has_each_servers_flavor(three):
    assert [server["flavor"] for server in as_json(three, NOW)["servers"]] == ["", "m1.large", "m1.large"]


def test_json_has_each_servers_engine_ids_expiry_and_whose_it_is(three):
    found = as_json(three, NOW, IDS)
    assert [(s["engine_ids"], s["expires"], s["mine"], s["incarnation"]) for s in found["servers"]] == [
        ([0, 3], "2026-01-01T13:40:00Z", True, 0),
        ([1, 2], "2026-01-01T12:29:59Z", True, 2),
        ([], None, False, 0),
    ]
    assert found["expires"] == "2026-01-01T12:29:59Z"


@pytest.mark.parametrize(("options", "asks"), [([], False), (["--engines"], True), (["--json"], True)])
def test_controllers_are_asked_only_for_what_shows_ids(three, monkeypatch, capsys, ipython, options, asks):
    asked = []

    monkeypatch.setattr(Ps, "clusters", lambda self: FakeClusters(three))
    monkeypatch.setattr(
        "ipp_griffin.controller.engine_ids.engine_ids",
        lambda uids, folder: asked.append((uids, folder)) or {three.uid: IDS},
    )
    app = Ps()
    app.initialize(options)
    app.start()
    assert asked == ([([three.uid], ipython)] if asks else [])
    assert ("0,3" in capsys.readouterr().out) is (options == ["--engines"])


def test_that_the_object_store_is_down_is_a_remark_and_no_failure(griffin, three, monkeypatch):
    clusters = FakeClusters(three)
    clusters.store_trouble = "The object store said 503."
    monkeypatch.setattr(Ps, "clusters", lambda self: clusters)
    status, out, err = griffin("ps")
    assert (status, out.splitlines()[1].split()[0]) == (0, three.uid)
    assert (
        err
        == "ipp-griffin ps: The object store said 503. What agents reported, and clusters without servers, are not shown.\n"
    )


def test_stop_wants_one_name(griffin):
    assert griffin("stop") == (1, "", "ipp-griffin stop: name a cluster. `ipp-griffin ps` lists them.\n")


@pytest.fixture
def stop(monkeypatch):
    """``stop(name)`` in a project that has no cluster, but perhaps the rest of one; what was stopped."""
    clusters = FakeClusters()
    clusters.rest = [Cluster("0123456789ab", dict.fromkeys(LABELS, ""), (), True)]
    monkeypatch.setattr(Stop, "clusters", lambda self: clusters)

    def run(name, error=None):
        clusters.fail["stop"] = [error]
        app = Stop()
        app.initialize([name])
        app.start()
        return [cluster.uid for cluster in clusters.asked("stop", "cluster")]

    return run


def test_stopping_by_uid_again_succeeds(stop, capsys):
    assert stop("0123456789ab") == ["0123456789ab"]
    assert capsys.readouterr().out == "Nothing is left of cluster 0123456789ab in this project.\n"


def test_stopping_what_there_is_not_by_name_is_an_error(stop, capsys):
    with pytest.raises(SystemExit) as ended:
        stop("griffin")
    assert ended.value.code == 1
    assert "There is no cluster 'griffin'" in capsys.readouterr().err


def test_a_stop_that_is_interrupted_says_how_to_go_on(stop, capsys):
    with pytest.raises(SystemExit) as ended:
        stop("0123456789ab", KeyboardInterrupt())
    assert ended.value.code == 130
    assert "`ipp-griffin stop 0123456789ab` again to delete the rest" in capsys.readouterr().err


@pytest.fixture
def reap(monkeypatch):
    """``reap(option, ...)`` on a cloud with one thing that is left over; what was deleted."""
    clusters, server = FakeClusters(), Server("i", "griffin-u-s-0", "ERROR")
    left = Leftover(Cluster("0123456789ab", dict.fromkeys(LABELS, ""), (), True), server, "is in ERROR: no disk")

    clusters.left = [left]
    monkeypatch.setattr(Reap, "clusters", lambda self: clusters)

    def run(*options):
        app = Reap()
        app.initialize(list(options))
        app.start()
        return clusters.asked("reap", "found") == [[left]]

    return run


@pytest.mark.parametrize(
    ("options", "answered", "done"),
    [
        ([], "y", True),
        ([], "n", False),
        ([], "", False),
        ([], EOFError, False),  # Ctrl-D
        (["--yes"], None, True),
        (["--yes", "--dry-run"], None, False),
    ],
)
def test_reaping_shows_and_asks(reap, monkeypatch, capsys, options, answered, done):
    answer(monkeypatch, answered)
    assert reap(*options) is done
    shown = capsys.readouterr().out
    assert shown.startswith("Server griffin-u-s-0 is in ERROR: no disk\n")
    assert ("Deleted: 1." in shown) is done


@pytest.mark.parametrize(("options", "done"), [(["--json"], False), (["--json", "--yes"], True)])
def test_reaping_in_a_program_prints_json_and_deletes_only_with_yes(reap, monkeypatch, capsys, options, done):
    answer(monkeypatch, None)
    assert reap(*options) is done
    (shown,) = json.loads(capsys.readouterr().out)
    assert (shown["cluster"], shown["server"]["name"]) == ("0123456789ab", "griffin-u-s-0")


def test_reaping_with_nobody_to_ask_deletes_nothing(reap, monkeypatch, capsys):
    answer(monkeypatch, None)
    with pytest.raises(SystemExit) as ended:
        reap()
    assert ended.value.code == 1
    assert "Add --yes" in capsys.readouterr().err
