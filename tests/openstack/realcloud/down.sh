#!/bin/bash
# Stops what up.sh started, by recorded pid. State stays; up.sh --fresh drops it.
set -uo pipefail
. "$(dirname "$0")/lib.sh"
for s in nova-compute nova-scheduler nova-conductor nova neutron glance placement \
         swift-container-updater swift-proxy swift-object swift-container swift-account keystone; do
    stop $s 10 &
done
wait
if [ -d "$STATE/guests" ]; then
    REALCLOUD_STATE=$STATE "$BIN/python" -c '
from concurrent.futures import ThreadPoolExecutor
from realcloud import guest
with ThreadPoolExecutor(8) as pool:
    list(pool.map(guest.stop, (p.name for p in (guest.STATE / "guests").iterdir() if p.is_dir())))'
    ip netns del rc-fabric 2>/dev/null
fi
for s in rabbitmq memcached; do stop $s 20 & done
wait
stop epmd 5; stop swift-log 5
stop mariadb 30
say "stopped"
