"""Which CA certificates servers must be given."""

from pathlib import Path

import certifi
import pytest

from ipp_griffin.cloud import certificates
from ipp_griffin.cloud.certificates import private, read

from ..tls import Authority


@pytest.fixture
def authorities(tmp_path):
    """Two of them, in folders of their own."""
    found = []
    for name in ("ours", "systems"):
        (tmp_path / name).mkdir()
        found.append(Authority(tmp_path / name))
    return found


@pytest.fixture
def few_are_many(monkeypatch):
    """A cacert with more than one private certificate is taken for a whole system's."""
    monkeypatch.setattr(certificates, "MANY", 1)


def test_public_certificates_are_left_out(authorities):
    ours, _ = authorities
    assert private(certifi.contents() + ours.pem) == ours.pem


def test_the_one_certificate_that_somebody_names_is_given_although_this_machine_trusts_it(authorities):
    ours, _ = authorities
    assert private(ours.pem, system=[ours.path]) == ours.pem


@pytest.mark.parametrize("what", ["path", "folder"])
def test_of_a_whole_system_only_what_did_not_come_with_it_is_given(authorities, few_are_many, what):
    """It is in a file, or, where Debian 11's and Ubuntu 22.04's OpenSSL looks, in a folder only."""
    ours, systems = authorities
    assert private(ours.pem + systems.pem, system=[Path("/nowhere"), getattr(systems, what)]) == ours.pem


def test_of_a_whole_system_what_was_added_to_it_is_given(authorities, few_are_many, tmp_path):
    """Wherever below the folder for that, and whatever else is in there."""
    ours, systems = authorities
    bundle = tmp_path / "bundle.pem"
    bundle.write_text(systems.pem + ours.pem)
    added = tmp_path / "added"
    (added / "below").mkdir(parents=True)
    (added / "below" / "corp.crt").write_text(ours.pem)
    (added / "binary.der").write_bytes(b"\xff\xfe")
    (added / "broken.pem").write_text("-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----\n")
    assert private(bundle.read_text(), system=[bundle], added=[added]) == ours.pem


def test_a_broken_certificate_is_an_error():
    with pytest.raises(ValueError, match="base64|padding|character"):
        private("-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----\n")


def test_a_folder_is_read_once_for_each_file(authorities):
    ours, _ = authorities
    (ours.folder / "0123abcd.0").symlink_to(ours.path.name)
    assert read(ours.folder).count("BEGIN CERTIFICATE") == read(ours.path).count("BEGIN CERTIFICATE")
