# ipcontroller, the controller's process. Its address, ports, CurveZMQ and keys are set by the launcher, in its
# arguments and environment: see c.GriffinControllerLauncher in ipcluster_config.py.

c = get_config()  # noqa: F821

# Milliseconds between two heartbeats. An engine is listed after one to two of them, and dropped when
# c.HeartMonitor.max_heartmonitor_misses of them are missing (30 s). Higher is kinder to a thousand engines: change both
# settings then. ipyparallel's own are 3000 and 10.
# c.HeartMonitor.period = 500
# c.HeartMonitor.max_heartmonitor_misses = 60

# Where results are kept for clients that ask again: "DictDB" (memory), "SQLiteDB", "NoDB".
# c.IPController.db_class = "DictDB"

# Seconds that the controller waits for the heartbeat of an engine that registers; then it forgets the engine.
# (ipyparallel's own default, 30, is too short where many engines share a core.)
# c.IPController.registration_timeout = 120
