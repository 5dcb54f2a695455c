"""The agent installs a package with real processes: venv and pip, on this machine, from a folder."""

import subprocess
import sys
import zipfile

import ipyparallel

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
