"""Which CA certificates servers must be given: those of the cloud's ``cacert`` that no image has of itself."""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterable
from pathlib import Path

import certifi

# What somebody made this machine trust: Debian's and Ubuntu's, Red Hat's, SUSE's and Arch's folders. Images have none of it.
ADDED = (
    Path("/usr/local/share/ca-certificates"),
    Path("/etc/pki/ca-trust/source/anchors"),
    Path("/etc/pki/trust/anchors"),
    Path("/etc/ca-certificates/trust-source/anchors"),
)


def read(path: Path) -> str:
    """The text of a file, or of all files of a folder of certificates (whose hashed names are links to the others).

    Raises OSError, or UnicodeDecodeError where it is no text.
    """
    files = sorted({file.resolve() for file in path.iterdir()} if path.is_dir() else {path})
    return "".join(file.read_text() for file in files if not file.is_dir())


def private(text: str, *, added: Iterable[Path] = ADDED) -> str:
    """The certificates that images don't have of themselves: a cacert may be a whole system's.

    They have the public ones (certifi's), and what came with a system like this one, but not what was ``added`` to it.
    Raises ValueError for what is no certificate.
    """
    theirs = {ssl.PEM_cert_to_DER_cert(block) for block in _blocks(certifi.contents())} | _of_this_system()
    for folder in added:
        theirs -= {ssl.PEM_cert_to_DER_cert(block) for block in _blocks(_quietly(folder))}
    return "".join(f"{block}\n" for block in _blocks(text) if ssl.PEM_cert_to_DER_cert(block) not in theirs)


def _of_this_system() -> set[bytes]:
    """Those that OpenSSL finds here: in one file, or, on older Debian and Ubuntu, in a folder only."""
    found = set(ssl.create_default_context().get_ca_certs(binary_form=True))
    folder = ssl.get_default_verify_paths().capath
    return found | {ssl.PEM_cert_to_DER_cert(block) for block in _blocks(_quietly(Path(folder)) if folder else "")}


def _quietly(folder: Path) -> str:
    try:
        return read(folder) if folder.is_dir() else ""
    except (OSError, UnicodeDecodeError):
        return ""


def _blocks(text: str) -> list[str]:
    return re.findall(r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", text, re.DOTALL)
