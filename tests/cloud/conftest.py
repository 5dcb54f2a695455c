"""A clouds.yaml with what the test wants in it, and a login by it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ipp_griffin.cloud.cloud import Cloud

from ..openstack_responses import AUTH, write_clouds_yaml


@pytest.fixture
def configure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """``configure(top={...}, entry=..., url=..., key=value, ...)``: more keys for the file; the entry ``fake``; its auth_url; more keys for it."""
    monkeypatch.chdir(tmp_path)

    def write(*, url: str = AUTH, top: dict[str, Any] | None = None, entry: Any = ..., **keys: Any) -> Path:
        path = write_clouds_yaml(tmp_path, auth_url=url)
        content = json.loads(path.read_text())
        content["clouds"]["fake"].update(keys)
        if entry is not ...:
            content["clouds"]["fake"] = entry
        path.write_text(json.dumps(content | (top or {})))
        monkeypatch.setenv("OS_CLIENT_CONFIG_FILE", str(path))
        return path

    write()
    return write


def connect() -> Cloud:
    """Log in by that entry; no test sleeps."""
    return Cloud.connect("fake", sleep=lambda seconds: None)
