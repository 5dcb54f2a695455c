"""The agent as a systemd unit; without systemd, in the background."""

import os
import re
import sys

from .system import STREAMS, Run, read, run_command, say, write
from .text import last_lines

LOG = "/var/log/ipp-griffin-agent.log"
UNIT = "/etc/systemd/system/ipp-griffin-agent.service"


def unit_text(python: str, program: str) -> str:
    """Return the systemd unit. OOMPolicy: the kernel killing one engine must not end the others. StartLimitAction:
    without it, a server whose agent always breaks would run for ever. No % may be in here."""
    if re.search(r"[^\w./+-]", python):
        python = "/usr/bin/env python3"
    return f"""[Unit]
Description=ipp-griffin: what this server runs of an ipyparallel cluster
Wants=network-online.target
After=network-online.target
StartLimitIntervalSec=600
StartLimitBurst=5
StartLimitAction=poweroff

[Service]
ExecStart={python} {program}
Restart=on-failure
RestartSec=5
KillMode=control-group
TimeoutStopSec=20
OOMPolicy=continue
TasksMax=infinity
StandardOutput=journal+console
StandardError=journal+console

[Install]
WantedBy=multi-user.target
"""


def install(program: str, state: str, unit: str, run: Run = run_command) -> bool:
    """Become a systemd unit of this server; return whether that worked."""
    target = os.path.join(state, "agent.py")
    write(target, read(program))
    write(unit, unit_text(sys.executable, target).encode(), 0o644)
    name = os.path.basename(unit)
    # Without --no-block it would wait for cloud-init's own target: for us.
    for command in (["daemon-reload"], ["enable", name], ["restart", "--no-block", name]):
        code, output = run(["systemctl"] + command)
        if code:
            say("systemctl {}: {}".format(" ".join(command), last_lines(output, 3)))
            return False
    return True


def into_background() -> bool:
    """Fork; return True in the process that continues, without a terminal."""
    if os.fork():
        return False
    os.setsid()
    if os.fork():
        os._exit(0)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    STREAMS.append(os.fdopen(os.open(LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "w"))
    os.dup2(STREAMS[-1].fileno(), 2)
    return True
