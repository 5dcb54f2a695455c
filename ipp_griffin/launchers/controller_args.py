"""ipcontroller's arguments that a user may not give, because the launchers do, in whatever way they are given."""

from __future__ import annotations

import re
from collections.abc import Iterable

from ..common.errors import SettingError

PORTS_NEEDED = 20  # ipcontroller binds 16 to 18 sockets at its default broadcast depth
KEYS = ("Session.key", "IPController.curve_secretkey", "IPController.curve_publickey")


def check_args(user: Iterable[str]) -> None:
    """Raise `SettingError` for what would switch off, or make public, what protects the cluster."""
    user = list(user)
    if given(user, "IPController.enable_curve"):
        raise SettingError(
            "CurveZMQ is always on here: take --IPController.enable_curve out of the controller's arguments."
        )
    if given(user, "reuse", "restore", "IPController.reuse_files", "IPController.restore_engines"):
        raise SettingError(
            "Connection files can't be used again (--reuse, --restore): the launcher makes new CurveZMQ keys in every run."
        )
    if given(user, *KEYS):
        raise SettingError(
            "Keys don't go into the controller's arguments, which every user of this machine can read: take "
            f"{next(name for name in KEYS if given(user, name))} out. The launcher makes new ones in every run."
        )


def port_range(ports: str, count: int, setting: str) -> tuple[int, int]:
    """The first and the last of "FIRST-LAST". Raises `SettingError`, naming the ``setting``, where that is no range of ``count`` ports."""
    match = re.fullmatch(r"\s*(\d+)\s*-\s*(\d+)\s*", ports)
    first, last = (int(match[1]), int(match[2])) if match else (0, 0)
    if not match or last - first + 1 < count or not 0 < first <= last <= 65535:
        raise SettingError(
            f"{setting} is {ports!r}: it must be a range FIRST-LAST of at least {count} ports below 65536."
        )
    return first, last


def given(args: Iterable[str], *names: str) -> str:
    """The value that a user's own command line arguments give one of these options, "" for none."""
    args = list(args)
    for position, arg in enumerate(args):
        name, equals, value = arg.lstrip("-").partition("=")
        if arg.startswith("-") and name in names:
            return value if equals else (args[position + 1] if position + 1 < len(args) else " ")
    return ""
