"""The wheel, installed into an environment of its own: all works without a checkout."""

import os
import re
import shutil
import subprocess
import sys
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from .end_to_end.test_demo import demo, living  # noqa: F401

pytestmark = pytest.mark.xdist_group(__name__)  # one wheel for all
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
    done = subprocess.run(command, env={**os.environ, **CACHE}, capture_output=True, text=True)
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
    assert {"ipp_griffin/agent/main.py", "ipp_griffin/profile_griffin/ipcluster_config.json"} <= inside
    assert [name for name in inside if name.endswith("/LICENSE")] != []
    assert entry_points.split("\n\n") == [
        "[console_scripts]\nipp-griffin = ipp_griffin.cli:main",
        "[ipyparallel.controller_launchers]\ngriffin = ipp_griffin.launchers:GriffinControllerLauncher\n"
        "griffin-server = ipp_griffin.launchers:GriffinServerControllerLauncher",
        "[ipyparallel.engine_launchers]\ngriffin = ipp_griffin.launchers:GriffinEngineSetLauncher\n",
    ]


@pytest.fixture
def environment(wheel: Path, tmp_path: Path) -> Path:
    """The bin folder of an environment that holds the wheel and what it declares to need, as it is here, and nothing else."""
    venv = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
    pip = [sys.executable, "-m", "pip", "--python", venv / "bin" / "python"]
    subprocess.run([*pip, "install", "--quiet", "--no-deps", "--no-index", "--no-compile", wheel], check=True)
    (site,) = venv.glob("lib/python*/site-packages")
    (installed,) = metadata.distributions(name="ipp-griffin", path=[str(site)])
    for needed in needs(installed):
        for top in {file.parts[0] for file in needed.files or [] if file.parts[0] not in ("..", "__pycache__")}:
            link(site / top, needed.locate_file(top))
    for script in metadata.distribution("ipyparallel").entry_points.select(group="console_scripts"):
        file = venv / "bin" / script.name
        file.write_text(
            f"#!{venv}/bin/python\nimport sys\nfrom {script.module} import {script.attr}\nsys.exit({script.attr}())\n"
        )
        file.chmod(0o755)
    return venv / "bin"


def needs(installed: metadata.Distribution) -> list[metadata.Distribution]:
    """Of all that it declares to need, and these need, what is installed here."""
    found: dict[str, metadata.Distribution] = {}
    todo = [(text, "") for text in installed.requires or []]
    while todo:
        text, extra = todo.pop()
        requirement = Requirement(text)
        if requirement.marker and not requirement.marker.evaluate({"extra": extra}):
            continue
        needed = metadata.distribution(requirement.name)
        assert requirement.specifier.contains(needed.version, prereleases=True)
        if needed.name not in found or requirement.extras:
            found[needed.name] = needed
            todo += [(text, each) for text in needed.requires or [] for each in ("", *requirement.extras)]
    return list(found.values())


def link(name: Path, target: Path) -> None:
    """Packages of several distributions may share a folder."""
    if not name.exists():
        name.symlink_to(target)
    elif name.resolve() != target.resolve():
        raise AssertionError(f"{name.resolve()} and {target} are both {name.name}")


@pytest.mark.timeout(600)
def test_the_demo_shows_a_whole_cluster_and_an_empty_cloud_without_any_checkout(environment, demo, tmp_path):  # noqa: F811
    """`make demo` with two engines; that they are eight without an argument is in end_to_end/test_demo.py."""
    where = "import ipp_griffin, sys; print(ipp_griffin.__file__, *sys.path, sep='\\n')"
    paths = subprocess.check_output([environment / "python", "-c", where], cwd=tmp_path, text=True).splitlines()
    assert Path(paths[0]).is_relative_to(tmp_path / "venv")
    assert [path for path in paths if Path(path).is_relative_to(REPO)] == []

    process = demo("2", path=environment)
    output = process.communicate(timeout=500)[0]
    assert process.returncode == 0, output
    assert "Traceback" not in output
    assert "2 engines: [0, 1]" in output
    assert len(re.findall(r"^  engine \d is on griffin-", output, re.MULTILINE)) == 2
    assert "pi is about 3.1" in output
    assert output.rstrip().endswith("Servers: none\nContainers: none")
    assert living(tmp_path) == []
