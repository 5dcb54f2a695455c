"""The dev cloud: an embedded OpenStack look-alike on loopback, whose servers are local processes.

It answers what openstacksdk, python-swiftclient and the ``openstack`` and ``swift`` commands ask of Keystone,
Nova, Glance, Neutron and Swift for this project, and is reached only through the ``clouds.yaml`` it writes.

    with DevCloud(folder) as cloud:
        connection = openstack.connect(cloud="devcloud")  # with OS_CLIENT_CONFIG_FILE=cloud.clouds_yaml

`DevCloud` runs it in this process; `ipp_griffin.devcloud.service` as a background process.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .app import DevCloud, DevCloudError

__all__ = ["DevCloud", "DevCloudError"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from . import app

        return getattr(app, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
