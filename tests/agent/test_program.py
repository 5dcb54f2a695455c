"""The one program that the agent's modules are joined into."""

import ast
import sys
from pathlib import Path

import pytest

from ipp_griffin.agent import main
from ipp_griffin.model.userdata import agent_source, join


def test_python_3_6_can_parse_it():
    """An old image must get as far as starting a newer Python."""
    ast.parse(agent_source(), feature_version=(3, 6))


def test_it_imports_the_standard_library_only():
    modules = set()
    for node in ast.walk(ast.parse(agent_source())):
        if isinstance(node, ast.Import):
            modules.update(alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            modules.add(str(node.module).partition(".")[0])
    assert modules <= sys.stdlib_module_names


def test_its_modules_define_no_name_twice():
    """They share one namespace on the server."""
    program = ast.parse(agent_source())
    defined = [node.name for node in program.body if isinstance(node, ast.FunctionDef | ast.ClassDef)]
    for node in program.body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        defined += [name.id for target in targets if target for name in ast.walk(target) if isinstance(name, ast.Name)]
    imports = [node for node in program.body if isinstance(node, ast.Import | ast.ImportFrom)]
    defined += {alias.name.partition(".")[0] for node in imports for alias in node.names}
    assert sorted(defined) == sorted(set(defined))


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ("import os\n\nx = 1\n", "does not begin with a docstring and its imports"),
        ('"""Do."""\n\nimport os\n\nx = 1\nimport re\n', "does not begin with a docstring and its imports"),
        ('"""Do."""\n\nimport os as system\n', "renames what it imports: os"),
        ('"""Do."""\n\nfrom .a import one as two\n', "renames what it imports: one"),
    ],
)
def test_a_module_that_can_not_be_joined_is_refused(source, problem):
    with pytest.raises(ValueError, match=problem):
        join("main", lambda name: source)


def test_every_module_of_the_folder_is_in_it_but_the_one_that_travels_by_itself():
    program = agent_source()
    sources = {path.stem: path.read_text() for path in Path(main.__file__).parent.glob("*.py")}
    missing = {name for name, source in sources.items() if source[-200:] not in program}
    assert missing == {"__init__", "uploader"}


def test_a_name_is_imported_before_it_is_used_whatever_the_order_of_the_imports():
    modules = {
        "main": '"""Begin."""\nimport os\n\nfrom .b import two\nfrom .a import one\n\nassert two == 2 * one, os.sep\n',
        "b": '"""Say two."""\nfrom typing import (\n    Any,\n    List,\n)\n\nfrom .a import one\n\ntwo: Any = 2 * one\n',
        "a": '"""Say one."""\nfrom typing import List\n\none = 1  # not two\n',
    }
    program = join("main", modules.__getitem__)
    assert program.splitlines()[:6] == [
        "#!/usr/bin/env python3",
        '"""Begin.',
        '"""',
        "",
        "import os",
        "from typing import Any, List",
    ]
    assert program.index("# Say one.") < program.index("# not two") < program.index("# Say two.")
    exec(compile(program, "program", "exec"), {})
