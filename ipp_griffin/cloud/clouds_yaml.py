"""Make a connection, without sending a request, from the name of a cloud in clouds.yaml.

The file serves many programs. Settings for other programs are ignored, so that they can neither change what this project does nor break
it: https://docs.openstack.org/openstacksdk/latest/user/config/configuration.html
"""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import openstack.config
import openstack.connection
import yaml
from openstack import warnings as sdk_warnings

from ..common.errors import CredentialsError
from ..common.text import one_line
from .failures import TIMEOUT, quiet

# This program decides itself which API versions it uses and which requests it repeats.
_VERSIONS = re.compile(r"(compute|image|network|object_store)_(api_version|default_microversion)")
_OTHERS = re.compile(
    r"(\w+_)?((connect|status_code)_(retries|retry_delay)|rate_limit|concurrency)|networks|(external|internal)_network"
)
_WORDS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}
_VARIABLES = {  # that the openstack command uses beside OS_CLOUD, and the keys of an entry that they stand for
    "OS_CACERT": ("cacert",),
    "OS_INTERFACE": ("interface", "endpoint_type"),
    "OS_REGION_NAME": ("region_name", "regions"),
}


def configure(name: str, region: str, label: str) -> openstack.connection.Connection:
    """Return the connection for the entry ``name`` ("": OS_CLOUD, else the OS_* variables). ``label``: its name in errors; ``region`` "": the
    entry's. Raises `CredentialsError` for an entry that can't be used."""
    options: dict[str, Any] = {"cloud": name or None, **({"region_name": region} if region else {})}
    have = ""
    try:
        with quiet(), warnings.catch_warnings():
            # Unknown vendors and old spellings don't matter here.
            warnings.simplefilter("ignore", sdk_warnings.OpenStackWarning)
            warnings.simplefilter("ignore", sdk_warnings.OpenStackDeprecationWarning)
            config = openstack.config.OpenStackConfig(
                app_name="ipp-griffin", app_version=metadata.version("ipp-griffin")
            )
            have = _what_is_there(config)
            clouds, key = config.cloud_config["clouds"], name or config.default_cloud
            if isinstance(clouds.get(key), dict):
                clouds[key] = entry = tidy(clouds[key], region)
                if "regions" in entry and "region_name" in entry:  # else the first of the list wins
                    options["region_name"] = entry["region_name"]
            cloud = config.get_one(**options)
        for key in [key for key in cloud.config if not _respected(key, cloud.config)]:  # of a vendor's profile
            del cloud.config[key]
        cloud.config["api_timeout"] = cloud.config.get("api_timeout") or TIMEOUT
        with quiet():
            connection = openstack.connection.Connection(config=cloud)
            _ = connection.session
        return connection
    except Exception as error:  # a broken clouds.yaml can end in any kind of error there
        why = "its entry is empty or broken" if isinstance(error, TypeError | AttributeError) else one_line(error)
        if unknown := re.search(r"unexpected keyword argument '(\w+)'", str(error)):
            why = f"its auth has {unknown[1]!r}, which its auth_type does not know"
        raise CredentialsError(
            f"Can't use {label}: {why.rstrip('. ')}. {have}Set OS_CLOUD or GriffinCloud.cloud to an entry of "
            "clouds.yaml, or set the OS_* variables."
        ) from None


def tidy(entry: dict[str, Any], region: str = "") -> dict[str, Any]:
    """Return the parts of an entry of clouds.yaml that concern this program, for ``region`` ("": its own).

    Raises ValueError that names what can't be used.
    """
    given = {str(key).replace("-", "_"): value for key, value in entry.items()}
    for variable, keys in _VARIABLES.items():
        if os.environ.get(variable) and not any(given.get(key) for key in keys):
            given[keys[0]] = os.environ[variable]
    regions = given.get("regions") or ()
    of_regions = [_values(each) for each in regions if isinstance(each, dict)] if isinstance(regions, list) else []
    kept = _settings(given, beside={key: value for values in of_regions for key, value in values.items()})
    if isinstance(kept.get("auth", {}), dict):
        kept["auth"] = {key: value for key, value in kept.get("auth", {}).items() if value is not None}
    else:
        raise ValueError("its auth is not a list of names and values")
    return _choose_region(kept, region)


def _choose_region(kept: dict[str, Any], region: str) -> dict[str, Any]:
    """Return the entry with one region chosen: an entry may name its region, list several, and have settings for each."""
    # To the SDK, an empty list means no region at all, even if there is a region_name.
    regions = kept.pop("regions", None) or []
    regions = [regions] if isinstance(regions, str) else regions
    region = region or (str(kept.get("region_name") or "") if regions else "")
    if region:
        kept["region_name"] = region
        if not any(region == (each.get("name") if isinstance(each, dict) else each) for each in regions):
            return kept
    if regions:
        kept["regions"] = [
            {**each, "values": _settings(_values(each), beside=kept)} if isinstance(each, dict) else each
            for each in regions
        ]
    return kept


def _values(region: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of one item in an entry's list of regions."""
    return dict(region.get("values") or {})


def _settings(entry: dict[str, Any], beside: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that concern this program, of an entry or of one of its regions; ``beside``: those of the other.

    Raises ValueError.
    """
    kept = {str(key).replace("-", "_"): value for key, value in entry.items() if value is not None}
    kept = {key: value for key, value in kept.items() if _respected(key, {**beside, **kept})}
    for key in ("verify", "insecure"):
        if isinstance(kept.get(key), str):
            kept[key] = _WORDS.get(kept[key].lower(), kept[key])
    if kept.get("verify") is False or kept.get("insecure"):
        kept.pop("cacert", None)  # not used then, and the SDK would warn
    try:
        seconds = float(kept.pop("api_timeout", 0))
    except (TypeError, ValueError):
        raise ValueError(f"api_timeout is {entry.get('api_timeout')!r}, not a number of seconds") from None
    return {**kept, "api_timeout": seconds} if seconds > 0 else kept


def _respected(key: str, settings: Mapping[str, Any]) -> bool:
    """Return whether this program uses the key. The version counts if the entry has its own endpoint, since it saves the discovery."""
    if version := _VERSIONS.fullmatch(key):
        return version[2] == "api_version" and bool(settings.get(f"{version[1]}_endpoint_override"))
    return not _OTHERS.fullmatch(key)


def _what_is_there(config: Any) -> str:
    """Return a sentence with the names of the clouds, or why there are none."""
    names = ", ".join(sorted(set(config.get_cloud_names()) - {"defaults"})) or "no cloud"
    if config.config_filename:
        return f"{config.config_filename} has: {names}. "
    asked = os.environ.get("OS_CLIENT_CONFIG_FILE")
    files = [path for path in dict.fromkeys([asked, *config._config_files]) if path and path.endswith(".yaml")]
    for path in files:
        try:
            yaml.safe_load(Path(path).read_text())
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            where = f", line {mark.line + 1}" if mark else ""
            return f"{path}{where}: not YAML ({one_line(getattr(error, 'problem', error))}). "
        except (OSError, UnicodeDecodeError):
            continue
    return f"There is no {' nor '.join(files)}. "
