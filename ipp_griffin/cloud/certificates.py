"""Which CA certificates servers must be given: those of the cloud's ``cacert`` that a stock image does not already trust."""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterable, Iterator
from pathlib import Path

import certifi

# Folders for certificates that an administrator added: Debian's and Ubuntu's, Red Hat's, SUSE's and Arch's. Images don't have these.
ADDED = (
    Path("/usr/local/share/ca-certificates"),
    Path("/etc/pki/ca-trust/source/anchors"),
    Path("/etc/pki/trust/anchors"),
    Path("/etc/ca-certificates/trust-source/anchors"),
)
MANY = 20  # more certificates than this are those of a whole system


def read(path: Path) -> str:
    """Return the text of a file, or of all files of a folder of certificates (whose hashed names are links to the others).

    Raises OSError, or UnicodeDecodeError if a file is not text.
    """
    files = sorted({file.resolve() for file in path.iterdir()} if path.is_dir() else {path})
    return "".join(file.read_text() for file in files if not file.is_dir())


def private(text: str, *, system: Iterable[Path] | None = None, added: Iterable[Path] = ADDED) -> str:
    """Return the certificates of a cacert, which may be a whole system's, that a stock image does not already trust.

    The public ones (certifi's) are left out. If there are very many, so are those of this ``system`` (default: OpenSSL's file and
    folder), except those ``added`` by an administrator. Raises ValueError for an invalid certificate.
    """
    public = {ssl.PEM_cert_to_DER_cert(block) for block in _blocks(certifi.contents())}
    kept = {block: der for block in _blocks(text) if (der := ssl.PEM_cert_to_DER_cert(block)) not in public}
    if len(kept) > MANY:
        theirs = set(_certificates(_openssls() if system is None else system)) - set(_certificates(added))
        kept = {block: der for block, der in kept.items() if der not in theirs}
    return "".join(f"{block}\n" for block in kept)


def _openssls() -> list[Path]:
    """Return OpenSSL's compiled-in certificate file and folder, regardless of the environment."""
    paths = ssl.get_default_verify_paths()
    return [Path(paths.openssl_cafile), Path(paths.openssl_capath)]


def _certificates(places: Iterable[Path]) -> Iterator[bytes]:
    """Yield the certificates in files, and in folders recursively, skipping what can't be read or is no certificate."""
    for place in places:
        for file in place.rglob("*") if place.is_dir() else [place]:
            try:
                blocks = _blocks(file.read_text())
            except (OSError, UnicodeDecodeError):
                continue
            for block in blocks:
                try:
                    yield ssl.PEM_cert_to_DER_cert(block)
                except ValueError:
                    continue


def _blocks(text: str) -> list[str]:
    return re.findall(r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", text, re.DOTALL)
