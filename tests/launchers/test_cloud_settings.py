"""`GriffinCloud`, and the profile as the page that shows every setting."""

import ast
import logging
import re
import threading
import types
from collections import Counter
from dataclasses import replace
from pathlib import Path

import certifi
import pytest
from ipyparallel import Cluster
from ipyparallel.cluster.launcher import EngineLauncher
from ipyparallel.controller.app import IPController
from ipyparallel.controller.heartmonitor import HeartMonitor
from ipyparallel.engine.app import IPEngine

from ipp_griffin.cloud.cloud import Cloud
from ipp_griffin.cloud.shared import connect, open_store
from ipp_griffin.common.errors import CloudError, SettingError, Unavailable
from ipp_griffin.launchers import GriffinControllerLauncher, GriffinEngineSetLauncher, GriffinServerControllerLauncher
from ipp_griffin.launchers.cloud_settings import GriffinCloud
from ipp_griffin.launchers.settings import AgentSettings, ControllerSettings, EngineSettings, ServerSettings
from ipp_griffin.model.plan import Network

from ..fakes import FakeCloud
from ..tls import Authority
from . import reference

PROFILE = Path(__file__).parents[2] / "profile_griffin"
OURS = (GriffinCloud, GriffinControllerLauncher, GriffinServerControllerLauncher, GriffinEngineSetLauncher)
MIXINS = {
    GriffinServerControllerLauncher: (ControllerSettings, AgentSettings, ServerSettings),
    GriffinEngineSetLauncher: (EngineSettings, AgentSettings, ServerSettings),
}
KNOWN = {c.__name__: c for c in (*OURS, Cluster, EngineLauncher, HeartMonitor, IPController, IPEngine)}


def assignments(name: str, start: str) -> dict[str, str]:
    """Setting -> its value's source, of the lines of a profile file that begin with ``start``."""
    found = re.findall(rf"(?m)^{start}c\.(\w+\.\w+) = (.*)$", (PROFILE / name).read_text())
    assert len(dict(found)) == len(found)
    return dict(found)


def ours() -> list[str]:
    own = {c: c.class_own_traits(config=True) for c in OURS}
    for launcher, mixins in MIXINS.items():
        for mixin in mixins:
            own[launcher].update(mixin.class_own_traits(config=True))
    return [f"{c.__name__}.{name}" for c, traits in own.items() for name in traits]


@pytest.mark.parametrize("setting", ours())
def test_every_setting_has_help(setting):
    owner, _, name = setting.partition(".")
    assert len(KNOWN[owner].class_traits()[name].help) > 20


def test_the_profile_and_the_page_are_what_the_traits_say():
    """To write them anew: python -m tests.launchers.reference."""
    assert reference.PROFILE.read_text() == reference.profile()
    assert reference.PAGE.read_text() == reference.page(reference.PAGE.read_text())


def test_the_profile_shows_every_setting():
    shown = assignments("ipcluster_config.py", "# ")
    assert set(ours()) <= set(shown)
    assert len(ours()) > 25


def test_every_value_that_the_profile_shows_is_the_default():
    shown = assignments("ipcluster_config.py", "# ")
    defaults = {}
    for setting in shown:
        owner, _, name = setting.partition(".")
        defaults[setting] = KNOWN[owner].class_traits(config=True)[name].default()
    assert {setting: ast.literal_eval(value) for setting, value in shown.items()} == defaults


@pytest.mark.parametrize("name", ["ipcluster_config.py", "ipcontroller_config.py", "ipengine_config.py"])
@pytest.mark.parametrize("start", ["", "# "])
def test_the_profile_names_no_setting_that_does_not_exist(name, start):
    for setting in assignments(name, start):
        owner, _, trait = setting.partition(".")
        assert trait in KNOWN[owner].class_traits(config=True), setting


def test_what_the_profile_sets():
    """Everything else on the page is a comment."""
    assert assignments("ipcluster_config.py", "") == {"Cluster.delay": "0"}
    assert assignments("ipcontroller_config.py", "") == {}
    assert assignments("ipengine_config.py", "") == {
        "IPEngine.url_file": 'os.environ.get("GRIFFIN_CONNECTION_FILE", "")'
    }


@pytest.mark.parametrize(
    ("trait", "variable", "name"),
    [("mine", "theirs", "mine"), ("mine", None, "mine"), ("", "theirs", "theirs"), ("", "", ""), ("", None, "")],
)
def test_the_clouds_name_is_the_setting_else_os_cloud_else_none(monkeypatch, trait, variable, name):
    monkeypatch.delenv("OS_CLOUD", raising=False)
    if variable is not None:
        monkeypatch.setenv("OS_CLOUD", variable)
    assert GriffinCloud(cloud=trait).cloud_name() == name


def test_ca_certificates_are_read_from_their_file(tmp_path, monkeypatch):
    (tmp_path / "ca.pem").write_text("-----BEGIN CERTIFICATE-----\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert GriffinCloud().ca_text() == ""
    assert GriffinCloud(ca_certificates=str(tmp_path / "ca.pem")).ca_text() == "-----BEGIN CERTIFICATE-----\n"
    assert GriffinCloud(ca_certificates="~/ca.pem").ca_text() == "-----BEGIN CERTIFICATE-----\n"


@pytest.mark.parametrize("content", [None, b"\xff\xfe\x00"])
def test_ca_certificates_that_cannot_be_read_are_a_setting_error(tmp_path, content):
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SettingError, match=r"Can't read GriffinCloud\.ca_certificates .*ca\.pem: "):
        GriffinCloud(ca_certificates=str(path)).ca_text()


def test_the_clouds_cacert_is_for_servers_too_but_not_what_images_have(tmp_path):
    certificate = Authority(tmp_path).pem
    path = tmp_path / "cacert.pem"
    path.write_text(certifi.contents() + "# our own\n" + certificate)
    assert GriffinCloud().ca_text(str(path)) == certificate
    chosen = tmp_path / "chosen.pem"
    chosen.write_text("chosen")
    assert GriffinCloud(ca_certificates=str(chosen)).ca_text(str(path)) == "chosen"
    with pytest.raises(SettingError, match="Can't read cacert /nope.pem: "):
        GriffinCloud().ca_text("/nope.pem")


@pytest.mark.parametrize(
    "proxy",
    ["http://ada:s3cr3t@10.0.0.1:3128", "http://ada@10.0.0.1:3128", "ada:s3cr3t@10.0.0.1:3128", "http://s3cr3t@[x"],
)
def test_a_proxy_with_a_password_is_refused_and_not_shown(proxy):
    with pytest.raises(SettingError, match="the servers' user-data, where it would be, is not secret") as error:
        GriffinCloud(proxy=proxy).check()
    assert "s3cr3t" not in str(error.value)


@pytest.mark.parametrize(
    "proxy",
    [
        "10.0.0.1:3128",
        "socks5://10.0.0.1",
        "http://",
        "http://:3128",
        "http://[::1",
        "http://proxy:port",
        "http://a b",
        "x",
    ],
)
def test_a_proxy_that_is_no_url_is_refused(proxy):
    with pytest.raises(SettingError, match="is not the URL of a proxy"):
        GriffinCloud(proxy=proxy).check()


def test_a_proxy_is_taken_as_it_is():
    GriffinCloud(proxy="http://proxy.lab:3128").check()


@pytest.mark.parametrize("url", ["intern", "store.lab:8080", "ftp://store.lab", "https://", "https://[x"])
def test_a_store_url_that_is_neither_a_url_nor_an_interface_is_refused(url):
    with pytest.raises(
        SettingError, match=r"GriffinCloud\.store_url '.*' is neither the URL .* public, internal, admin\."
    ):
        GriffinCloud(store_url=url).check()


@pytest.mark.parametrize(
    "url", ["", "public", "internal", "admin", "http://store.lab", "https://store.lab:8080/v1/AUTH_a"]
)
def test_a_store_url_is_taken_as_it_is(url):
    GriffinCloud(store_url=url).check()


def test_a_folder_of_certificates_is_a_cacert_too(tmp_path):
    """Hashed names, which OpenSSL looks for, are links: each certificate counts once."""
    folder = tmp_path / "certs"
    folder.mkdir()
    pem = Authority(folder).pem
    (folder / "0123abcd.0").symlink_to("ca.pem")
    assert GriffinCloud().ca_text(str(folder)) == pem


def test_a_cacert_with_a_broken_certificate_is_a_setting_error(tmp_path):
    path = tmp_path / "cacert.pem"
    path.write_text("-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----\n")
    with pytest.raises(SettingError, match=r"Can't read cacert .*cacert\.pem: "):
        GriffinCloud().ca_text(str(path))


def test_where_this_machine_verifies_nothing_it_is_said_that_servers_do(tmp_path, caplog):
    settings = GriffinCloud(log=logging.getLogger("test"))
    assert settings.ca_text(None) == ""
    assert "servers verify the object store's" in caplog.text
    caplog.clear()
    chosen = tmp_path / "ca.pem"
    chosen.write_text("chosen")
    settings.ca_certificates = str(chosen)
    assert settings.ca_text(None) == "chosen"
    assert caplog.text == ""


class SomeCluster:
    """What the connections hang on; ipyparallel's `Cluster` is hashed by identity, too."""


@pytest.fixture
def logins(monkeypatch) -> list[tuple[str, str]]:
    """(name, region) of every login that is made."""
    made = []

    def log_in(name, *, region):
        made.append((name, region))
        return types.SimpleNamespace(region=region or "north")

    monkeypatch.setattr(Cloud, "connect", log_in)
    return made


def test_the_launchers_of_a_cluster_share_one_login(logins):
    cluster = SomeCluster()
    assert connect(cluster, "mine", "north") is connect(cluster, "mine", "north")
    assert logins == [("mine", "north")]


def test_an_empty_region_shares_with_the_region_it_means(logins):
    """Launchers record the region, and ask by it from then on."""
    cluster = SomeCluster()
    assert connect(cluster, "mine", "") is connect(cluster, "mine", "north")
    assert logins == [("mine", "")]


def test_threads_that_connect_at_the_same_time_log_in_once(monkeypatch):
    made, all_started = [], threading.Event()

    def log_in(name, *, region):
        assert all_started.wait(60)
        made.append(name)
        return types.SimpleNamespace(region="north")

    monkeypatch.setattr(Cloud, "connect", log_in)
    cluster = SomeCluster()
    threads = [threading.Thread(target=connect, args=(cluster, "mine", "")) for _ in range(4)]
    for thread in threads:
        thread.start()
    all_started.set()
    for thread in threads:
        thread.join(60)
    assert made == ["mine"]


def make_plan(settings, cloud):
    network = Network("n1", "net")
    return settings.plan(
        settings.look_up(cloud),
        network,
        labels={"owner": "ada"},
        n=2,
        uid="0123456789ab",
        engine_set="cafe0001",
        engines_per_server=0,
    )


def test_what_was_asked_ahead_is_not_asked_again_but_the_quota_counts_what_was_made_since():
    settings, cloud = GriffinCloud(), FakeCloud()
    cloud.fail["object_store_url"] = [CloudError("There is none.")]
    settings.prefetch(cloud)
    assert [n.name for n in settings.networks(cloud)] == ["net"]
    for _ in range(2):
        there = settings.look_up(cloud)
        assert [image.name for image in there.images] == ["snapshot1"]
    counts = Counter(cloud.methods)
    assert (counts["networks"], counts["images"], counts["limits"]) == (1, 1, 2)


def test_a_cloud_that_does_not_tell_its_quota_is_used_without_checking_it():
    cloud = FakeCloud()
    cloud.fail["limits"] = [CloudError("403: Forbidden")]
    plan = make_plan(GriffinCloud(), cloud)
    assert (len(plan.servers), plan.servers[0].metadata) == (2, {"griffin:owner": "ada", "griffin:engines": "1"})


def test_an_outage_while_the_quota_is_asked_for_is_an_error():
    cloud = FakeCloud()
    cloud.fail["limits"] = [Unavailable("503")]
    with pytest.raises(Unavailable):
        make_plan(GriffinCloud(), cloud)


def test_security_groups_are_found_by_name_or_id():
    cloud = FakeCloud()
    cloud.offers = replace(cloud.offers, security_groups={"g-1": "lab"})
    assert make_plan(GriffinCloud(security_groups=["g-1", "lab"]), cloud).security_groups == ("g-1", "lab")
    with pytest.raises(SettingError, match="No security group 'g-2'. This cloud has: lab"):
        make_plan(GriffinCloud(security_groups=["g-2"]), cloud)


def test_another_region_cloud_or_cluster_has_a_login_of_its_own(logins):
    one, other = SomeCluster(), SomeCluster()
    connections = [
        connect(one, "mine", "north"),
        connect(one, "mine", "south"),
        connect(one, "yours", "north"),
        connect(other, "mine", "north"),
    ]
    assert len({id(connection) for connection in connections}) == 4
    assert logins == [("mine", "north"), ("mine", "south"), ("yours", "north"), ("mine", "north")]


def test_a_launcher_without_a_cluster_shares_with_nobody(logins):
    assert connect(None, "mine", "") is not connect(None, "mine", "")


def test_a_login_is_forgotten_with_its_cluster(logins):
    from ipp_griffin.cloud.shared import _connections

    before = len(_connections)
    cluster = SomeCluster()
    connect(cluster, "mine", "")
    assert len(_connections) == before + 1
    del cluster
    assert len(_connections) == before


def test_the_store_takes_the_container_and_the_servers_address(devcloud):
    cloud = Cloud.connect("devcloud")
    store = open_store(cloud, container="lab", servers_url="https://store.internal:8080")
    store.publish("0123456789ab", {})
    try:
        assert devcloud.containers() == ["lab-0123456789ab"]
        url = store.get_url("0123456789ab", "connection.json", 60)
        assert url.startswith("https://store.internal:8080/")
        assert "/lab-0123456789ab/connection.json?" in url
    finally:
        store.delete_container("0123456789ab")
