"""Application credentials with access rules: those that docs/clouds.md lists, or fewer."""

from __future__ import annotations

import contextlib
import json
import re
import secrets
from collections.abc import Iterator
from pathlib import Path

import yaml

from .clouds import REPO, plain_sdk

DOCUMENT = REPO / "docs" / "clouds.md"
Rule = dict[str, str]


def documented(prefix: str = "ipp-griffin") -> list[Rule]:
    """The rules as they are in the documentation, for containers whose names begin with ``prefix``."""
    (text,) = re.findall(r"```json\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    rules: list[Rule] = json.loads(text)
    return [{**rule, "path": rule["path"].replace("/ipp-griffin-", f"/{prefix}-")} for rule in rules]


@contextlib.contextmanager
def limited(clouds_yaml: Path, name: str, rules: list[Rule], target: Path) -> Iterator[Path]:
    """A clouds.yaml, at ``target``, whose entry ``name`` is an application credential with the role member and these rules."""
    entry = yaml.safe_load(clouds_yaml.read_text())["clouds"][name]
    secret = secrets.token_urlsafe(16)
    with plain_sdk(clouds_yaml, name) as connection:
        user = connection.current_user_id
        made = connection.identity.create_application_credential(
            user,
            f"griffin-test-{secrets.token_hex(4)}",
            secret=secret,
            roles=[{"name": "member"}],
            access_rules=rules,
        )
        auth = {
            "auth_url": entry["auth"]["auth_url"],
            "application_credential_id": made.id,
            "application_credential_secret": secret,
        }
        target.write_text(
            yaml.safe_dump({"clouds": {name: {**entry, "auth_type": "v3applicationcredential", "auth": auth}}})
        )
        try:
            yield target
        finally:
            connection.identity.delete_application_credential(user, made)
