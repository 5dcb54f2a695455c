"""Ways to a cluster beside `ipcluster`: `ipp-griffin` in this process, where another one would show nothing more and take a second, and the SDK."""

import contextlib
import io
import os
import re
from pathlib import Path
from unittest import mock

import openstack

from ipp_griffin.cli import Griffin
from ipp_griffin.cli.command import Command

from ..clouds import Cloud, plain_sdk
from .conftest import Shell


def griffin(shell: Shell, *arguments: str, status: int = 0) -> str:
    """Return what `ipp-griffin` prints to both streams, in this shell's environment; check its status."""
    said, ended = io.StringIO(), 0
    with contextlib.ExitStack() as during:
        during.enter_context(mock.patch.dict(os.environ, shell.env))
        nobody = during.enter_context(Path(os.devnull).open(encoding="utf-8"))
        during.enter_context(mock.patch("sys.stdin", nobody))
        during.enter_context(contextlib.redirect_stdout(said))
        during.enter_context(contextlib.redirect_stderr(said))
        try:
            Griffin.launch_instance(argv=list(arguments))
        except SystemExit as e:
            ended = int(e.code or 0)
        finally:
            for kind in (Griffin, *_below(Command)):
                kind.clear_instance()
    assert ended == status, f"{arguments} ended with {ended}:\n{said.getvalue()}"
    return said.getvalue()


def _below(kind: type[Command]) -> list[type[Command]]:
    return [c for direct in kind.__subclasses__() for c in (direct, *_below(direct))]


def container(shell: Shell) -> str:
    """The option for clouds on which tests have a prefix of their own."""
    return f"--container={getattr(shell.cloud, 'prefix', 'ipp-griffin')}"


def cause(output: str) -> str:
    """Return the one line of what ipcluster printed that says what is wrong; the controller's output has a log of its own."""
    lines = [line for line in output.splitlines() if re.search(r"\[IPCluster\w*\] (CRITICAL|ERROR)", line)]
    assert len(lines) == 1, output
    return lines[0]


def sdk(cloud: Cloud) -> openstack.connection.Connection:
    """The cloud as a user of the plain SDK sees it."""
    return plain_sdk(cloud.clouds_yaml, cloud.name)
