"""Fixtures of the dev cloud's tests: a running cloud, and plain HTTP to it."""

import base64
import functools
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import openstack
import pytest
import requests

from ipp_griffin.devcloud import DevCloud

from ..clouds import client_tools


def wait_for(what: Callable[[], object], timeout: float = 60.0) -> object:
    """The first true value of ``what()``; fails after ``timeout`` seconds."""
    deadline = time.monotonic() + timeout
    while not (value := what()):
        assert time.monotonic() < deadline, f"waited {timeout} s in vain"
        time.sleep(0.02)
    return value


def script(text: str) -> str:
    """User-data of a shell script, as Nova takes it."""
    return base64.b64encode(f"#!/bin/sh\n{text}\n".encode()).decode()


def connect(cloud: DevCloud, name: str = "devcloud") -> openstack.connection.Connection:
    config = openstack.config.OpenStackConfig(config_files=[str(cloud.clouds_yaml)], load_envvars=False)
    return openstack.connection.Connection(config=config.get_one(cloud=name))


def create(connection: openstack.connection.Connection, name: str = "box", **more: object):
    """One small server on devnet, through the SDK."""
    options = {
        "image_id": connection.image.find_image("snapshot10").id,
        "flavor_id": connection.compute.find_flavor("dev.small").id,
        "networks": [{"uuid": connection.network.find_network("devnet").id}],
        **more,
    }
    return connection.compute.create_server(name=name, **options)


@pytest.fixture
def connection(dev: DevCloud) -> Iterator[openstack.connection.Connection]:
    with connect(dev) as opened:
        yield opened


@pytest.fixture
def server(connection: openstack.connection.Connection) -> object:
    """A server that is ACTIVE."""
    made = create(connection)
    return wait_for(lambda: (s := connection.compute.get_server(made.id)).status == "ACTIVE" and s)


@pytest.fixture
def http(dev: DevCloud) -> Iterator[Callable[..., requests.Response]]:
    """``http(method, path, version=..., json=..., ...)`` with a valid token, straight at the dev cloud."""
    with requests.Session() as session:
        session.trust_env = False

        @functools.cache
        def log_in() -> str:
            user = dev.state.users[0]
            who = {"name": user.name, "password": user.password, "domain": {"name": "Default"}}
            identity = {"methods": ["password"], "password": {"user": who}}
            scope = {"project": {"name": user.project.name, "domain": {"name": "Default"}}}
            content = {"auth": {"identity": identity, "scope": scope}}
            answer = session.post(f"{dev.url}/identity/v3/auth/tokens", json=content, timeout=60)
            return answer.headers["X-Subject-Token"]

        def call(method: str, path: str, *, version: str = "2.96", token: str | None = None, **more: object):
            headers = {"X-Auth-Token": log_in() if token is None else token}
            headers |= {"OpenStack-API-Version": f"compute {version}", **more.pop("headers", {})}
            return session.request(method, dev.url + path, headers=headers, **{"timeout": 60, **more})

        yield call


@pytest.fixture(scope="session")
def clients() -> Path:
    """The folder of the real ``openstack`` and ``swift`` commands."""
    return client_tools()
