#!/bin/bash
# login.sh COMMAND...: run a command on a machine that servers can reach, as a head node is: this machine's own files,
# but attached to griffin-net as 10.77.0.2 (and to tiny-net), with the cloud's endpoints at their usual address and nothing else.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
export REALCLOUD_STATE=$STATE REALCLOUD_IP=$IP
alive nova-compute || die "the cloud is not up: make realcloud-up"
# What is asked is whether its process runs: the namespace outlives that.
if ! "$BIN/python" -c "import sys; from realcloud import guest; sys.exit(not guest.alive('login000'))"; then
    id() { mariadb --no-defaults -S "$SOCK" -u root -p"$SECRET" -NBe "select id from neutron.networks where name='$1'"; }
    "$BIN/python" -c "
from realcloud import guest
guest.create('login000', 'login', '', [
    {'network': '$(id griffin-net)', 'ip': '10.77.0.2', 'cidr': '10.77.0.0/16', 'gateway': '10.77.0.1'},
    {'network': '$(id tiny-net)', 'ip': '10.78.0.2', 'cidr': '10.78.0.0/24', 'gateway': ''}], command=['sleep', 'infinity'])
guest.start('login000')"
    wait_for 10 "the way into griffin-net" ip netns exec rc-login000 bash -c "exec 3<>/dev/tcp/$IP/5000"
fi
exec ip netns exec rc-login000 "$@"
