"""Ways to a cluster beside `ipcluster`: `ipp-griffin` in this process, where another one would show nothing more and take a second, and the SDK."""

import os
import re
from pathlib import Path
from unittest import mock

import openstack

from ..clouds import Cloud, plain_sdk
from ..conftest import ipp_griffin
from .conftest import Shell


def griffin(shell: Shell, *arguments: str, status: int = 0) -> str:
    """Return what `ipp-griffin` prints to both streams, in this shell's environment; check its status."""
    with (
        Path(os.devnull).open(encoding="utf-8") as nobody,
        mock.patch.dict(os.environ, shell.env),
        mock.patch("sys.stdin", nobody),
    ):
        ended, out, err = ipp_griffin(*arguments)
    assert ended == status, f"{arguments} ended with {ended}:\n{out}{err}"
    return out + err


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
