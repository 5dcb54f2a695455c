"""The contract between the dev cloud and the real OpenStack services: see README.md."""
