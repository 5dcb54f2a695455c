"""`GriffinCloud`: the settings that both launchers share, and the doors to the cloud they open."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, urlsplit

from traitlets import Bool, List, Unicode
from traitlets.config import LoggingConfigurable

from ..cloud import certificates
from ..cloud.shared import INTERFACES, open_store, prefetch_of
from ..common.errors import SettingError
from ..model.plan import (
    Catalogue,
    Limits,
    Naming,
    Network,
    Plan,
    check_names,
    choose_flavor,
    choose_image,
    make_plan,
    shared_setting,
)

if TYPE_CHECKING:
    from ..cloud.cloud import Cloud


class GriffinCloud(LoggingConfigurable):
    """Where the servers of a cluster are created, and from what."""

    cloud = Unicode(
        "",
        config=True,
        help="""Name of the cloud in clouds.yaml, e.g. "mycloud".
        Default: the environment variable OS_CLOUD, else the other OS_* variables.""",
    )
    region = Unicode("", config=True, help="Region of the cloud. Default: the region in clouds.yaml or OS_REGION_NAME.")
    image = Unicode(
        "snapshot*",
        config=True,
        help="""Image of the servers: a name, an id, or a pattern such as "snapshot*". A pattern means the match with the highest
        number in its name (snapshot10 beats snapshot2), else the most recently created.""",
    )
    flavor = Unicode(
        "",
        config=True,
        help="""Flavor (size) of the servers: a name or an id. Default: the smallest that fits the image.""",
    )
    network = Unicode(
        "", config=True, help="Network of the servers: a name or an id. Default: the project's only network."
    )
    key_name = Unicode("", config=True, help="Key pair for ssh to the servers, for debugging by hand. Default: none.")
    security_groups = List(
        Unicode(),
        config=True,
        help="""Security groups of the servers, by name or id. Default: the project's group "default". Engines need no incoming rule:
        they only open connections, to the controller's ports.""",
    )
    manage_security_group = Bool(
        False,
        config=True,
        help="""Make security groups for the cluster and delete them with it. The servers get a group that admits nothing, besides
        `security_groups`, but not "default" unless it is named there. If this machine is a server of the project, it
        gets a group that admits the cluster's servers to the controller's ports.""",
    )
    availability_zone = Unicode("", config=True, help="Availability zone of the servers. Default: the cloud chooses.")
    container = Unicode(
        "ipp-griffin",
        config=True,
        help="""Prefix of the name of a cluster's private container in the object store; the cluster's uid follows. The container
        exists from start to stop.""",
    )
    store_url = Unicode(
        "",
        config=True,
        help="""The object store's address for servers, e.g. "https://store.internal:8080/v1/AUTH_ab12", or the catalog endpoint to
        use: "public", "internal" or "admin". Default: the address that this machine uses.""",
    )
    proxy = Unicode(
        "",
        config=True,
        help="""Proxy of the servers for the object store and package indexes, e.g. "http://10.0.0.1:3128". Engines find it in their
        environment (http_proxy, https_proxy; the controller is in no_proxy). It can't have a password, because
        user-data is not secret. Default: none.""",
    )
    ca_certificates = Unicode(
        "",
        config=True,
        help="""File on this machine (PEM) with the CA certificates that servers need for the object store's https and that the image
        lacks. Default: the cacert in clouds.yaml, or OS_CACERT, without public certificates.""",
    )

    def cloud_name(self) -> str:
        """Return the name of the cloud in clouds.yaml, "" for the plain OS_* variables."""
        return self.cloud or os.environ.get("OS_CLOUD", "")

    def prefetch(self, cloud: Cloud) -> None:
        """Send the requests of `look_up` and of the object store in the background. Raises none of their errors: `look_up` asks again."""
        store = partial(open_store, cloud, container=self.container, servers_url=self.store_url)
        prefetch_of(cloud).ask({**self._kinds(cloud), "store": lambda: store().prepare()})

    def look_up(self, cloud: Cloud) -> Catalogue:
        """Return what this cloud offers: one or two requests for each kind, all at the same time. Blocking."""
        once = ("limits",)  # servers will be made of them
        return Catalogue(**prefetch_of(cloud).answers(self._kinds(cloud), once))

    def networks(self, cloud: Cloud) -> Sequence[Network]:
        """Return the cloud's networks. Blocking."""
        return list(prefetch_of(cloud).answers({"networks": cloud.networks})["networks"])

    def _kinds(self, cloud: Cloud) -> dict[str, Callable[[], Any]]:
        return {
            "networks": cloud.networks,
            "images": cloud.images,
            "flavors": cloud.flavors,
            "limits": lambda: self.limits(cloud),
            **({"key_names": cloud.key_names} if self.key_name else {}),
            **({"security_groups": cloud.security_groups} if self.security_groups else {}),
            **({"zones": cloud.zones} if self.availability_zone else {}),
        }

    def plan(
        self,
        there: Catalogue,
        network: Network,
        *,
        labels: Mapping[str, str],
        naming: Naming = shared_setting,
        **request: Any,
    ) -> Plan:
        """Return the plan that these settings and ``request`` (see `plan.make_plan`) give on a cloud that offers what is ``there``. Pure.

        ``naming``: returns the full name of a setting, for errors.

        Raises `SettingError` if a name does not exist. The quota is checked separately, by `plan.check_quota`.
        """
        image = choose_image(self.image, there.images, naming)
        plan = make_plan(
            image=image,
            flavor=choose_flavor(self.flavor, there.flavors, image, naming),
            network=network,
            key_name=self.key_name,
            security_groups=self.security_groups,
            availability_zone=self.availability_zone,
            metadata={f"griffin:{k}": v[:255] for k, v in labels.items()},
            **request,
        )
        if plan.key_name:
            check_names(naming("key_name"), "key pair", [plan.key_name], there.key_names)
        if plan.security_groups:
            groups = there.security_groups
            check_names(naming("security_groups"), "security group", plan.security_groups, groups.values(), groups)
        if plan.availability_zone:
            check_names(naming("availability_zone"), "availability zone", [plan.availability_zone], there.zones)
        return plan

    def limits(self, cloud: Cloud) -> Limits:
        """Return the quota; an unknown one if the cloud does not show it. Creating servers will then tell."""
        from ..common.errors import CloudError, Unavailable

        try:
            return cloud.limits()
        except Unavailable:
            raise
        except CloudError as e:
            self.log.info(f"Continuing without checking the quota: {e}")
            return Limits(-1, 0, -1, 0, -1, 0, known=False)

    def check(self) -> None:
        """Raise `SettingError` for settings that are wrong on any cloud. Sends no request."""
        self.ca_text()
        if self.store_url and self.store_url not in INTERFACES and _url_parts(self.store_url) is None:
            raise SettingError(
                f"GriffinCloud.store_url {self.store_url!r} is neither the URL of an object store, such as "
                f'"https://store.internal:8080/v1/AUTH_ab12", nor one of {", ".join(INTERFACES)}.'
            )
        if not self.proxy:
            return
        if "@" in self.proxy:
            raise SettingError(
                "GriffinCloud.proxy has a user name or a password, but the servers' user-data, where it would be, "
                "is not secret. Remove it, and let the proxy admit the servers by their addresses."
            )
        if _url_parts(self.proxy) is None:
            raise SettingError(
                f'GriffinCloud.proxy {self.proxy!r} is not the URL of a proxy, such as "http://10.0.0.1:3128".'
            )

    def check_cloud(self, cloud: Cloud) -> None:
        """Raise `Unsupported` if the cloud lacks something that every cluster needs. Call it before anything is created."""
        cloud.check_services(self.store_url if self.store_url in INTERFACES else "")

    def ca_text(self, default: str | None = "") -> str:
        """Return the CA certificates for servers, as PEM text. ``default``: the file or folder that clouds.yaml names; "": none;
        None: this machine does not check certificates, which servers always do.

        Raises `SettingError` where a file can't be read.
        """
        path = self.ca_certificates or default
        if not path:
            if default is None:
                self.log.warning(
                    "clouds.yaml turns the verification of certificates off, but servers verify the object "
                    "store's. If they can't reach it, set GriffinCloud.ca_certificates."
                )
            return ""
        try:
            text = certificates.read(Path(path).expanduser())
            return text if self.ca_certificates else certificates.private(text)
        except (OSError, ValueError) as e:  # not text; or a certificate that is not base64
            name = "GriffinCloud.ca_certificates" if self.ca_certificates else "cacert"
            raise SettingError(f"Can't read {name} {path}: {e}") from e


def _url_parts(url: str) -> SplitResult | None:
    """Return the parts of an http or https URL with a host; None for anything else."""
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return None
    return parts if parts.scheme in ("http", "https") and parts.hostname and not re.search(r"\s", url) else None
