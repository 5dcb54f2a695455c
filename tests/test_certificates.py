"""Which CA certificates servers must be given."""

import ssl

import certifi
import pytest

from ipp_griffin.certificates import private, read

from .tls import Authority


@pytest.fixture
def system(tmp_path, monkeypatch):
    """``system(file=..., folder=...)``: this machine trusts the certificates that are there, and no others."""

    def set_up(file="", folder=""):
        monkeypatch.setenv("SSL_CERT_FILE", str(file or tmp_path / "none"))
        monkeypatch.setenv("SSL_CERT_DIR", str(folder or tmp_path / "none"))

    return set_up


@pytest.fixture
def authorities(tmp_path):
    """Two of them, in folders of their own."""
    found = []
    for name in ("ours", "systems"):
        (tmp_path / name).mkdir()
        found.append(Authority(tmp_path / name))
    return found


def test_public_certificates_are_left_out(system, authorities):
    system()
    ours, _ = authorities
    assert private(certifi.contents() + ours.pem, added=()) == ours.pem


def test_so_are_those_that_came_with_a_system_like_this_one(system, authorities):
    ours, systems = authorities
    system(file=systems.path)
    assert private(ours.pem + systems.pem, added=()) == ours.pem


def test_a_python_that_knows_only_a_folder_of_them_is_no_other(system, authorities):
    """Debian 11's and Ubuntu 22.04's: asked for its certificates, it names none, since it reads them when needed."""
    ours, systems = authorities
    system(folder=systems.folder)
    assert ssl.create_default_context().get_ca_certs() == []
    assert private(ours.pem + systems.pem, added=()) == ours.pem


def test_what_was_added_to_this_system_is_no_images(system, authorities):
    ours, systems = authorities
    system(file=systems.path)
    systems.path.write_text(systems.pem + ours.pem)
    assert private(systems.path.read_text(), added=[ours.folder]) == ours.pem


def test_a_broken_certificate_is_an_error(system):
    system()
    with pytest.raises(ValueError, match="base64|padding|character"):
        private("-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----\n")


def test_a_folder_is_read_once_for_each_file(authorities):
    ours, _ = authorities
    (ours.folder / "0123abcd.0").symlink_to(ours.path.name)
    assert read(ours.folder).count("BEGIN CERTIFICATE") == read(ours.path).count("BEGIN CERTIFICATE")
