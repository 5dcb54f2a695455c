"""How the package is laid out: what loads what, and what is declared. Who may import whom: `make lint`, by import-linter."""

import ast
import configparser
import json
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

REPO = Path(__file__).parents[1]
SDK = {"openstack", "keystoneauth1", "swiftclient", "requests"}
LAUNCHERS = """
import ipp_griffin.launchers.controller, ipp_griffin.launchers.engines, ipp_griffin.launchers.server_controller
"""
MODEL = """
import pkgutil, importlib, ipp_griffin.model
for module in pkgutil.iter_modules(ipp_griffin.model.__path__, "ipp_griffin.model."):
    importlib.import_module(module.name)
"""
HELP = """
import contextlib, io
from traitlets.config import Application
from ipp_griffin.cli import Griffin
for arguments in ([], *([name] for name in Griffin.subcommands)):
    while Application.initialized():
        type(Application.instance()).clear_instance()
    with contextlib.redirect_stdout(io.StringIO()) as said, contextlib.suppress(SystemExit):
        Griffin.launch_instance([*arguments, "--help"])
    assert "Options" in said.getvalue(), arguments
"""


def loaded_by(program: str) -> set[str]:
    """The top-level modules that are loaded after it."""
    end = "\nimport json, sys\nprint(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))"
    done = subprocess.run([sys.executable, "-c", program + end], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout))


@pytest.mark.parametrize("program", [LAUNCHERS, MODEL], ids=["launchers", "model"])
def test_importing_them_loads_no_sdk(program):
    """ipcluster imports the launchers in every run, whichever it uses."""
    assert loaded_by(program) & SDK == set()


def test_the_help_of_no_command_waits_for_a_library():
    assert loaded_by(HELP) & {*SDK, "ipyparallel", "IPython", "zmq", "tornado", "yaml"} == set()


def test_what_the_package_imports_is_declared():
    """Not by way of what another library needs today."""
    setup = configparser.ConfigParser()
    setup.read(REPO / "setup.cfg")
    declared = {
        normal(re.match(r"[\w.-]+", line)[0]) for line in setup["options"]["install_requires"].split("\n") if line
    }
    distributions = metadata.packages_distributions()
    imported = {
        name.partition(".")[0]
        for path in (REPO / "ipp_griffin").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        for name in imports(node)
    }
    foreign = imported - set(sys.stdlib_module_names) - {"ipp_griffin"}
    assert {name for name in foreign if not declared & {normal(one) for one in distributions[name]}} == set()


def imports(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    return [node.module] if isinstance(node, ast.ImportFrom) and node.module and not node.level else []


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


PAGES = [*REPO.glob("*.md"), *(REPO / "docs").glob("*.md"), *(REPO / "tests").rglob("README.md")]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPO)))
def test_the_links_of_a_page_lead_to_files_and_headings(page):
    for file, anchor in re.findall(r"\]\((?![a-z]+:)([^)#]*)(?:#([^)]*))?\)", page.read_text()):
        target = page.parent / file if file else page
        assert target.exists(), (file, anchor)
        if anchor:
            headings = re.findall(r"(?m)^#+ (.*)$", target.read_text())
            assert anchor in [re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings], anchor
