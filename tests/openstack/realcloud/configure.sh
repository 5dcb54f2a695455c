# Writes every configuration file under $ETC. Sourced by up.sh.

put() { mkdir -p "$(dirname "$1")"; cat > "$1"; }
dburl() { echo "mysql+pymysql://root:$SECRET@localhost/$1?unix_socket=$SOCK&charset=utf8mb4"; }
RABBIT="rabbit://openstack:$SECRET@$IP:5672/"

authtoken() { # SERVICE TYPE
    cat <<EOF
[keystone_authtoken]
www_authenticate_uri = $URL:5000
memcached_servers = $IP:11211
service_token_roles_required = true
service_token_roles = service
service_type = $2
$(login "$1")
EOF
}
login() { # SERVICE
    cat <<EOF
auth_type = password
auth_url = $URL:5000/v3
username = $1
password = $SECRET
project_name = service
user_domain_name = Default
project_domain_name = Default
region_name = $REGION
EOF
}
uwsgi_conf() { # NAME PORT PROCESSES
    put "$ETC/uwsgi-$1.ini" <<EOF
[uwsgi]
module = realcloud.wsgi
http-socket = $IP:$2
processes = $3
master = true
lazy-apps = true
enable-threads = true
threads = 1
die-on-term = true
exit-on-reload = false
worker-reload-mercy = 5
buffer-size = 65535
listen = 100
thunder-lock = true
http-chunked-input = true
wsgi-manage-chunked-input = true
add-header = Connection: close
log-format = %(ltime) %(method) %(uri) %(status) %(msecs)ms
disable-logging = false
EOF
}

configure() {
    mkdir -p "$LOG" "$RUN" "$STATE"/{guests,nova,neutron,glance/images,glance/staging,glance/tasks,locks,swift/node,swift/cache}

    put "$ETC/keystone/keystone.conf" <<EOF
[DEFAULT]
use_stderr = true
[database]
connection = $(dburl keystone)
[token]
provider = fernet
expiration = 14400
[fernet_tokens]
key_repository = $ETC/keystone/fernet-keys
[credential]
key_repository = $ETC/keystone/credential-keys
[identity]
password_hash_rounds = 4
EOF

    put "$ETC/glance/glance-api.conf" <<EOF
[DEFAULT]
use_stderr = true
enabled_backends = local:file
worker_self_reference_url = $URL:9292
transport_url = $RABBIT
[database]
connection = $(dburl glance)
[glance_store]
default_backend = local
[local]
filesystem_store_datadir = $STATE/glance/images
[os_glance_staging_store]
filesystem_store_datadir = $STATE/glance/staging
[os_glance_tasks_store]
filesystem_store_datadir = $STATE/glance/tasks
[oslo_concurrency]
lock_path = $STATE/locks
[paste_deploy]
flavor = keystone
config_file = $VENV/etc/glance/glance-api-paste.ini
$(authtoken glance image)
EOF

    put "$ETC/placement/placement.conf" <<EOF
[DEFAULT]
use_stderr = true
[api]
auth_strategy = keystone
[placement_database]
connection = $(dburl placement)
$(authtoken placement placement)
EOF

    put "$ETC/nova/nova.conf" <<EOF
[DEFAULT]
use_stderr = true
host = fakehost1
my_ip = $IP
state_path = $STATE/nova
transport_url = $RABBIT
compute_driver = realcloud.Driver
concurrency_backend = threading
sync_power_state_interval = 30
report_interval = 5
service_down_time = 30
reclaim_instance_interval = 0
ssl_only = false
[api]
auth_strategy = keystone
[wsgi]
api_paste_config = $VENV/etc/nova/api-paste.ini
[api_database]
connection = $(dburl nova_api)
[database]
connection = $(dburl nova)
[vnc]
enabled = false
[conductor]
workers = 1
[scheduler]
workers = 1
[glance]
region_name = $REGION
[oslo_concurrency]
lock_path = $STATE/locks
[service_user]
send_service_user_token = true
$(login nova)
[placement]
$(login nova)
[neutron]
$(login nova)
$(authtoken nova compute)
EOF
    # nova-compute must not know the databases
    sed '/^\[\(api_\)\?database\]/,/^connection/d' "$ETC/nova/nova.conf" > "$ETC/nova/nova-cpu.conf"
    cp "$VENV/etc/nova/api-paste.ini" "$ETC/nova/"

    put "$ETC/neutron/neutron.conf" <<EOF
[DEFAULT]
use_stderr = true
core_plugin = ml2
service_plugins = router
auth_strategy = keystone
state_path = $STATE/neutron
transport_url = $RABBIT
api_paste_config = $VENV/etc/neutron/api-paste.ini
enable_traditional_dhcp = false
dhcp_agent_notification = false
rpc_workers = 0
global_physnet_mtu = 1500
[database]
connection = $(dburl neutron)
[oslo_concurrency]
lock_path = $STATE/locks
[nova]
$(login nova)
[placement]
$(login nova)
[ml2]
type_drivers = geneve,flat,local
tenant_network_types = geneve
mechanism_drivers = loopback
extension_drivers = port_security
[ml2_type_geneve]
vni_ranges = 1:65536
max_header_size = 38
[ml2_type_flat]
flat_networks = public
$(authtoken neutron network)
EOF

    uwsgi_conf keystone 5000 2
    uwsgi_conf glance 9292 1
    uwsgi_conf placement 8778 1
    uwsgi_conf nova 8774 2
    uwsgi_conf neutron 9696 2

    put "$ETC/swift/swift.conf" <<EOF
[swift-hash]
swift_hash_path_suffix = localtest
[storage-policy:0]
name = Policy-0
default = yes
EOF
    put "$ETC/swift/proxy.conf" <<EOF
[DEFAULT]
bind_ip = $IP
bind_port = 8080
workers = 1
user = root
swift_dir = $ETC/swift
log_address = $RUN/log.sock
[pipeline:main]
pipeline = fault catch_errors gatekeeper healthcheck proxy-logging cache listing_formats container_sync bulk tempurl ratelimit authtoken keystoneauth copy container-quotas account-quotas slo dlo versioned_writes symlink proxy-logging proxy-server
[app:proxy-server]
use = egg:swift#proxy
account_autocreate = true
allow_account_management = true
[filter:fault]
use = egg:realcloud-extras#fault
service = swift
file = $FAULTS
[filter:catch_errors]
use = egg:swift#catch_errors
[filter:gatekeeper]
use = egg:swift#gatekeeper
[filter:healthcheck]
use = egg:swift#healthcheck
[filter:proxy-logging]
use = egg:swift#proxy_logging
# It knows no log_address and would open a UDP socket; the object server logs each request as well.
access_log_level = ERROR
[filter:cache]
use = egg:swift#memcache
memcache_servers = $IP:11211
[filter:listing_formats]
use = egg:swift#listing_formats
[filter:container_sync]
use = egg:swift#container_sync
[filter:bulk]
use = egg:swift#bulk
[filter:tempurl]
use = egg:swift#tempurl
[filter:ratelimit]
use = egg:swift#ratelimit
[filter:authtoken]
paste.filter_factory = keystonemiddleware.auth_token:filter_factory
delay_auth_decision = true
$(authtoken swift object-store | tail -n +2)
[filter:keystoneauth]
use = egg:swift#keystoneauth
operator_roles = admin, member
project_reader_roles = reader
[filter:copy]
use = egg:swift#copy
[filter:container-quotas]
use = egg:swift#container_quotas
[filter:account-quotas]
use = egg:swift#account_quotas
[filter:slo]
use = egg:swift#slo
[filter:dlo]
use = egg:swift#dlo
[filter:versioned_writes]
use = egg:swift#versioned_writes
allow_versioned_writes = true
allow_object_versioning = true
[filter:symlink]
use = egg:swift#symlink
EOF
    local kind port
    for kind in account:6202 container:6201 object:6200; do
        port=${kind#*:} kind=${kind%:*}
        put "$ETC/swift/$kind.conf" <<EOF
[DEFAULT]
bind_ip = $IP
bind_port = $port
workers = 1
user = root
swift_dir = $ETC/swift
log_address = $RUN/log.sock
devices = $STATE/swift/node
mount_check = false
fallocate_reserve = 0
recon_cache_path = $STATE/swift/cache
[pipeline:main]
pipeline = healthcheck $kind-server
[app:$kind-server]
use = egg:swift#$kind
[filter:healthcheck]
use = egg:swift#healthcheck
[container-updater]
interval = 10
[object-updater]
interval = 30
EOF
    done
    if [ ! -e "$ETC/swift/object.ring.gz" ]; then
        for kind in account:6202 container:6201 object:6200; do
            port=${kind#*:} kind=${kind%:*}
            # Two partitions: the updater forks once for each in every round.
            (cd "$ETC/swift" && "$BIN/swift-ring-builder" $kind.builder create 1 1 0 &&
             "$BIN/swift-ring-builder" $kind.builder add --region 1 --zone 1 --ip "$IP" --port "$port" --device d1 --weight 1 &&
             "$BIN/swift-ring-builder" $kind.builder rebalance) >>"$LOG/rings.log" 2>&1
        done
    fi
    mkdir -p "$STATE/swift/node/d1"

    put "$ETC/rabbitmq.conf" <<EOF
listeners.tcp.1 = $IP:5672
default_user = openstack
default_pass = $SECRET
default_permissions.configure = .*
default_permissions.read = .*
default_permissions.write = .*
log.file.level = warning
EOF
}
