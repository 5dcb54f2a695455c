"""ipcontroller on this machine: run it, ask its hub, tunnel to it."""
