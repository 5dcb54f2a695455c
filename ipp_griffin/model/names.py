"""Names and tags of servers and engines: how uid, engine set, slot and incarnation are written, and read again. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

# Tags are how this project finds its servers again: at most 60 characters, no comma, no slash
# (https://docs.openstack.org/api-ref/compute/#server-tags-servers-tags).
MARKER_TAG = "ipp-griffin"


def uid_tag(uid: str) -> str:
    return f"griffin-uid={uid}"


def set_tag(engine_set: str) -> str:
    return f"griffin-set={engine_set}"


def server_tags(uid: str, engine_set: str, slot: int, incarnation: int) -> tuple[str, ...]:
    return (
        MARKER_TAG,
        uid_tag(uid),
        set_tag(engine_set),
        f"griffin-slot={slot}",
        f"griffin-incarnation={incarnation}",
    )


@dataclass(frozen=True)
class Place:
    """Where a server belongs, by its tags."""

    uid: str
    engine_set: str
    slot: int
    incarnation: int


def place_of(tags: Iterable[str]) -> Place | None:
    """Return the reverse of `server_tags`; None for the tags of no server of ours: anybody in the project can tag one."""
    found = dict(tag.removeprefix("griffin-").split("=", 1) for tag in tags if re.match("griffin-[a-z]+=", tag))
    names = [found.get(name, "") for name in ("uid", "set", "slot", "incarnation")]
    if not re.fullmatch("[0-9a-f]{12} [0-9a-z]{1,64} [0-9]{1,9} [0-9]{1,9}", " ".join(names)):
        return None
    return Place(names[0], names[1], int(names[2]), int(names[3]))


def server_name(uid: str, engine_set: str, slot: int, incarnation: int) -> str:
    name = f"griffin-{uid}-{engine_set}-{slot}"
    return name if incarnation == 0 else f"{name}-{incarnation}"


def engine_uuid(engine_set: str, slot: int, incarnation: int, index: int, generation: int) -> str:
    """Return the name of one engine process in the hub. The hub refuses a uuid that is in use, hence the generation."""
    return f"{engine_set}-{slot}-{incarnation}-{index}-{generation}"


def place_of_engine(uuid: str) -> tuple[str, int, int, int] | None:
    """Return the reverse of `engine_uuid`: engine set, slot, incarnation and index; None for the uuid of no engine of ours."""
    match = re.fullmatch(r"([0-9a-z]{1,64})-([0-9]{1,9})-([0-9]{1,9})-([0-9]{1,9})-[0-9]+", uuid)
    return (match[1], int(match[2]), int(match[3]), int(match[4])) if match else None


PREFIX = "ipp-griffin"


def container_name(uid: str, prefix: str = PREFIX) -> str:
    """Return the name of a cluster's own container."""
    return f"{prefix}-{uid}"


AUTO = "auto"
