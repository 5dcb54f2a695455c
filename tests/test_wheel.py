"""The wheel, installed into an empty environment: all works without a checkout."""

import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

REPO = Path(__file__).parents[1]
SOURCES = ["setup.cfg", "pyproject.toml", "README.md", "LICENSE", "ipp_griffin", "profile_griffin"]
CACHE = {"PIP_CACHE_DIR": str(REPO / ".tools" / "pip")}  # the home of the tests is empty


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy: what an earlier build left in the checkout must not get into it."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    for name in SOURCES:
        if (REPO / name).is_dir():
            shutil.copytree(REPO / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(REPO / name, source)
    command = [sys.executable, "-m", "build", "--wheel", "--outdir", str(target), str(source)]
    done = subprocess.run(command, env={**os.environ, **CACHE}, capture_output=True, text=True, timeout=170)
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = target.iterdir()
    return built


def test_it_contains_every_file_of_the_package_and_the_profile(wheel):
    with zipfile.ZipFile(wheel) as archive:
        inside = set(archive.namelist())
        (entry_points,) = (archive.read(name).decode() for name in inside if name.endswith("/entry_points.txt"))
    package = {str(p.relative_to(REPO)) for p in (REPO / "ipp_griffin").rglob("*.py")}
    profile = {f"ipp_griffin/profile_griffin/{p.name}" for p in (REPO / "profile_griffin").glob("*.*")}
    assert {name for name in inside if ".dist-info/" not in name} == package | profile | {"ipp_griffin/py.typed"}
    assert {"ipp_griffin/agent.py", "ipp_griffin/profile_griffin/ipcluster_config.json"} <= inside
    assert [name for name in inside if name.endswith("/LICENSE")] != []
    assert entry_points.split("\n\n") == [
        "[console_scripts]\nipp-griffin = ipp_griffin.cli:main",
        "[ipyparallel.controller_launchers]\ngriffin = ipp_griffin.launchers:GriffinControllerLauncher\n"
        "griffin-server = ipp_griffin.launchers:GriffinServerControllerLauncher",
        "[ipyparallel.engine_launchers]\ngriffin = ipp_griffin.launchers:GriffinEngineSetLauncher\n",
    ]


@pytest.fixture
def run(wheel: Path, tmp_path: Path) -> Iterator[Callable[..., str]]:
    """Run a command of an environment that holds the wheel and what it needs, in an empty home."""
    venv, home = tmp_path / "venv", tmp_path / "home"
    home.mkdir()
    env = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}
    env |= {"HOME": str(home), "IPYTHONDIR": str(home / ".ipython")}

    def run(*command: str, timeout: float = 90, **more: str) -> str:
        done = subprocess.run(
            command,
            env={**env, **more},
            cwd=home,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout,
        )
        assert done.returncode == 0, f"{command} ended with {done.returncode}:\n{done.stdout}"
        return done.stdout

    run(sys.executable, "-m", "venv", str(venv))
    run(str(venv / "bin" / "python"), "-m", "pip", "install", "--quiet", str(wheel), timeout=500, **CACHE)
    env["PATH"] = f"{venv / 'bin'}:{os.environ['PATH']}"
    try:
        yield run
    finally:
        subprocess.run(["ipcluster", "stop", "--profile=griffin"], env=env, cwd=home, capture_output=True, timeout=60)
        run("ipp-griffin", "devcloud", "stop")


APPLY = """
import ipyparallel as ipp
with ipp.Client(profile="griffin") as rc:
    print(rc.ids, rc[:].map_sync(abs, [-1, -2]))
"""


@pytest.mark.timeout(600)
def test_a_cluster_from_start_to_stop_without_any_checkout(run, tmp_path):
    where = "import ipp_griffin, sys; print(ipp_griffin.__file__, *sys.path, sep='\\n')"
    paths = run("python", "-c", where).splitlines()
    assert paths[0].startswith(str(tmp_path / "venv"))
    assert [path for path in paths if Path(path).is_relative_to(REPO)] == []

    run("ipp-griffin", "devcloud", "start", "--boot-time", "0.3")
    exported = run("ipp-griffin", "devcloud", "env").splitlines()
    cloud = {"OS_CLIENT_CONFIG_FILE": str(tmp_path / "home/.local/state/ipp-griffin/devcloud/clouds.yaml")}
    assert exported == [f"export {name}={value}" for name, value in {**cloud, "OS_CLOUD": "devcloud"}.items()]

    run("ipp-griffin", "init", "--cloud", "devcloud")
    with (tmp_path / "home/.ipython/profile_griffin/ipcontroller_config.py").open("a") as config:
        config.write("c.HeartMonitor.period = 200\n")
    run("ipcluster", "start", "--profile=griffin", "-n", "2", "--daemonize", **cloud)
    assert run("python", "-c", APPLY) == "[0, 1] [1, 2]\n"
    assert "Servers: griffin-" in run("ipp-griffin", "devcloud", "status")
    run("ipcluster", "stop", "--profile=griffin", **cloud)
    assert run("ipp-griffin", "devcloud", "status").splitlines()[1:] == ["Servers: none", "Containers: none"]
