"""ipyparallel clusters on OpenStack: a controller and engines on VMs that find each other in the object store."""

__version__ = "0.1.0"
