#!/bin/bash
# The tests of the agent on virtual machines, in a network namespace that has loopback only: what the guests call 10.0.2.2
# (or, with a metadata service, 169.254.169.254) is its 127.0.0.1, and nothing else can be reached. 10.0.2.15 is the guest, where its
# ports are forwarded.
# `run.sh boot USER_DATA [bare]` boots one by hand there, its console on this terminal.
set -euo pipefail
[ "${1:-}" != boot ] || set -- boot "$(realpath "${2:?usage: run.sh boot USER_DATA [bare]}")" "${@:3}"
cd "$(dirname "$0")/../../.."
export IPYPARALLEL=${IPYPARALLEL:-$(.venv/bin/python -c 'import ipyparallel; print(ipyparallel.__version__)')}
tests/openstack/guest-vm/build-image.sh
if [ "${1:-}" = boot ]; then
    set -- tests.openstack.virtual_machines "${@:2}"
else
    [ $# -gt 0 ] || set -- -n 2
    set -- pytest -m guest_vm tests/openstack/test_guest_vm.py "$@"
fi
exec unshare --net sh -c 'ip link set lo up && ip addr add 10.0.2.2/32 dev lo && ip route add local 10.0.2.15/32 dev lo src 127.0.0.1 && ip addr add 169.254.169.254/32 dev lo && exec "$@"' sh \
    .venv/bin/python -m "$@"
