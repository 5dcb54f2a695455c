"""Creating servers: what Nova checks in the request, in its order and its words, and the quota.

https://docs.openstack.org/api-ref/compute/#create-server; texts as seen from Nova 34.
"""

from __future__ import annotations

import base64
import binascii
import re
import uuid
from typing import Any

from .api import ApiError, Call
from .things import (
    FLAVORS,
    IMAGES,
    KEYPAIR,
    NETWORK_ID,
    PUBLIC_ID,
    SECURITY_GROUP,
    ZONE,
    Flavor,
    Image,
    Network,
    Server,
)

# fmt: off
_KNOWN = {
    "name", "imageRef", "flavorRef", "networks", "key_name", "metadata", "user_data", "availability_zone",
    "security_groups", "tags", "description", "min_count", "max_count", "block_device_mapping_v2",
    "config_drive", "adminPass", "hostname", "OS-DCF:diskConfig", "accessIPv4", "accessIPv6",
}
# fmt: on


def create_servers(call: Call, version: tuple[int, int]) -> list[Server]:
    """Make the servers that the request asks for. Raises `ApiError` 400, or 403 over the quota."""
    given = call.json().get("server")
    if not isinstance(given, dict):
        raise _invalid("server", given, "'server' is a required property")
    _check_keys(given, version)
    _check_texts(given)
    flavor, image = _choose(given)
    network, groups = _check_places(call, given)
    least, most = _counts(given)
    return [
        call.state.create(
            name=given["name"] if most == 1 else f"{given['name']}-{number + 1}",
            user=call.auth.user,
            image=image,
            flavor=flavor,
            tags=list(given.get("tags") or []),
            metadata=dict(given.get("metadata") or {}),
            user_data=given.get("user_data") or "",
            key_name=given.get("key_name"),
            security_groups=list(groups),
            network=network,
            description=given.get("description", given["name"] if version < (2, 19) else None),
            zone=given.get("availability_zone"),
        )
        for number in range(_within_quota(call, flavor, least, most))
    ]


def _invalid(name: str, value: object, why: str) -> ApiError:
    return ApiError(400, f"Invalid input for field/attribute {name}. Value: {value}. {why}")


def _check_keys(given: dict[str, Any], version: tuple[int, int]) -> None:
    for key in given:
        if key not in _KNOWN or (key == "tags" and version < (2, 52)):
            raise _invalid("server", given, f"Additional properties are not allowed ({key!r} was unexpected)")
    for key in ("name", "flavorRef", "networks"):
        if key not in given and (key != "networks" or version >= (2, 37)):
            raise _invalid("server", given, f"{key!r} is a required property")


def _check_texts(given: dict[str, Any]) -> None:
    """Name, user-data, tags and metadata: types, lengths, characters. The answer echoes the value."""
    _check_text("name", given["name"], 255)
    if given.get("user_data") is not None:
        _check_text("user_data", given["user_data"], 65535)
        _check_base64(given["user_data"])
    tags, metadata = given.get("tags") or [], given.get("metadata") or {}
    if not isinstance(tags, list):
        raise _invalid("tags", tags, f"{tags!r} is not of type 'array'")
    if len(tags) > 50:
        raise _invalid("tags", tags, f"{tags!r} is too long")
    for place, tag in enumerate(tags):
        _check_text(str(place), tag, 60)
        if "," in tag or "/" in tag:
            raise _invalid(str(place), tag, f"{tag!r} does not match '^[^,/]*$'")
    if not isinstance(metadata, dict):
        raise _invalid("metadata", metadata, f"{metadata!r} is not of type 'object'")
    pattern = "^[a-zA-Z0-9-_:. ]{1,255}$"
    for key, value in metadata.items():
        if not re.fullmatch(pattern.replace("9-_", r"9\-_"), key):
            raise _invalid("metadata", metadata, f"{key!r} does not match any of the regexes: {pattern!r}")
        _check_text(key, value, 255, least=0)
    if len(metadata) > 128:
        raise ApiError(403, "Maximum number of metadata items exceeds 128")


def _check_text(name: str, value: object, most: int, least: int = 1) -> None:
    if not isinstance(value, str):
        raise _invalid(name, value, f"{value!r} is not of type 'string'")
    if not least <= len(value) <= most:
        raise _invalid(name, value, f"{value!r} {'is too long' if value else 'should be non-empty'}")


def _check_base64(text: str) -> None:
    try:
        base64.b64decode(text, validate=True)
    except binascii.Error:
        raise _invalid("user_data", text, f"{text!r} is not a 'base64'") from None


def _check_id(name: str, value: object, wanted: Any) -> None:
    """``wanted``, out of the field's ``value``, must be a UUID."""
    try:
        uuid.UUID(wanted)
    except (ValueError, TypeError, AttributeError):
        raise _invalid(name, value, f"{value!r} is not valid under any of the given schemas") from None


def _choose(given: dict[str, Any]) -> tuple[Flavor, Image]:
    disks = given.get("block_device_mapping_v2") or [{}]
    image_id = given.get("imageRef") or disks[0].get("uuid")
    if not image_id:
        raise ApiError(400, "Missing imageRef attribute")
    _check_id("imageRef", image_id, image_id)
    flavors = [flavor for flavor in FLAVORS if flavor.id == given["flavorRef"]]
    images = [image for image in IMAGES if image.id == image_id]
    if not flavors:
        raise ApiError(400, f"Flavor {given['flavorRef']} could not be found.")
    if not images:
        raise ApiError(400, "Can not find requested image")
    return flavors[0], images[0]


def _check_places(call: Call, given: dict[str, Any]) -> tuple[Network | None, list[str]]:
    """Key, zone, networks and security groups; the first network, and the groups' ids."""
    if given.get("key_name") not in (None, KEYPAIR):
        raise ApiError(400, "Invalid key_name provided.")
    if given.get("availability_zone") not in (None, "", ZONE):
        raise ApiError(400, "The requested availability zone is not available")
    networks = given.get("networks", "auto")
    for network in [] if networks in ("auto", "none") else networks:
        wanted = network.get("uuid") if isinstance(network, dict) else None
        _check_id("networks", networks, wanted)
        if wanted == PUBLIC_ID:
            raise ApiError(403, f"It is not allowed to create an interface on external network {wanted}")
        if wanted not in call.state.networks:
            raise ApiError(400, f"Network {wanted} could not be found.")
        if call.state.networks[wanted].cidr is None:
            raise ApiError(400, f"Network {wanted} requires a subnet in order to boot instances on.")
    known = call.state.security_groups_of(call.auth.project)
    groups = []
    for wanted in given.get("security_groups") or [{"name": SECURITY_GROUP}]:
        found = [group.id for group in known if wanted.get("name") in (group.name, group.id)]
        if not found:
            raise ApiError(400, f"Unable to find security_group with name or id '{wanted.get('name')}'")
        groups.append(found[0])
    first = networks[0]["uuid"] if isinstance(networks, list) and networks else NETWORK_ID
    return None if networks in ("none", []) else call.state.networks[first], groups


def _counts(given: dict[str, Any]) -> tuple[int, int]:
    try:
        least = int(given.get("min_count") or 1)
        most = int(given.get("max_count") or least)
    except (TypeError, ValueError):
        raise _invalid("min_count", given.get("min_count"), "is not of type 'integer'") from None
    if not 1 <= least <= most:
        raise ApiError(400, "min_count must be <= max_count")
    return least, most


def _within_quota(call: Call, flavor: Flavor, least: int, most: int) -> int:
    """Return how many of ``least`` to ``most`` servers there is room for; 403 if for fewer than ``least``."""
    project = call.auth.project
    own = call.state.of_project(project)
    cores = sum(server.flavor.vcpus for server in own)
    room = (project.quota_instances - len(own), (project.quota_cores - cores) // flavor.vcpus)
    if min(room) >= least:
        return min(most, *room)
    over = []  # (what, requested, used, allowed)
    if room[1] < least:
        over.append(("cores", most * flavor.vcpus, cores, project.quota_cores))
    if room[0] < least:
        over.append(("instances", most, len(own), project.quota_instances))
    what, asked, used, allowed = (", ".join(map(str, column)) for column in zip(*over, strict=True))
    message = f"Quota exceeded for {what}: Requested {asked}, but already used {used} of {allowed} {what}"
    raise ApiError(403, message)
