#!/bin/bash
# run.sh CLOUD [PYTEST ARGUMENT...]: the end-to-end tests and the contract on an entry of clouds.yaml. "real" is what
# `make realcloud-up` started: there the tests run on a machine in its network, as on a head node.
set -euo pipefail
cd "$(dirname "$0")/../.."
cloud=${1:?usage: make test-openstack CLOUD=NAME}; shift
state=${REALCLOUD_STATE:-/var/tmp/real-openstack}
on=()
if [ "$cloud" = real ]; then
    [ -r "$state/clouds.yaml" ] || { echo "run.sh: the cloud 'real' is not up: make realcloud-up" >&2; exit 1; }
    on=(tests/openstack/realcloud/login.sh env REALCLOUD_STATE="$state" OS_CLIENT_CONFIG_FILE="$state/clouds.yaml")
fi
[[ " $*" = *" tests/"* ]] || set -- "$@" tests/end_to_end tests/faults tests/test_ipyparallel_contract.py tests/openstack
exec "${on[@]}" .venv/bin/python -m pytest --cloud="$cloud" --timeout=600 --durations=10 "$@"  # servers may take minutes
