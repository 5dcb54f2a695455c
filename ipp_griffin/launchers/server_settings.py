"""What a launcher that makes servers sets of them, in place of what `GriffinCloud` says for all servers of a cluster."""

from __future__ import annotations

from typing import Any

from traitlets import HasTraits, List, Unicode

from ..model.plan import shared_setting


class ServerSettings(HasTraits):
    """Configured as ``c.<the launcher's class>.<name>``. One that is empty means `GriffinCloud`'s of the same name."""

    image = Unicode(
        "",
        config=True,
        help="""Image of these servers alone: a name, an id, or a pattern such as "snapshot*". Default: GriffinCloud.image.""",
    )
    flavor = Unicode(
        "", config=True, help="Flavor (size) of these servers alone: a name or an id. Default: GriffinCloud.flavor."
    )
    network = Unicode(
        "",
        config=True,
        help="""Network of these servers alone: a name or an id. From there they must reach the controller's address and the
        object store. Default: GriffinCloud.network.""",
    )
    key_name = Unicode("", config=True, help="Key pair for ssh to these servers alone. Default: GriffinCloud.key_name.")
    security_groups = List(
        Unicode(),
        config=True,
        help="""Security groups of these servers alone, by name or id, in place of the others'; with
        GriffinCloud.manage_security_group, besides the cluster's own. Default: GriffinCloud.security_groups.""",
    )
    availability_zone = Unicode(
        "", config=True, help="Availability zone of these servers alone. Default: GriffinCloud.availability_zone."
    )

    def own_settings(self) -> dict[str, Any]:
        """Those that are set: what is to take the place of GriffinCloud's."""
        values = {name: getattr(self, name) for name in ServerSettings.class_own_traits(config=True)}
        return {name: value for name, value in values.items() if value}

    def naming(self, name: str) -> str:
        """What errors call the setting of this name: the launcher's own, if that is what counts, else both."""
        own = f"{type(self).__name__}.{name}"
        return own if getattr(self, name) else f"{shared_setting(name)} (or {own}, for these servers alone)"
