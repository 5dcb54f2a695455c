"""Fill the test cloud: populate.py catalog|content|check URL SECRET STATE [SINCE]. Every step is idempotent."""

import datetime
import ipaddress
import pathlib
import sys

import openstack
import yaml

STEP, URL, SECRET, STATE = sys.argv[1:5]
STATE = pathlib.Path(STATE)
REGION = "RegionOne"
# Nobody logs in with it: its private half was thrown away.
PUBLIC_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAICQFfcR+0Lo6WtQhh2wRRxn+M5bTbZCirexZygEfW/wY griffin"


def connect(user, project, **more):
    return openstack.connect(
        auth_url=f"{URL}:5000/v3",
        username=user,
        password=SECRET,
        project_name=project,
        user_domain_name="Default",
        project_domain_name="Default",
        region_name=REGION,
        load_envvars=False,
        load_yaml_config=False,
        app_name="populate",
        **more,
    )


admin = connect("admin", "admin")
ident = admin.identity


def ensure_project(name):
    return ident.find_project(name) or ident.create_project(name=name, domain_id="default")


def ensure_user(name, project, *roles):
    user = ident.find_user(name) or ident.create_user(name=name, password=SECRET, domain_id="default")
    for role in roles:
        found = ident.find_role(role) or ident.create_role(name=role)
        ident.assign_project_role_to_user(project, user, found)
    return user


def catalog():
    service = ensure_project("service")
    for name in ("nova", "neutron", "glance", "placement", "swift"):
        ensure_user(name, service, "admin", "service")
    for name, kind, url in (
        ("nova", "compute", f"{URL}:8774/v2.1"),
        ("neutron", "network", f"{URL}:9696"),
        ("glance", "image", f"{URL}:9292"),
        ("placement", "placement", f"{URL}:8778"),
        ("swift", "object-store", f"{URL}:8080/v1/AUTH_%(project_id)s"),
    ):
        found = ident.find_service(name) or ident.create_service(name=name, type=kind)
        have = {e.interface for e in ident.endpoints(service_id=found.id)}
        for interface in {"public", "internal", "admin"} - have:
            ident.create_endpoint(service_id=found.id, interface=interface, url=url, region_id=REGION)


def content():
    projects = {}
    for name in ("griffin", "tiny", "other"):
        projects[name] = ensure_project(name)
        ensure_user(name, projects[name], "member", "reader")
    ensure_user("colleague", projects["griffin"], "member", "reader")
    ensure_user("admin", projects["griffin"], "admin")

    compute, network = admin.compute, admin.network
    for name, vcpus, ram, disk in (
        ("m1.small", 1, 2048, 10),
        ("m1.medium", 4, 8192, 40),
        ("m1.toobig", 1, 1_000_000, 10),
    ):
        compute.find_flavor(name) or compute.create_flavor(name=name, vcpus=vcpus, ram=ram, disk=disk)
    compute.update_quota_set(
        projects["griffin"],
        instances=320,
        cores=1300,
        ram=4_000_000,
        server_groups=20,
        server_group_members=320,
        key_pairs=50,
    )
    compute.update_quota_set(projects["tiny"], instances=2, cores=4)
    network.update_quota(projects["griffin"].id, ports=700, security_groups=30, security_group_rules=300)

    images = {i.name for i in admin.image.images()}
    for name in ("snapshot1", "snapshot2", "snapshot10"):
        if name not in images:
            admin.create_image(
                name,
                data=f"dummy image {name}\n".encode() * 64,
                disk_format="raw",
                container_format="bare",
                visibility="public",
                allow_duplicates=True,
                wait=True,
            )

    if not network.find_network("public"):
        net = network.create_network(
            name="public", is_router_external=True, provider_network_type="flat", provider_physical_network="public"
        )
        network.create_subnet(
            network_id=net.id,
            name="public-subnet",
            ip_version=4,
            cidr="198.51.100.0/24",
            gateway_ip="198.51.100.1",
            is_dhcp_enabled=False,
        )
    clouds = {
        "real-admin": entry("admin", "admin"),
        "real-other": entry("other", "other"),
        "real-colleague": entry("colleague", "griffin"),
    }
    for name, cidr in (("griffin", "10.77.0.0/16"), ("tiny", "10.78.0.0/24")):
        user = connect(name, name)
        net = user.network.find_network(f"{name}-net") or user.network.create_network(name=f"{name}-net")
        hosts = list(ipaddress.ip_network(cidr).hosts())
        subnet = user.network.find_subnet(f"{name}-subnet") or user.network.create_subnet(
            network_id=net.id,
            name=f"{name}-subnet",
            ip_version=4,
            cidr=cidr,
            allocation_pools=[{"start": str(hosts[9]), "end": str(hosts[-1])}],
        )  # .2 is the login namespace
        if not user.network.find_router(f"{name}-router"):
            public = user.network.find_network("public", ignore_missing=False)
            router = user.network.create_router(name=f"{name}-router", external_gateway_info={"network_id": public.id})
            user.network.add_interface_to_router(router, subnet_id=subnet.id)
        if not user.compute.find_keypair(f"{name}-key"):
            user.compute.create_keypair(name=f"{name}-key", type="ssh", public_key=PUBLIC_KEY)
        clouds["real" if name == "griffin" else "real-tiny"] = entry(name, name)

    # Application credentials: member and reader role only, both "restricted" (cannot make further ones),
    # and one that may only read servers (access rules).
    griffin = connect("griffin", "griffin")
    me = griffin.current_user_id
    for cloud, name, more in (
        ("real-app", "griffin-app", {"roles": [{"name": "member"}, {"name": "reader"}]}),
        ("real-app-reader", "griffin-app-reader", {"roles": [{"name": "reader"}]}),
        (
            "real-app-rules",
            "griffin-app-rules",
            {
                "roles": [{"name": "member"}, {"name": "reader"}],
                "access_rules": [
                    {"service": "compute", "method": "GET", "path": "/v2.1/servers/**"},
                    {"service": "compute", "method": "GET", "path": "/v2.1/servers"},
                ],
            },
        ),
    ):
        found = griffin.identity.find_application_credential(me, name)
        if found:
            griffin.identity.delete_application_credential(me, found)
        griffin.identity.create_application_credential(me, name=name, secret=SECRET, **more)
        clouds[cloud] = {
            "auth_type": "v3applicationcredential",
            "region_name": REGION,
            "identity_api_version": 3,
            "auth": {
                "auth_url": f"{URL}:5000/v3",
                "application_credential_name": name,
                "username": "griffin",
                "user_domain_name": "Default",
                "application_credential_secret": SECRET,
            },
        }
    (STATE / "clouds.yaml").touch(0o600)
    (STATE / "clouds.yaml").write_text(yaml.safe_dump({"clouds": clouds}, sort_keys=False))


def entry(user, project):
    return {
        "auth": {
            "auth_url": f"{URL}:5000/v3",
            "username": user,
            "password": SECRET,
            "project_name": project,
            "user_domain_name": "Default",
            "project_domain_name": "Default",
        },
        "region_name": REGION,
        "identity_api_version": 3,
    }


def check():
    since = float(sys.argv[5])  # a report from before this start says nothing
    up = {
        s.binary
        for s in admin.compute.services()
        if s.state == "up"
        and s.updated_at
        and datetime.datetime.fromisoformat(s.updated_at).replace(tzinfo=datetime.timezone.utc).timestamp() >= since
    }
    missing = {"nova-compute", "nova-conductor", "nova-scheduler"} - up
    if missing:
        sys.exit(f"not up: {missing}")
    if not admin.network.find_network("griffin-net") or not list(admin.image.images(limit=1)):
        sys.exit("content is missing")
    admin.object_store.get_account_metadata()


{"catalog": catalog, "content": content, "check": check}[STEP]()
