"""Generate the reference of all settings from the traits' help: the profile's ipcluster_config.py, and the tables of docs/settings.md.

To write them again: python -m tests.launchers.reference.
"""

from __future__ import annotations

from pathlib import Path

from traitlets.config import Configurable

from ipp_griffin.launchers import GriffinControllerLauncher, GriffinEngineSetLauncher, GriffinServerControllerLauncher
from ipp_griffin.launchers.cloud_settings import GriffinCloud

REPO = Path(__file__).parents[2]
PROFILE, PAGE = REPO / "profile_griffin" / "ipcluster_config.py", REPO / "docs" / "settings.md"
BEGIN, END = "<!-- the tables: python -m tests.launchers.reference -->\n", "<!-- their end -->\n"
CLASSES: dict[type[Configurable], str] = {
    GriffinCloud: "The cloud and its servers, for a whole cluster",
    GriffinControllerLauncher: "The controller, a process of this machine",
    GriffinServerControllerLauncher: "The controller on a server: `--controller=griffin-server`",
    GriffinEngineSetLauncher: "An engine set",
}
HEAD = """# The settings of `ipcluster start --profile=griffin` and `ipp.Cluster(profile="griffin")`. Every value shown is the default;
# uncomment and change what you need.
#
# The launchers are named in ipcluster_config.json beside this file, not here: if this file has a mistake, ipcluster ignores it,
# and would start local engines.

c = get_config()  # noqa: F821

"""
TAIL = """#------------------------------------------------------------------------------
# Cluster (ipyparallel's own)
#------------------------------------------------------------------------------
## Number of engines, unless -n or ipp.Cluster(n=...) gives it. None: one for each core of this machine.
# c.Cluster.n = None

## Command-line arguments of the engines, such as ["--debug"].
# c.EngineLauncher.engine_args = []

# Seconds to wait between starting the controller and the engines. None are needed: griffin's launcher returns when the controller is ready.
c.Cluster.delay = 0
"""


def profile() -> str:
    """Return the text of the profile's ipcluster_config.py. What the launchers inherit from ipyparallel is left out."""
    text = HEAD + "".join(_section(of_launcher) for of_launcher in CLASSES) + TAIL
    return "\n".join(line.rstrip() for line in text.replace("#---", "# ---").split("\n"))  # as the formatter has it


def _section(of_launcher: type[Configurable]) -> str:
    parents = [one for one in of_launcher.mro() if one.__module__.startswith("ipyparallel.")]
    text = of_launcher.class_config_section([of_launcher, *parents])
    return "\n\n".join(block for block in text.split("\n\n") if "#  See also: " not in block).rstrip("\n") + "\n\n"


def tables() -> str:
    """Return the tables of docs/settings.md: a row for each setting that is this project's own."""
    return "\n".join(_table(of_launcher, title) for of_launcher, title in CLASSES.items())


def _table(of_launcher: type[Configurable], title: str) -> str:
    rows = [
        f"| `{of_launcher.__name__}.{name}` | {_cell(trait.help)} | `{trait.default()!r}` |"
        for name, trait in sorted(of_launcher.class_traits(config=True).items())
        if trait.this_class.__module__.startswith("ipp_griffin.")
    ]
    return f"## {title}\n\n| setting | meaning | default |\n|---|---|---|\n" + "\n".join(rows) + "\n"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def page(text: str) -> str:
    """Return ``text``, the page, with the tables as they are now."""
    before, _, rest = text.partition(BEGIN)
    return before + BEGIN + "\n" + tables() + "\n" + END + rest.partition(END)[2]


if __name__ == "__main__":
    PROFILE.write_text(profile())
    PAGE.write_text(page(PAGE.read_text()))
