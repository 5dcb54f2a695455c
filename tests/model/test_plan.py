"""What is decided without asking anybody: compared with whole literals."""

import pytest

from ipp_griffin.common.errors import SettingError
from ipp_griffin.model.connection import unreachable_from
from ipp_griffin.model.names import Place
from ipp_griffin.model.plan import (
    Flavor,
    Image,
    Limits,
    Network,
    Plan,
    ServerPlan,
    check_quota,
    choose_flavor,
    choose_image,
    choose_network,
    make_plan,
)

IMAGE = Image("i-1", "snapshot1", "2026-01-01T00:00:00Z")
FLAVOR = Flavor("f-1", "m1.medium", vcpus=4, ram=8192, disk=40)
NETWORK = Network("n-1", "net", ("10.0.0.0/24",))


def plan(n: int, **settings: object) -> Plan:
    given: dict[str, object] = {"image": IMAGE, "flavor": FLAVOR, "network": NETWORK, **settings}
    return make_plan(n=n, uid="0123456789ab", engine_set="cafe0001", **given)  # type: ignore[arg-type]


def test_a_plan_is_one_literal():
    assert plan(
        6, key_name="k", security_groups=["a"], availability_zone="z", metadata={"griffin:owner": "ann"}
    ) == Plan(
        uid="0123456789ab",
        engine_set="cafe0001",
        image=IMAGE,
        flavor=FLAVOR,
        network=NETWORK,
        key_name="k",
        security_groups=("a",),
        availability_zone="z",
        servers=(
            ServerPlan(
                name="griffin-0123456789ab-cafe0001-0",
                place=Place("cafe0001", 0),
                engines=4,
                tags=(
                    "ipp-griffin",
                    "griffin-uid=0123456789ab",
                    "griffin-set=cafe0001",
                    "griffin-slot=0",
                    "griffin-incarnation=0",
                ),
                metadata={"griffin:owner": "ann", "griffin:engines": "4"},
            ),
            ServerPlan(
                name="griffin-0123456789ab-cafe0001-1",
                place=Place("cafe0001", 1),
                engines=2,
                tags=(
                    "ipp-griffin",
                    "griffin-uid=0123456789ab",
                    "griffin-set=cafe0001",
                    "griffin-slot=1",
                    "griffin-incarnation=0",
                ),
                metadata={"griffin:owner": "ann", "griffin:engines": "2"},
            ),
        ),
    )


@pytest.mark.parametrize(
    ("n", "each", "expected"),
    [(1, 0, [1]), (4, 0, [4]), (5, 0, [4, 1]), (8, 0, [4, 4]), (8, 3, [3, 3, 2]), (2, 16, [2]), (3, 1, [1, 1, 1])],
)
def test_engines_are_spread_in_order_and_the_last_server_may_hold_fewer(n, each, expected):
    made = plan(n, engines_per_server=each)
    assert [server.engines for server in made.servers] == expected
    assert made.engines == n


@pytest.mark.parametrize("n", [0, -1])
def test_fewer_than_one_engine_is_refused(n):
    with pytest.raises(SettingError, match=rf"^Can't start {n} engines: -n \(Cluster.n\) must be 1 or more\.$"):
        plan(n)


def test_a_negative_number_of_engines_per_server_is_refused():
    with pytest.raises(SettingError, match="engines_per_server is -2"):
        plan(4, engines_per_server=-2)


def images(*names: str) -> list[Image]:
    return [Image(f"id-{i}", name, created_at=f"2026-01-{i + 1:02}T00:00:00Z") for i, name in enumerate(names)]


@pytest.mark.parametrize(
    ("wanted", "names", "expected"),
    [
        ("snapshot*", ["snapshot10", "snapshot2", "snapshot1"], "snapshot10"),
        ("snapshot*", ["snapshot1", "debian-12"], "snapshot1"),
        ("exact", ["exact-10", "exact"], "exact"),
        ("ubuntu-*", ["ubuntu-22.04-v9", "ubuntu-22.04-v10"], "ubuntu-22.04-v10"),
        ("lab-*", ["lab-b", "lab-a"], "lab-a"),
    ],
)
def test_a_pattern_means_the_latest_by_number_else_by_date(wanted, names, expected):
    assert choose_image(wanted, images(*names)).name == expected


def test_an_image_id_wins_over_names_and_a_name_over_patterns():
    assert choose_image("id-1", images("id-1x", "other")).name == "other"
    assert choose_image("a*", [*images("a1"), Image("x", "a*")]).name == "a*"


def test_of_images_of_one_name_the_newest_is_taken():
    assert choose_image("debian", images("debian", "debian")).id == "id-1"


def test_a_missing_image_is_an_error_that_lists_what_exists():
    with pytest.raises(SettingError) as e:
        choose_image("foo", images("snapshot10", "snapshot2", "debian-12"))
    assert str(e.value) == "No image 'foo'. This cloud has: debian-12, snapshot2, snapshot10. Set GriffinCloud.image."


def test_errors_call_a_setting_as_the_launcher_does():
    """It may have one of its own."""

    def naming(name: str) -> str:
        return f"GriffinEngineSetLauncher.{name}"

    two = [NETWORK, Network("n-2", "net")]
    for choose, said in (
        (lambda: choose_image("foo", [], naming), r"none\. Set GriffinEngineSetLauncher\.image\."),
        (lambda: choose_flavor("foo", [], IMAGE, naming), r"none\. Set GriffinEngineSetLauncher\.flavor\."),
        (lambda: choose_flavor("", [], IMAGE, naming), r"none\. Set GriffinEngineSetLauncher\.image\."),
        (lambda: choose_network("", two, naming), r"Set GriffinEngineSetLauncher\.network to one of them"),
        (lambda: choose_network("net", two, naming), r"set GriffinEngineSetLauncher\.network to one of the ids"),
        (
            lambda: choose_network("", [Network("x", "p", external=True)], naming),
            r"set GriffinEngineSetLauncher\.network",
        ),
    ):
        with pytest.raises(SettingError, match=said):
            choose()


def test_a_cloud_without_images_says_so():
    with pytest.raises(SettingError, match="This cloud has: none"):
        choose_image("snapshot*", [])


def test_a_long_list_is_cut():
    with pytest.raises(SettingError, match="and 15 more"):
        choose_image("foo", images(*[f"i{k}" for k in range(35)]))


FLAVORS = [
    Flavor("1", "tiny", 1, 512, 1),
    Flavor("2", "small", 1, 2048, 10),
    Flavor("3", "large", 8, 16384, 80),
    Flavor("4", "diskless", 1, 2048, 0),
]


@pytest.mark.parametrize(
    ("min_ram", "min_disk", "expected"),
    [(0, 0, "tiny"), (1024, 5, "small"), (4096, 0, "large"), (0, 20, "large")],
)
def test_the_default_flavor_is_the_smallest_that_the_image_fits_on(min_ram, min_disk, expected):
    assert choose_flavor("", FLAVORS, Image("i", "i", min_ram=min_ram, min_disk=min_disk)).name == expected


def test_a_flavor_without_a_disk_is_the_last_choice():
    """Where there are such, servers need volumes."""
    diskless = Flavor("4", "diskless", 1, 2048, 0)
    assert choose_flavor("", [diskless, FLAVORS[2]], IMAGE).name == "large"
    assert choose_flavor("", [diskless], IMAGE) == diskless


def test_a_flavor_is_found_by_name_or_id():
    assert choose_flavor("large", FLAVORS, IMAGE).id == "3"
    assert choose_flavor("2", FLAVORS, IMAGE).name == "small"


def test_a_missing_flavor_is_an_error_that_lists_sizes():
    with pytest.raises(SettingError, match=r"No flavor 'huge'\. This cloud has: .*large \(8 vCPU, 16384 MiB\)"):
        choose_flavor("huge", FLAVORS, IMAGE)


def test_an_image_that_fits_nowhere_names_what_it_needs():
    with pytest.raises(SettingError, match="No flavor has the 99999 MiB"):
        choose_flavor("", FLAVORS, Image("i", "big", min_ram=99_999))


def test_the_projects_only_network_needs_no_setting_and_external_ones_do_not_count():
    assert choose_network("", [NETWORK, Network("x", "public", external=True)]) == NETWORK


def test_several_networks_need_a_setting():
    with pytest.raises(SettingError, match=r"several networks: lab, net\. Set GriffinCloud\.network"):
        choose_network("", [NETWORK, Network("n-2", "lab")])


def test_of_several_networks_those_of_one_name_or_none_are_listed_with_their_ids():
    networks = [
        NETWORK,
        Network("n-2", "net"),
        Network("n-3", ""),
        Network("n-4", "lab"),
        Network("x", "pub", external=True),
    ]
    with pytest.raises(SettingError, match=r"networks: lab, net \(id n-1\), net \(id n-2\), no name \(id n-3\)\. Set"):
        choose_network("", networks)


def test_an_external_network_is_named_where_there_is_no_other_and_taken_where_it_is_asked_for():
    """Some clouds have nothing but a public network, which servers are put on."""
    public = Network("x", "Ext-Net", external=True)
    with pytest.raises(SettingError, match=r"only external networks: Ext-Net\. .* set GriffinCloud\.network to it"):
        choose_network("", [public])
    assert choose_network("Ext-Net", [public]) == public


def test_two_networks_of_one_name_are_told_apart_by_id():
    with pytest.raises(SettingError, match="the ids n-1, n-2"):
        choose_network("net", [NETWORK, Network("n-2", "net")])


def test_a_project_without_a_network_says_so():
    with pytest.raises(SettingError, match="has no network"):
        choose_network("", [])


ROOM = Limits(instances=10, instances_used=0, cores=100, cores_used=0, ram=-1, ram_used=0)


def test_a_plan_within_the_quota_passes():
    check_quota(plan(40), ROOM)


def test_a_quota_without_limit_passes():
    check_quota(plan(4000), Limits(-1, 3, -1, 3, -1, 3))


def test_a_plan_beyond_the_quota_names_each_shortage():
    with pytest.raises(SettingError) as e:
        check_quota(plan(8), Limits(instances=2, instances_used=1, cores=4, cores_used=0, ram=-1, ram_used=0))
    assert str(e.value) == (
        "The project's quota is too small for 8 engines on 2 servers of flavor m1.medium: this needs "
        "2 instances, but 1 of 2 are used; 8 cores, but 0 of 4 are used. Start fewer engines, put more on each server, or "
        "free some: `ipp-griffin ps` shows your clusters, `ipp-griffin reap` deletes what earlier ones left."
    )


def test_a_controllers_server_beyond_the_quota_is_no_question_of_engines():
    with pytest.raises(SettingError) as e:
        check_quota(
            plan(1),
            Limits(instances=2, instances_used=2, cores=-1, cores_used=0, ram=-1, ram_used=0),
            role="controller",
        )
    assert str(e.value) == (
        "The project's quota is too small for the controller's server of flavor m1.medium: this needs 1 instances, but 2 of 2 are "
        "used. Free some: `ipp-griffin ps` shows your clusters, `ipp-griffin reap` deletes what earlier ones left."
    )


@pytest.mark.parametrize(
    ("address", "subnets", "expected"),
    [
        ("127.0.0.1", ["10.0.0.0/24"], True),
        ("localhost", ["10.0.0.0/24"], True),
        ("::1", ["fd00::/64"], True),
        ("127.0.0.1", ["127.80.0.0/16"], False),
        ("10.0.0.5", ["10.0.0.0/24"], False),
        ("192.168.1.2", ["10.0.0.0/24"], False),
        ("head.example.org", ["10.0.0.0/24"], False),
    ],
)
def test_only_loopback_is_known_to_be_out_of_reach(address, subnets, expected):
    assert unreachable_from(address, subnets) is expected
