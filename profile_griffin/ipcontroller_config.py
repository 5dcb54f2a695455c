# ipcontroller, the controller's process. Its address, ports, CurveZMQ and keys are set by the launcher, in its
# arguments and environment: see c.GriffinControllerLauncher in ipcluster_config.py.

c = get_config()  # noqa: F821

# Milliseconds between two heartbeats. An engine is listed after the first ones, and dropped when
# c.HeartMonitor.max_heartmonitor_misses of them are missing. Higher is kinder to hundreds of engines.
# c.HeartMonitor.period = 3000
# c.HeartMonitor.max_heartmonitor_misses = 10

# Where results are kept for clients that ask again: "DictDB" (memory), "SQLiteDB", "NoDB".
# c.IPController.db_class = "DictDB"

# Seconds that the controller waits for the heartbeat of an engine that registers.
# c.IPController.registration_timeout = 30
