"""A whole cluster on a cloud of another shape, which the dev cloud plays; what is refused on such is in tests/launchers/test_other_clouds.py."""

import ipyparallel as ipp
import pytest
import yaml
from traitlets.config import Config

from ..conftest import assert_empty, running_cloud
from ..relay import Relay
from ..tls import Authority, tls_in_front_of

pytestmark = pytest.mark.needs("devcloud")
ADDRESS = "127.0.0.2"  # the controller's
FIRST, SECOND = "X-Account-Meta-Temp-Url-Key", "X-Account-Meta-Temp-Url-Key-2"


async def test_behind_https_and_a_proxy_on_cephs_gateway(tmp_path, monkeypatch):
    """A private CA signed the certificate; of the account's two keys, somebody has one."""
    authority = Authority(tmp_path)
    with (
        running_cloud(tmp_path / "cloud", object_store="rgw") as running,
        tls_in_front_of(int(running.url.rpartition(":")[2]), authority.server()) as port,
        Relay() as proxy,
    ):
        url = f"https://127.0.0.1:{port}"
        clouds = yaml.safe_load(running.clouds_yaml.read_text().replace(running.url, url))
        clouds["clouds"]["devcloud"]["cacert"] = str(authority.path)
        (tmp_path / "https.yaml").write_text(yaml.safe_dump(clouds))
        monkeypatch.setenv("OS_CLIENT_CONFIG_FILE", str(tmp_path / "https.yaml"))
        running.url = url  # in the catalog
        (project,) = [project for project in running.state.projects if project.name == "devcloud"]
        keys = running.state.account_keys.setdefault(project.id, {})
        keys[FIRST] = "theirs"

        cluster = ipp.Cluster(
            n=1,
            controller="griffin",
            engines="griffin",
            profile_dir=str(tmp_path / "profile"),
            load_profile=False,
            config=Config({"GriffinCloud": {"proxy": proxy.url}, "GriffinControllerLauncher": {"ip": ADDRESS}}),
            controller_args=["--HeartMonitor.period=200"],
        )
        try:
            await cluster.start_cluster()
            with await cluster.connect_client() as rc:
                found = rc[0].apply_sync(environment)
            assert sorted(keys) == [FIRST, SECOND]
            assert keys[SECOND].startswith("ipp-griffin-")
        finally:
            await cluster.stop_cluster()
        assert_empty(running)

    # The cacert of clouds.yaml is all that servers need, too, and whatever they ask of the cloud goes through the proxy.
    assert set(proxy.asked) == {f"CONNECT 127.0.0.1:{port}"}
    # Engines have it in their environment, but not towards the controller.
    assert {found[name] for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY")} == {proxy.url}
    assert found["no_proxy"].split(",") == ["localhost", "127.0.0.1", "::1", ADDRESS]
    assert found["NO_PROXY"] == found["no_proxy"]
    # The account has what it had.
    assert keys == {FIRST: "theirs"}


def environment() -> dict[str, str]:
    import os

    return dict(os.environ)


environment.__module__ = "__main__"  # engines have no module of this name
