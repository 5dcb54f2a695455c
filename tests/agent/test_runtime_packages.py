"""The agent installs a package with real processes: venv and pip, on this machine, from a folder."""

import json
import subprocess
import sys
import zipfile

import ipyparallel
import pytest

from ipp_griffin.agent.runtime import PROBE_PROGRAM

from .world import World


def run(argv: list[str]) -> tuple[int, str]:
    """Run a command, on an image whose Python has no ensurepip, which would take eight seconds."""
    if argv[1:3] == ["-m", "venv"] and "--without-pip" not in argv:
        return 1, "ensurepip is not available"
    done = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return done.returncode, done.stdout


def test_a_package_is_installed_into_a_venv_that_sees_what_the_image_has(tmp_path):
    metadata = "griffin_probe-1.dist-info"
    with zipfile.ZipFile(tmp_path / "griffin_probe-1-py3-none-any.whl", "w") as wheel:
        wheel.writestr("griffin_probe.py", "answer = 42\n")
        wheel.writestr(f"{metadata}/METADATA", "Metadata-Version: 2.1\nName: griffin_probe\nVersion: 1\n")
        wheel.writestr(f"{metadata}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{metadata}/RECORD", "")
    world = World(tmp_path / "state", run=run)
    world.agent.private_object.update(
        ipyparallel=ipyparallel.__version__,
        engine_python=sys.executable,
        packages=["griffin-probe"],
        pip_args=["--no-index", f"--find-links={tmp_path}"],
    )
    world.prepare()
    python = world.agent.runtime.python
    assert python == world.agent.state.path("venv/bin/python")
    program = "import griffin_probe, importlib.util as u; print(griffin_probe.answer, bool(u.find_spec('ipyparallel')))"
    assert run([python, "-c", program]) == (0, "42 True\n")


@pytest.mark.parametrize(
    ("files", "version"),
    [
        ({"_version.py": '__version__ = "9.2.0"\n', "__init__.py": "raise SystemExit('imported')"}, "9.2.0"),
        ({"_version.py": "__version__ = '.'.join('63')\n", "__init__.py": "from ._version import __version__"}, "6.3"),
        ({"__init__.py": "__version__ = '5.0'"}, "5.0"),
        ({}, ""),
    ],
    ids=["as it is now", "computed", "without the file", "not there"],
)
def test_the_version_of_ipyparallel_is_found_without_importing_it_where_that_can_be(tmp_path, files, version):
    for name, text in files.items():
        (tmp_path / "ipyparallel").mkdir(exist_ok=True)
        (tmp_path / "ipyparallel" / name).write_text(text)
    program = f"import sys; sys.path = [{str(tmp_path)!r}] + [p for p in sys.path if 'site-packages' not in p]\n"
    done = subprocess.run(
        [sys.executable, "-S", "-c", program + PROBE_PROGRAM], stdout=subprocess.PIPE, text=True, check=True
    )
    assert json.loads(done.stdout)["ipyparallel"] == version
