"""Access rules of application credentials, as openstack/keystonemiddleware understands them."""

import pytest
import requests

from ipp_griffin.devcloud.access_rules import AccessRule

SERVERS = "/v2.1/servers"


@pytest.mark.parametrize(
    ("pattern", "path", "fits"),
    [
        ("/v2.1/servers", "/v2.1/servers", True),
        ("/v2.1/servers", "/v2.1/servers/1", False),
        ("/v2.1/servers", "/compute/v2.1/servers", False),
        ("/v2.1/servers/*", "/v2.1/servers/1", True),
        ("/v2.1/servers/*", "/v2.1/servers/", False),
        ("/v2.1/servers/*", "/v2.1/servers/1/action", False),
        ("/v2.1/servers/{id}/action", "/v2.1/servers/1/action", True),
        ("/v2.1/servers/{id}/action", "/v2.1/servers/1/2/action", False),
        ("/v1/*/ipp-griffin-*", "/v1/AUTH_1/ipp-griffin-0123", True),
        ("/v1/*/ipp-griffin-*", "/v1/AUTH_1/thesis", False),
        ("/v1/*/ipp-griffin-*/**", "/v1/AUTH_1/ipp-griffin-0123/set/0.0/0001-agent", True),
        ("/v1/*/ipp-griffin-*/**", "/v1/AUTH_1/ipp-griffin-0123", False),
        ("/v2.1/**", "/v2.1/servers/1/action", True),
        ("/v2.1/**", "/v2x1/servers", False),
        ("/**", "/v2.1/servers", True),
    ],
)
def test_a_path_fits_a_pattern(pattern, path, fits):
    assert AccessRule("compute", "GET", pattern).fits("compute", "GET", path) is fits


@pytest.mark.parametrize(("service", "method"), [("network", "GET"), ("compute", "POST")])
def test_a_rule_is_for_one_service_and_one_method(service, method):
    assert not AccessRule("compute", "GET", SERVERS).fits(service, method, SERVERS)


@pytest.mark.parametrize(
    "given",
    [{}, {"service": "compute", "method": "GET", "path": "v2.1"}, {"service": "compute", "method": "get", "path": "/"}],
)
def test_what_is_no_rule_is_refused(given):
    with pytest.raises(ValueError, match="no access rule"):
        AccessRule.parse(given)


def test_a_bulk_delete_needs_the_rule_for_each_object(dev, connection, http):
    """Swift's bulk deletion comes before the check, which sees the deletions of which it consists."""
    connection.object_store.create_container("box")
    for name in ("mine/a", "theirs/b"):
        connection.object_store.upload_object("box", name, data=b"x")
    rules = [{"service": "object-store", "method": "DELETE", "path": "/v1/*/box/mine/*"}]
    made = connection.identity.create_application_credential(
        connection.current_user_id, "limited", secret="s", roles=[{"name": "member"}], access_rules=rules
    )
    identity = {"methods": ["application_credential"], "application_credential": {"id": made.id, "secret": "s"}}
    login = requests.post(f"{dev.url}/identity/v3/auth/tokens", json={"auth": {"identity": identity}}, timeout=60)
    account = f"/v1/AUTH_{connection.current_project_id}"
    answer = http(
        "POST", f"{account}?bulk-delete", token=login.headers["X-Subject-Token"], data="box/mine/a\nbox/theirs/b\n"
    ).json()
    assert (answer["Number Deleted"], answer["Errors"]) == (1, [["box/theirs/b", "401 Unauthorized"]])
