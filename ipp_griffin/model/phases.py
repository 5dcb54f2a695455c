"""The phases of a server, from its request to its end: the one list, and its parts. Pure."""

PHASES = ("requested", "building", "active", "agent", "connected", "engines", "gone", "failed")
START = PHASES[:6]  # one after the other
REPORTED = PHASES[3:]  # by the server's agent; the others are known from the launcher and from Nova
ENDED = PHASES[6:]
