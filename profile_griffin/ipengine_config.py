# ipengine, the process of one engine on a server. This file travels to the servers beside the connection file,
# in the cluster's private object: it is plain Python that runs on each of them.

import os

c = get_config()  # noqa: F821

# The connection file: ipcontroller-engine.json, as the agent on the server read it from the object store.
c.IPEngine.url_file = os.environ.get("GRIFFIN_CONNECTION_FILE", "")

# Python code that every engine runs when it starts, e.g. "import numpy as np".
# c.IPEngine.startup_command = ""

# Heartbeats of the controller that an engine may miss before it ends (a missing heartbeat is noticed every
# c.HeartMonitor.period, see ipcontroller_config.py, plus half a second). Default: as many as make 150 s.
# c.IPEngine.max_heartbeat_misses = 150
