"""`redaction`: a process that neither logs nor prints the keys in its environment."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

KEY = "5ecre7-signing'key"
PROGRAM = """
import logging, os, sys
from ipp_griffin.controller.redaction import redact_this_process
key = os.environ["IPP_SESSION_KEY"]
redact_this_process([key, ""])
logging.basicConfig(level=logging.DEBUG, stream=sys.stderr, format="%(message)s")
logging.getLogger().addHandler(logging.FileHandler("own.log"))
log = logging.getLogger("x")
log.debug("config: %r", {"key": key.encode()})
log.debug("as it is: " + key)
log.info("%(key)s", {"key": key})
log.info("100% of it")
print("printed", key, sys.argv[1:])
sys.stdout.writelines([key, "\\n"])
sys.stderr.flush()
if sys.argv[1] == "raises":
    raise ValueError(f"bad key {key}")
"""


def run(tmp_path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    (tmp_path / "program.py").write_text(PROGRAM)
    return subprocess.run(
        [sys.executable, "program.py", *arguments],
        env={**os.environ, "IPP_SESSION_KEY": KEY},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize("how", ["ends", "raises"])
def test_no_log_of_whatever_handler_no_print_and_no_traceback_shows_a_key(tmp_path: Path, how: str) -> None:
    done = run(tmp_path, how, "--flag=1")
    assert done.returncode == (1 if how == "raises" else 0)
    log = (tmp_path / "own.log").read_text()
    for text in (done.stdout, done.stderr, log):
        assert "5ecre7" not in text
    assert log.splitlines() == ["config: {'key': b\"***\"}", "as it is: ***", "***", "100% of it"]
    assert done.stdout.splitlines() == [f"printed *** ['{how}', '--flag=1']", "***"]
    assert done.stderr.startswith(log)
    assert ("ValueError: bad key ***" in done.stderr) == (how == "raises")


def test_files_that_it_makes_are_its_owners_only(tmp_path: Path) -> None:
    run(tmp_path, "ends")
    assert (tmp_path / "own.log").stat().st_mode & 0o777 == 0o600
