"""The place of a server in its engine set, and names and tags of servers and engines: how they are made of it, and read again. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

# Tags are how this project finds its servers again: at most 60 characters, no comma, no slash
# (https://docs.openstack.org/api-ref/compute/#server-tags-servers-tags).
MARKER_TAG = "ipp-griffin"

_SET, _NUMBER = "[0-9a-z]{1,64}", "[0-9]{1,9}"


@dataclass(frozen=True, order=True)
class Place:
    """The place of a server in its engine set. The server that replaces it has the same slot, and the next incarnation."""

    engine_set: str
    slot: int
    incarnation: int = 0

    def __str__(self) -> str:
        """Return what people call it: set/slot, and the incarnation of one that is not the first."""
        return f"{self.engine_set}/{self.slot}" + (f".{self.incarnation}" if self.incarnation else "")

    @property
    def prefix(self) -> str:
        """Return the prefix of the names of the objects that its server may write."""
        return f"{self.engine_set}/{self.slot}.{self.incarnation}/"

    @property
    def uuid_prefix(self) -> str:
        """Return the first part of the uuids of its server's engines, before ``-<index>-<generation>``.

        The hub refuses a uuid that is in use: an engine that is started again has the next generation.
        """
        return f"{self.engine_set}-{self.slot}-{self.incarnation}"


def uid_tag(uid: str) -> str:
    return f"griffin-uid={uid}"


def set_tag(engine_set: str) -> str:
    return f"griffin-set={engine_set}"


def server_tags(uid: str, place: Place) -> tuple[str, ...]:
    return (
        MARKER_TAG,
        uid_tag(uid),
        set_tag(place.engine_set),
        f"griffin-slot={place.slot}",
        f"griffin-incarnation={place.incarnation}",
    )


def uid_of(tags: Iterable[str]) -> str:
    """Return the uid in a server's tags; "" for the tags of no server of ours: anybody in the project can tag one."""
    found = _read(tags)
    return found[0] if found else ""


def place_of(tags: Iterable[str]) -> Place | None:
    """Return the place in a server's tags; None where `uid_of` is ""."""
    found = _read(tags)
    return found[1] if found else None


def _read(tags: Iterable[str]) -> tuple[str, Place] | None:
    """Return the reverse of `server_tags`."""
    found = dict(tag.removeprefix("griffin-").split("=", 1) for tag in tags if re.match("griffin-[a-z]+=", tag))
    names = [found.get(name, "") for name in ("uid", "set", "slot", "incarnation")]
    if not re.fullmatch(f"[0-9a-f]{{12}} {_SET} {_NUMBER} {_NUMBER}", " ".join(names)):
        return None
    return names[0], Place(names[1], int(names[2]), int(names[3]))


def server_name(uid: str, place: Place) -> str:
    name = f"griffin-{uid}-{place.engine_set}-{place.slot}"
    return f"{name}-{place.incarnation}" if place.incarnation else name


def place_of_engine(uuid: str) -> tuple[Place, int] | None:
    """Return the place of an engine's server, and the engine's index there; None for the uuid of another engine."""
    match = re.fullmatch(f"({_SET})-({_NUMBER})-({_NUMBER})-({_NUMBER})-[0-9]+", uuid)
    return (Place(match[1], int(match[2]), int(match[3])), int(match[4])) if match else None


PREFIX = "ipp-griffin"


def container_name(uid: str, prefix: str = PREFIX) -> str:
    """Return the name of a cluster's own container."""
    return f"{prefix}-{uid}"


AUTO = "auto"
