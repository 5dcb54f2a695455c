"""Access rules of application credentials: which requests the holder may make, of those that the roles allow.

As openstack/keystonemiddleware has them (keystonemiddleware/auth_token/__init__.py: ``validate_allowed_request``,
``_path_matches``), in front of every service and in Keystone itself. API:
https://docs.openstack.org/api-ref/identity/v3/#application-credentials
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

_PREFIXED = ("identity", "compute", "image", "network")  # as behind a proxy: the services see their own paths


@dataclass(frozen=True)
class AccessRule:
    """``path``: ``*`` and ``{name}`` stand for (a part of) one segment, ``**`` for anything."""

    service: str
    method: str
    path: str

    @classmethod
    def parse(cls, given: dict[str, Any]) -> AccessRule:
        """Raises ValueError for what is none."""
        texts = [given.get(key) for key in ("service", "method", "path")]
        methods = ("DELETE", "GET", "HEAD", "PATCH", "POST", "PUT")
        if not all(isinstance(text, str) for text in texts) or texts[1] not in methods or texts[2][:1] != "/":  # type: ignore[index]
            raise ValueError(f"no access rule: {given}")
        return cls(*map(str, texts))

    def fits(self, service: str, method: str, path: str) -> bool:
        if (self.service, self.method) != (service, method):
            return False
        parts = re.findall(r"\{[^}]*\}|\*\*|\*|[^{*]", self.path)
        wild = {"**": ".*", "*": "[^/]+"}
        regex = "".join(wild.get(part, "[^/]+" if part[0] == "{" else re.escape(part)) for part in parts)
        return re.fullmatch(regex, path) is not None


def allowed(rules: Iterable[AccessRule] | None, service: str, method: str, path: str) -> bool:
    """Return whether a token with these ``rules`` (None: it has none) may make this request to a service, under this cloud's ``path``."""
    if rules is None:
        return True
    if service in _PREFIXED:
        path = path.removeprefix(f"/{service}")
    if service == "identity" and method == "GET" and path.endswith("/v3/auth/tokens"):
        return True
    # Ceph's gateway knows no such rules, and Keystone says nothing of such a token to a service that does not
    # (openstack/keystone, keystone/token/provider.py: ``_validate_token_access_rules``).
    knows = not path.startswith("/swift/")
    return knows and any(rule.fits(service, method, path) for rule in rules)
