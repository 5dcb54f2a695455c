"""Doing: create, poll, reconcile, find again and tear down what a cluster has on the cloud. Blocking; no traits, no ipyparallel."""
