"""Build the user-data of a server from its plan and the agent's program. Pure.

The user-data is the agent's program itself: the modules of `ipp_griffin.agent` joined into one file, with this server's parameters put
in. They hold no secret but the signatures of the URLs; what engines need beyond them is in the private object that the agent fetches.
"""

from __future__ import annotations

import ast
import gzip
import json
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from typing import Any

from ..common.errors import SettingError
from .plan import ServerPlan

PLACEHOLDER = "PARAMETERS: Json = {}\n"
LIMIT = 49_149  # bytes: Nova refuses more than 65,535 characters of base64 (api-ref/compute, user_data)


@dataclass(frozen=True)
class UserDataSettings:
    """What the user-data of all servers of a set have in common. Times in seconds.

    ``read_seconds`` and ``report_seconds``: how long the URLs for the private object and for reports are valid; ``fetch_timeout``: how
    long the agent tries to read the former; ``ca_certificates``: PEM text; ``expires``: when the server powers itself off, in seconds
    since 1970 by the store's clock (0: never); ``role``: "controller", or "" for engines.
    """

    read_seconds: int
    report_seconds: int
    fetch_timeout: int
    proxy: str = ""
    ca_certificates: str = ""
    expires: int = 0
    role: str = ""


@lru_cache(maxsize=1)
def agent_source() -> str:
    """Return the agent as one program: `ipp_griffin.agent.main`, after all that it imports from its folder."""
    folder = resources.files("ipp_griffin.agent")
    return join("main", lambda name: (folder / f"{name}.py").read_text(encoding="utf-8"))


def join(main: str, read: Callable[[str], str]) -> str:
    """Return a module and those it imports from its folder as one program. ``read`` gives the source of a module by its name.

    They import names of one another (``from .system import read``), never modules, and define no name twice: they share one namespace.
    Raises ValueError for a module that has anything but its docstring before its last import, or that renames what it imports.
    """
    modules: set[str] = set()
    names: dict[str, set[str]] = {}  # what is imported from each module of the standard library
    done: set[str] = set()
    parts: list[str] = []

    def add(name: str) -> str:
        done.add(name)
        source = read(name)
        module = ast.parse(source)
        docstring = ast.get_docstring(module)
        imports = [node for node in module.body if isinstance(node, ast.Import | ast.ImportFrom)]
        if docstring is None or module.body[1 : len(imports) + 1] != imports:
            raise ValueError(f"the agent's module {name} does not begin with a docstring and its imports")
        if renamed := [alias.name for node in imports for alias in node.names if alias.asname]:
            raise ValueError(f"the agent's module {name} renames what it imports: {', '.join(renamed)}")
        for node in imports:
            if isinstance(node, ast.Import):
                modules.update(alias.name for alias in node.names)
            elif not node.level:
                names.setdefault(str(node.module), set()).update(alias.name for alias in node.names)
            elif node.module not in done:
                add(str(node.module))
        end = module.body[len(imports)].end_lineno
        comment = [f"# {line}".rstrip() for line in docstring.split("\n")]
        parts.append("\n".join(["# " + "=" * 118, *comment, *source.rstrip("\n").split("\n")[end:]]))
        return docstring

    docstring = add(main)
    imports = [f"import {name}" for name in sorted(modules)]
    imports += [f"from {name} import {', '.join(sorted(found))}" for name, found in sorted(names.items())]
    return "\n".join(["#!/usr/bin/env python3", f'"""{docstring}\n"""', "", *imports, "", "", "\n\n\n".join(parts), ""])


def server_parameters(
    server: ServerPlan,
    settings: UserDataSettings,
    *,
    uid: str,
    private_object_url: str,
    report_urls: Mapping[str, Any],
) -> dict[str, Any]:
    """Return the parameters of one server's agent. ``report_urls``, as `store` returns them: {"prefix": …, "query": …}, or {"urls": {phase:
    url}}.

    Raises `SettingError` for invalid certificates: the agent could not even report that.
    """
    if settings.ca_certificates:
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=settings.ca_certificates)
        except (ssl.SSLError, ValueError) as e:
            raise SettingError(f"GriffinCloud.ca_certificates does not have certificates in PEM format: {e}") from e
    return {
        **({"role": settings.role} if settings.role else {}),
        "version": 1,
        "uid": uid,
        "engine_set": server.place.engine_set,
        "slot": server.place.slot,
        "incarnation": server.place.incarnation,
        "server": server.name,
        "engines": server.engines,
        "private_object": private_object_url,
        "reports": dict(report_urls),
        "fetch_timeout": settings.fetch_timeout,
        "proxy": settings.proxy,
        "ca_certificates": settings.ca_certificates,
        "expires": settings.expires,
    }


def render(parameters: Mapping[str, object], agent_source: str) -> bytes:
    """Return the program with ``parameters`` in it: what cloud-init runs.

    Raises ValueError if the program does not have exactly one place for them, or if they can't be written as a literal.
    """
    before, after = _around(agent_source)
    return b"".join((before, _line(parameters), after))


def user_data(parameters: Mapping[str, object], agent_source: str) -> bytes:
    """Return what `render` returns, compressed with gzip, which cloud-init accepts: a third of the size leaves room for certificates.

    Raises what `render` raises, and `SettingError` if the result is too large for Nova.
    """
    before, after = _compressed(agent_source)
    data = b"".join((before, _gzip(_line(parameters)), after))
    if len(data) > LIMIT:
        size = len(str(parameters.get("ca_certificates", "")).encode())
        raise SettingError(
            f"The user-data has {len(data)} bytes, but Nova takes {LIMIT} at most; {size} bytes of it, "
            "uncompressed, are certificates. Set GriffinCloud.ca_certificates to a file with only the CA "
            "certificate that signed the object store's."
        )
    return data


def _line(parameters: Mapping[str, object]) -> bytes:
    """Return the parameters as a line of the program."""
    literal = json.dumps(parameters, ensure_ascii=False, sort_keys=True)
    if ast.literal_eval(literal) != parameters:
        raise ValueError("these parameters can't be written into a Python program")
    return PLACEHOLDER.replace("{}", literal).encode()


@lru_cache(maxsize=1)
def _around(agent_source: str) -> tuple[bytes, bytes]:
    """Return the program before and after its parameters."""
    lines = agent_source.splitlines(keepends=True)
    if lines.count(PLACEHOLDER) != 1:
        raise ValueError(f"the agent's program has {lines.count(PLACEHOLDER)} lines {PLACEHOLDER.strip()!r}, not one")
    place = lines.index(PLACEHOLDER)
    return "".join(lines[:place]).encode(), "".join(lines[place + 1 :]).encode()


@lru_cache(maxsize=1)
def _compressed(agent_source: str) -> tuple[bytes, bytes]:
    """Return `_around`, compressed once for all servers: a gzip file may have several parts (RFC 1952, 2.2)."""
    before, after = _around(agent_source)
    return _gzip(before), _gzip(after)


def _gzip(data: bytes) -> bytes:
    return gzip.compress(data, mtime=0)
