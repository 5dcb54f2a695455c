"""`Server`: what Nova says of one server."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Server:
    """One Nova server.

    ``status`` is Nova's (BUILD, ACTIVE, ERROR, SHUTOFF, ...), ``fault`` why it is in ERROR, ``address`` its
    first fixed address ("" until it has one), ``created`` and ``launched`` (when it became ACTIVE first, "" till then)
    ISO 8601 in UTC, ``user_id`` of who created it, ``flavor`` the name that its flavor had then; these and ``vcpus`` are not in
    what a creation returns.
    """

    id: str
    name: str
    status: str
    fault: str = ""
    address: str = ""
    tags: tuple[str, ...] = ()
    metadata: Mapping[str, str] = field(default_factory=dict)
    created: str = ""
    user_id: str = ""
    vcpus: int = 0
    launched: str = ""
    flavor: str = ""
