#!/bin/bash
# Starts the test cloud, waits until it is healthy, prints the path of clouds.yaml.
# A first start also makes the databases, users, images and networks. --fresh: from nothing.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
. "$HERE/configure.sh"
[ -x "$BIN/uwsgi" ] || die "run install.sh first"
mkdir -p "$STATE/guests"
rm -f "$FAULTS"
if [ "${1:-}" = --fresh ]; then
    "$HERE/down.sh"
    rm -rf "$ETC" "$LOG" "$RUN" "$STATE"/{db,rabbit,nova,neutron,glance,locks,swift,guests,ready,clouds.yaml}
fi
began=$(date +%s)
umask 022
configure
export REALCLOUD_FAULTS=$FAULTS
sql() { mariadb --no-defaults -S "$SOCK" -u root -p"$SECRET" -NBe "$1"; }

# --- database, queue, cache
if [ ! -d "$STATE/db/mysql" ]; then
    say "making the database"
    mariadb-install-db --no-defaults --user=root --datadir="$STATE/db" --skip-test-db \
        --auth-root-authentication-method=normal >"$LOG/db-install.log" 2>&1
fi
start mariadb mariadbd --no-defaults --user=root --datadir="$STATE/db" --socket="$SOCK" --skip-networking \
    --pid-file="$RUN/mariadbd.own" --max-connections=500 --innodb-flush-log-at-trx-commit=0 --innodb-doublewrite=0 \
    --innodb-buffer-pool-size=256M --character-set-server=utf8mb4 --performance-schema=off
start memcached memcached -u root -l "$IP" -p 11211 -m 64
start epmd env ERL_EPMD_RELAXED_COMMAND_CHECK=1 epmd -address 127.0.0.1 -port 14369
mkdir -p "$STATE/rabbit"; echo > "$STATE/rabbit/enabled_plugins"
start rabbitmq env HOME="$STATE/rabbit" ERL_EPMD_PORT=14369 ERL_EPMD_ADDRESS=127.0.0.1 \
    RABBITMQ_NODENAME=realcloud@localhost RABBITMQ_MNESIA_BASE="$STATE/rabbit" RABBITMQ_LOG_BASE="$LOG" \
    RABBITMQ_CONFIG_FILE="$ETC/rabbitmq" RABBITMQ_ENABLED_PLUGINS_FILE="$STATE/rabbit/enabled_plugins" \
    RABBITMQ_CONF_ENV_FILE=/dev/null RABBITMQ_DIST_PORT=25672 RABBITMQ_PID_FILE="$RUN/rabbitmq.own" \
    RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS="-start_epmd false -kernel inet_dist_use_interface {127,0,0,1} +sbwt none +sbwtdcpu none +sbwtdio none" \
    /usr/lib/rabbitmq/bin/rabbitmq-server
db_up() { sql 'select 1' || mariadb --no-defaults -S "$SOCK" -u root -NBe "alter user root@localhost identified by '$SECRET'"; }
wait_for 60 mariadb db_up

# Without a syslog socket Swift would log to a UDP port.
start swift-log "$BIN/python" -c "
import os, socket
if os.path.exists('$RUN/log.sock'): os.unlink('$RUN/log.sock')
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.bind('$RUN/log.sock')
while True: print(s.recv(65536).decode('utf-8', 'replace').rstrip(chr(0)), flush=True)"

# --- schemas
manage() { # NAME COMMAND...
    local name=$1; shift
    "$@" >>"$LOG/$name-manage.log" 2>&1 || die "$* failed; see $LOG/$name-manage.log"
}
nova_manage() { manage nova "$BIN/nova-manage" --config-file "$ETC/nova/nova.conf" "$@"; }
if [ ! -e "$STATE/ready/schemas" ]; then
    say "making the schemas"
    for d in keystone glance placement nova nova_api nova_cell0 neutron; do sql "create database if not exists $d"; done
    (manage keystone "$BIN/keystone-manage" --config-file "$ETC/keystone/keystone.conf" db_sync
     manage keystone "$BIN/keystone-manage" --config-file "$ETC/keystone/keystone.conf" fernet_setup --keystone-user root --keystone-group root
     manage keystone "$BIN/keystone-manage" --config-file "$ETC/keystone/keystone.conf" credential_setup --keystone-user root --keystone-group root
     manage keystone "$BIN/keystone-manage" --config-file "$ETC/keystone/keystone.conf" bootstrap --bootstrap-password "$SECRET" \
        --bootstrap-region-id "$REGION" --bootstrap-admin-url "$URL:5000/v3" --bootstrap-public-url "$URL:5000/v3" --bootstrap-internal-url "$URL:5000/v3"
     manage placement "$BIN/placement-manage" --config-file "$ETC/placement/placement.conf" db sync
     manage glance "$BIN/glance-manage" --config-file "$ETC/glance/glance-api.conf" db_sync) & a=$!
    (nova_manage api_db sync
     nova_manage cell_v2 map_cell0 --database_connection "$(dburl nova_cell0)"
     nova_manage db sync
     nova_manage cell_v2 create_cell --name cell1) & b=$!
    (manage neutron "$BIN/neutron-db-manage" --config-file "$ETC/neutron/neutron.conf" upgrade heads) & c=$!
    wait $a; wait $b; wait $c
    mkdir -p "$STATE/ready"; touch "$STATE/ready/schemas"
fi

# --- services
api() { # NAME ENVIRONMENT...
    local name=$1; shift
    start "$name" env PYTHONUNBUFFERED=1 REALCLOUD_SERVICE="$name" "$@" "$BIN/uwsgi" --venv "$VENV" --ini "$ETC/uwsgi-$name.ini"
}
up() { # PORT PATH [CODES]
    local code
    code=$(curl -s -o /dev/null -m 5 -w '%{http_code}' "$URL:$1$2") || true
    case $code in 200|300|401) ;; *) return 1 ;; esac
}
say "starting services"
since=$((began + 1)); alive nova-compute && since=$((began - 60))  # a report of the process now stopped does not count
api keystone OS_KEYSTONE_CONFIG_DIR="$ETC/keystone"
for s in account container object; do start swift-$s "$BIN/swift-$s-server" "$ETC/swift/$s.conf"; done
start swift-proxy "$BIN/swift-proxy-server" "$ETC/swift/proxy.conf"
api placement OS_PLACEMENT_CONFIG_DIR="$ETC/placement"
api glance OS_GLANCE_CONFIG_DIR="$ETC/glance"
wait_for 60 keystone up 5000 /v3
if [ ! -e "$STATE/ready/catalog" ]; then
    say "making service users and the catalog"
    "$BIN/python" "$HERE/populate.py" catalog "$URL" "$SECRET" "$STATE"
    touch "$STATE/ready/catalog"
fi
rabbit_up() { (exec 3<>"/dev/tcp/$IP/5672") 2>/dev/null; }
wait_for 60 rabbitmq rabbit_up
api neutron OS_NEUTRON_CONFIG_DIR="$ETC/neutron" OS_NEUTRON_CONFIG_FILES=neutron.conf
api nova OS_NOVA_CONFIG_DIR="$ETC/nova"
for s in conductor scheduler; do start nova-$s "$BIN/nova-$s" --config-file "$ETC/nova/nova.conf"; done
start nova-compute env REALCLOUD_STATE="$STATE" REALCLOUD_IP="$IP" \
    "$BIN/nova-compute" --config-file "$ETC/nova/nova-cpu.conf"
start swift-container-updater "$BIN/python" -c "
import sys
from swift.common.utils import set_swift_dir
set_swift_dir('$ETC/swift')
from swift.common.daemon import run_daemon
from swift.container.updater import ContainerUpdater
run_daemon(ContainerUpdater, '$ETC/swift/container.conf', section='container-updater')
"
wait_for 60 placement up 8778 /
wait_for 60 glance up 9292 /
wait_for 60 swift up 8080 /healthcheck
wait_for 90 neutron up 9696 /
wait_for 90 nova up 8774 /
if [ ! -e "$STATE/ready/content" ]; then
    say "waiting for nova-compute, then making users, images, networks"
    host_up() { [ "$(sql 'select count(*) from nova.compute_nodes where deleted=0')" -gt 0 ]; }
    wait_for 90 nova-compute host_up
    nova_manage cell_v2 discover_hosts
    "$BIN/python" "$HERE/populate.py" content "$URL" "$SECRET" "$STATE"
    touch "$STATE/ready/content"
fi
healthy() { "$BIN/python" "$HERE/populate.py" check "$URL" "$SECRET" "$STATE" "$since"; }
wait_for 90 "the compute service" healthy
for f in "$RUN"/*.pid; do alive "$(basename "$f" .pid)" || die "$(basename "$f" .pid) died; see $LOG"; done
say "healthy after $(( $(date +%s) - began )) s"
echo "$STATE/clouds.yaml"
