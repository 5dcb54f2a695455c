"""Make text that comes from elsewhere safe to print and to log: one line, no control characters, no secrets."""

from __future__ import annotations

import re
import shlex
import unicodedata


def one_line(text: object, limit: int = 300) -> str:
    """Return ``text`` as one printable line of at most ``limit`` characters, with secrets cut out.

    Control characters, and those that reorder or hide text, are escaped: what a service or a server says
    ends up on terminals and in logs.
    """
    line = printable(redact(" ".join(str(text).split())))
    return line if len(line) <= limit else line[: limit - 1] + "…"


def printable(text: str) -> str:
    """Return ``text`` with control characters, also newlines, and those that reorder or hide text, escaped."""
    if text.isprintable():
        return text
    return "".join(c if _printable(c) else c.encode("unicode_escape").decode() for c in text)


def typed(name: str) -> str:
    """Return ``name`` quoted for a shell: exact, on one line, without control characters."""
    if re.fullmatch(r"[\w@%+=:,./-]+", name):
        return name
    if name.isprintable():
        return shlex.quote(name)
    safe = (c if c.isprintable() and c not in "\\'" else "".join(f"\\{byte:03o}" for byte in _bytes(c)) for c in name)
    return f"$'{''.join(safe)}'"


def _bytes(text: str) -> bytes:
    """Return ``text`` in UTF-8; bytes of a file's name that are not UTF-8 are kept."""
    return text.encode(errors="surrogateescape")


def _printable(character: str) -> bool:
    return unicodedata.category(character)[0] not in "CZ" or character == " "


_SECRETS = re.compile(
    r"(?i)(temp_url_sig=)[0-9a-z%+/=:_-]+"
    r"|(x-(?:auth|subject|storage|service)-token\W{1,4}|temp-url-key(?:-2)?\W{1,4})[^\s'\",}]+"
    r"|(\"?(?:adminpass|password|secret)\"?\s*[:=]\s*)(?:\"[^\"]*\"|'[^']*'|[^\s,}]+)"
    r"|\b(gAAAA)[0-9A-Za-z_=-]{20,}"
    r"|[0-9A-Za-z+_-]{80,}={0,2}|[0-9A-Za-z+/_-]{200,}={0,2}"  # base64: user-data echoed back, other tokens
)


def redact(text: str) -> str:
    """Return ``text`` without TempURL signatures and keys, tokens and passwords."""
    return _SECRETS.sub(lambda match: "".join(part or "" for part in match.groups()) + "[redacted]", text)
