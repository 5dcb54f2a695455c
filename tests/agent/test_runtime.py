"""Users, Pythons, venvs and environments."""

import contextlib
import json
import pwd
import shutil
import ssl
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from ipp_griffin.agent import runtime
from ipp_griffin.agent.errors import Failure
from ipp_griffin.agent.runtime import choose

from .world import CONNECTION, Net, World, http_error


def probe_of(**versions):
    return lambda python, user: {"python": "3.11", "ipyparallel": versions[python]} if python in versions else None


def test_the_first_python_with_the_clients_version_is_chosen():
    candidates = [("none", ""), ("without", "ipp"), ("old", "ipp"), ("right", "ubuntu"), ("also", "ipp")]
    probe = probe_of(without="", old="8.8.0", right="9.2.1", also="9.2.0")
    assert choose(candidates, probe, "9.2.0") == {
        "python": "3.11",
        "ipyparallel": "9.2.1",
        "executable": "right",
        "user": "ubuntu",
    }


def test_other_versions_only_is_a_failure_that_names_them():
    with pytest.raises(Failure, match=r"has ipyparallel 8.8.0 of old, 9.1.0 of b, the client has 9.2.0"):
        choose([("old", "a"), ("old", "b"), ("b", "")], probe_of(old="8.8.0", b="9.1.0"), "9.2.0")


def test_no_ipyparallel_at_all_is_nothing_chosen():
    assert choose([("a", ""), ("b", "")], probe_of(a=""), "9.2.0") is None


NONE = json.dumps({"python": "3.9", "ipyparallel": "", "paths": ["/usr/lib/site-packages"], "site": "SITE"})

FOUND = json.dumps({"python": "3.11", "ipyparallel": "9.2.0", "paths": ["/opt/site-packages"], "site": "SITE"})


class Image:
    """A server on which commands do what they would: `run` for `World`."""

    def __init__(self, folder, ipyparallel=False, ensurepip=True, pip=True, apt=True, index=True):
        self.venv, self.folder = str(folder / "state" / "venv"), folder
        self.ipyparallel, self.ensurepip, self.pip, self.apt, self.index = ipyparallel, ensurepip, pip, apt, index
        self.installed = False

    def __call__(self, argv):
        site = str(self.folder)
        if argv[1] == "-c":
            there = self.installed if argv[0].startswith(self.venv) else self.ipyparallel
            return 0, (FOUND if there or self.ipyparallel else NONE).replace("SITE", site)
        if argv[0] == "apt-get":
            self.ensurepip = self.apt
            return (0, "") if self.apt else (100, "E: no such package")
        if argv[1:3] == ["-m", "venv"]:
            return (0, "") if self.ensurepip or "--without-pip" in argv else (1, "ensurepip is not available")
        if argv[-1] == "--version":
            return (0, "") if self.pip else (1, "No module named pip")
        if "install" in argv:
            self.installed = self.index
            Path(self.venv).mkdir(parents=True, exist_ok=True)
            return (0, "") if self.index else (1, "ERROR: Ignored versions that require Python >=3.10\nERROR: No match")
        return 0, ""


def installs(w):
    return [c for _, c in w.commands if " -c " not in c]


def test_an_image_with_ipyparallel_is_used_as_it_is(world, tmp_path):
    w = world(run=Image(tmp_path, ipyparallel=True))
    w.prepare()
    assert w.agent.runtime.python == sys.executable and w.agent.runtime.notes == []
    assert installs(w) == []


def test_another_minor_version_of_python_is_a_warning(world, tmp_path):
    w = world(run=Image(tmp_path, ipyparallel=True))
    w.agent.private_object["python"] = "3.13"
    w.prepare()
    assert w.agent.runtime.notes == ["WARNING: Python 3.11 here, 3.13 at the client: functions may not travel"]


def test_an_image_without_ipyparallel_gets_a_venv_with_the_clients_version_and_the_packages(world, tmp_path):
    w = world(run=Image(tmp_path), proxy="http://proxy:3128")
    w.agent.private_object.update(
        packages=["numpy<3", "./x.whl"], pip_args=["--index-url=http://i"], engine_python=sys.executable
    )
    w.prepare()
    venv = w.agent.state.path("venv")
    assert installs(w) == [
        f"{sys.executable} -m venv {venv}",
        f"{venv}/bin/python -m pip install --no-input --index-url=http://i ipyparallel==9.2.0 numpy<3 ./x.whl",
    ]
    assert w.agent.runtime.python == f"{venv}/bin/python"


def test_the_proxy_is_in_the_environment_of_pip_and_the_controller_is_not_behind_it(world):
    w = world(proxy="http://proxy:3128")
    w.agent.private_object["connection"] = {**CONNECTION, "interface": "tcp://10.9.8.7"}
    found = w.agent.runtime.pip_environment()
    assert {k.lower(): v for k, v in found.items() if k.lower().endswith("_proxy")} == {
        "http_proxy": "http://proxy:3128",
        "https_proxy": "http://proxy:3128",
        "no_proxy": "localhost,127.0.0.1,::1,10.9.8.7",
    }
    assert {k for k in found if k.endswith("_PROXY")} == {"HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"}
    assert world().agent.runtime.proxy_environment() == {}


@pytest.mark.parametrize("where", ["default", "usual", "nowhere"])
def test_pip_trusts_the_clouds_own_ca_beside_the_public_ones(world, tmp_path, monkeypatch, where):
    """Never instead of them: without a bundle to add it to, pip goes on with its own."""
    bundles = {"default": str(tmp_path / "default.pem"), "usual": "/etc/ssl/certs/ca-certificates.crt"}
    monkeypatch.setattr(runtime, "read", lambda path: b"PUBLIC\n" if path and path == bundles.get(where) else b"")
    paths = SimpleNamespace(cafile=bundles["default"] if where == "default" else None)
    monkeypatch.setattr(ssl, "get_default_verify_paths", lambda: paths)
    found = world(ca_certificates="PRIVATE\n").agent.runtime.pip_environment()
    if where == "nowhere":
        assert "PIP_CERT" not in found
    else:
        assert Path(found["PIP_CERT"]).read_text().split() == ["PUBLIC", "PRIVATE"]


def test_packages_for_an_image_with_ipyparallel_go_into_a_venv_that_sees_the_images(world, tmp_path):
    w = world(run=Image(tmp_path, ipyparallel=True))
    w.agent.private_object.update(packages=["numpy"], engine_python=sys.executable)
    w.prepare()
    assert installs(w)[-1].endswith("/venv/bin/python -m pip install --no-input numpy")
    assert (tmp_path / "image.pth").read_text() == "/opt/site-packages"


def test_the_venv_is_made_once(world, tmp_path):
    image = Image(tmp_path)
    w = world(run=image)
    w.agent.private_object["engine_python"] = sys.executable
    w.prepare()
    (tmp_path / "state/venv/bin").mkdir()
    (tmp_path / "state/venv/bin/python").touch()
    again = World(tmp_path / "state", run=image)
    again.agent.private_object["engine_python"] = sys.executable
    again.prepare()
    assert installs(again) == [] and again.agent.runtime.python == w.agent.runtime.python


def test_without_ensurepip_the_images_pip_fills_the_venv(world, tmp_path):
    w = world(run=Image(tmp_path, ensurepip=False))
    w.agent.private_object["engine_python"] = sys.executable
    w.prepare()
    venv = w.agent.state.path("venv")
    assert installs(w)[1:] == [
        f"{sys.executable} -m pip --version",
        f"{sys.executable} -m venv --clear --without-pip {venv}",
        f"{sys.executable} -m pip install --no-input --target {tmp_path} ipyparallel==9.2.0",
    ]


@pytest.fixture
def as_root(monkeypatch, tmp_path):
    """The agent believes it is root on a server with a user ipp."""
    users = {"ipp": SimpleNamespace(pw_name="ipp", pw_uid=990, pw_gid=990, pw_dir=str(tmp_path / "state"))}
    users["toor"] = SimpleNamespace(pw_name="toor", pw_uid=0, pw_gid=0, pw_dir="/root")
    monkeypatch.setattr(pwd, "getpwnam", users.__getitem__)
    monkeypatch.setattr(pwd, "getpwall", lambda: list(users.values()))
    monkeypatch.setattr(runtime, "acting_as", lambda user: contextlib.nullcontext())
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    return users


def test_debians_python_without_pip_gets_its_venv_package_by_apt(world, tmp_path, as_root):
    image = Image(tmp_path, ensurepip=False, pip=False)
    image.venv = str(tmp_path / "state/.ipp-griffin/venv")
    w = world(run=image, root=True)
    w.agent.private_object["engine_python"] = sys.executable
    w.prepare()
    assert [c for c in w.commands if "apt-get" in c[1]] == [
        ("", "apt-get -y -q -o DPkg::Lock::Timeout=300 update"),
        ("", "apt-get -y -q -o DPkg::Lock::Timeout=300 install python3-venv"),
    ]
    assert {user for user, c in w.commands if "apt-get" not in c} == {"ipp"}  # pip never runs as root
    assert w.agent.runtime.python == image.venv + "/bin/python"


def test_an_image_with_nothing_but_python_takes_pip_from_the_users_index(world, tmp_path):
    net = Net(
        b'<a href="../files/pip-9.0-py3-none-any.whl#sha256=1">pip</a> <a href="../files/pip-26.3-py3-none-any.whl">pip</a>'
        b'<a href="../files/pip-27.0.tar.gz">pip</a>',
        b"the wheel",
    )
    w = world(net, run=Image(tmp_path, ensurepip=False, pip=False))
    w.agent.private_object.update(engine_python=sys.executable, pip_args=["--index-url=http://index/simple"])
    w.prepare()
    assert net.requests == ["http://index/simple/pip/", "http://index/simple/files/pip-26.3-py3-none-any.whl"]
    venv, wheel = w.agent.state.path("venv"), w.agent.state.path("pip-26.3-py3-none-any.whl")
    assert Path(wheel).read_bytes() == b"the wheel"
    assert installs(w)[2:] == [
        f"{sys.executable} -m venv --clear --without-pip {venv}",
        f"{venv}/bin/python {wheel}/pip install --no-input --index-url=http://index/simple ipyparallel==9.2.0",
    ]


@pytest.mark.parametrize("option", [["--find-links={}"], ["-f", "{}"]])
def test_an_image_with_nothing_but_python_takes_pip_from_a_folder_of_its_own(world, tmp_path, option):
    (tmp_path / "wheels").mkdir()
    wheel = tmp_path / "wheels" / "pip-26.3-py3-none-any.whl"
    wheel.touch()
    w = world(run=Image(tmp_path, ensurepip=False, pip=False))
    w.agent.private_object["engine_python"] = sys.executable
    w.agent.private_object["pip_args"] = ["--no-index", *(word.format(wheel.parent) for word in option)]
    w.prepare()
    assert f"/venv/bin/python {wheel}/pip install --no-input --no-index" in installs(w)[-1]


@pytest.mark.parametrize(
    "answers", [[OSError()], [http_error(404)], [b"<html>"], [b'<a href="pip-1-py3-none-any.whl">', OSError()]]
)
def test_an_index_without_pip_is_a_failure_that_says_what_to_do(world, tmp_path, answers):
    w = world(Net(*answers), run=Image(tmp_path, ensurepip=False, pip=False))
    w.agent.private_object.update(engine_python=sys.executable, pip_args=["-i", "http://index/simple"])
    with pytest.raises(Failure, match="Put ipyparallel or python3-venv into the image"):
        w.prepare()


def test_no_way_to_make_a_venv_is_a_failure_that_says_what_to_do(world, tmp_path):
    w = world(run=Image(tmp_path, ensurepip=False, pip=False))
    w.agent.private_object["engine_python"] = sys.executable
    with pytest.raises(Failure, match="ensurepip is not available. Put ipyparallel or python3-venv into the image"):
        w.prepare()


def test_a_python_too_old_is_a_failure_in_pips_words(world, tmp_path):
    w = world(run=Image(tmp_path, index=False))
    w.agent.private_object["engine_python"] = sys.executable
    with pytest.raises(
        Failure, match=r"could not install ipyparallel==9.2.0 for Python 3.9: .*require Python >=3.10 \|"
    ):
        w.prepare()


def test_an_engine_python_that_is_not_there_is_a_failure(world):
    w = world()
    w.agent.private_object["engine_python"] = "/no/such/python"
    with pytest.raises(Failure, match="engine_python /no/such/python is not there"):
        w.prepare()


def test_an_engine_command_of_its_own_needs_no_python(world):
    w = world()
    w.agent.private_object["engine_cmd"] = ["singularity", "run", "engine.sif"]
    w.prepare()
    assert w.commands == [] and w.agent.runtime.python == ""


def test_packages_in_somebodys_home_that_the_engine_user_can_not_read_make_engines_run_as_that_user(
    world, tmp_path, as_root, monkeypatch
):
    home = tmp_path / "ubuntu"
    (home / "venv/bin").mkdir(parents=True)
    python = home / "venv/bin/python"
    python.touch()
    as_root["ubuntu"] = SimpleNamespace(pw_name="ubuntu", pw_uid=1000, pw_gid=1000, pw_dir=str(home))

    def run(argv, user):
        return (0, FOUND) if (argv[0], user) == (str(python), "ubuntu") else (1, "Permission denied")

    w = world(run_as=run, root=True)
    w.prepare()
    assert (w.agent.runtime.user, w.agent.runtime.home, w.agent.runtime.python) == ("ubuntu", str(home), str(python))
    assert w.agent.runtime.notes == ["engines run as ubuntu: the packages are in that home"]


@pytest.mark.parametrize(("name", "problem"), [("toor", "don't run as root"), ("-x y", "is no user name")])
def test_engines_never_run_as_root_and_only_as_a_proper_user(world, as_root, name, problem):
    w = world(root=True)
    w.agent.private_object["engine_user"] = name
    with pytest.raises(Failure, match=problem):
        w.prepare()


def test_a_missing_engine_user_is_made_with_a_home(world, as_root):
    def useradd(argv):
        as_root["worker"] = SimpleNamespace(pw_name="worker", pw_uid=991, pw_gid=991, pw_dir="/home/worker")
        return 0, ""

    w = world(run=useradd, root=True)
    w.agent.private_object["engine_user"] = "worker"
    w.agent.runtime.make_user()
    assert w.commands == [("", "useradd --system --create-home --shell /bin/bash worker")]
    assert (w.agent.runtime.user, w.agent.runtime.home) == ("worker", "/home/worker")


def test_a_user_that_can_not_be_made_is_a_failure(world, as_root):
    w = world(run=lambda argv: (1, "useradd: cannot lock /etc/passwd"), root=True)
    w.agent.private_object["engine_user"] = "worker"
    with pytest.raises(Failure, match="could not make the user worker: useradd: cannot lock"):
        w.agent.runtime.make_user()
