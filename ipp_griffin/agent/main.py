"""The agent: runs ON a server as its user-data, starts its engines, or the controller, watches them and reports. Standard library only.

`model.userdata` joins the modules of this folder into one program, and fills in PARAMETERS. It also runs on the Python 3.6 of an old
image, to start engines with a newer one. Three ways to run, told apart by `main`:

* cloud-init starts it as root from its scripts folder: it installs itself as a systemd unit (without systemd: goes into
  the background) and returns, so that cloud-init isn't held up;
* the unit starts it, now and after each reboot, on the instance it was installed on and on no other (a snapshot of a
  server with engines boots as a plain server). It makes an unprivileged user for the engines, and switches the server
  off when the controller is gone for good, or when it gave up and nobody deleted the server;
* anything else is a plain process in the foreground: engines run as the same user, and at the end it just exits.

The private object, logs and counters are in a folder that only the agent can read; what engines need is written
into the engine user's home with that user's rights, so that nothing planted there can misdirect root.
"""

import os
import shutil
import signal
import sys

from .agent import INSTANCE_ID
from .controller import ControllerAgent
from .engines import EngineAgent
from .errors import Stopped
from .store import url_opener
from .system import SYSTEM_PATH, Json, read, say, write
from .systemd import LOG, UNIT, install, into_background

PARAMETERS: Json = {}

STATE = "/var/lib/ipp-griffin"


def serve(folder: str, root: bool, unit: bool = False) -> int:
    """Run the agent in this process; return its exit status. ``unit``: systemd powers off a server whose agent always breaks."""
    urlopen = url_opener(PARAMETERS.get("proxy", ""), PARAMETERS.get("ca_certificates", ""))
    kind = ControllerAgent if PARAMETERS.get("role") == "controller" else EngineAgent
    agent = kind(PARAMETERS, folder, root, urlopen)
    signal.signal(signal.SIGTERM, agent.children.on_signal)
    signal.signal(signal.SIGINT, agent.children.on_signal)
    try:
        return agent.main()
    except Stopped:
        agent.end()
        return 0
    except Exception as e:
        agent.end()
        agent.reports.write("failed", f"the agent broke: {type(e).__name__}: {e}")
        if root and not unit:
            agent.give_up()
        return 1


def main() -> int:
    """Choose how to run (see above); return the exit status."""
    os.umask(0o022)
    program = os.path.abspath(__file__)
    root = os.geteuid() == 0 and program.startswith((STATE + "/", "/var/lib/cloud/"))
    if root:
        os.environ["PATH"] = SYSTEM_PATH
    if root and program == os.path.join(STATE, "agent.py"):
        if read(INSTANCE_ID) != read(os.path.join(STATE, "instance-id")):
            say("this agent was made for another server; nothing to do")
            return 0
        return serve(STATE, True, unit=True)
    if root:
        shutil.rmtree(STATE, ignore_errors=True)  # a snapshot may have brought another server's
        os.makedirs(STATE, mode=0o700)
        write(os.path.join(STATE, "instance-id"), read(INSTANCE_ID))
        if os.path.isdir("/run/systemd/system") and install(program, STATE, UNIT):
            say("the agent is installed as ipp-griffin-agent.service")
            return 0
        say("the agent goes on in the background, its log is " + LOG)
        return serve(STATE, True) if into_background() else 0
    name = "{engine_set}-{slot}-{incarnation}".format(**PARAMETERS)
    home = os.environ.get("HOME") or os.getcwd()
    return serve(os.path.join(home, ".ipp-griffin-agent", name), False)


if __name__ == "__main__":
    sys.exit(main())
