# Settings and helpers of the other scripts. Sourced, not run.
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
STATE=${REALCLOUD_STATE:-/var/tmp/real-openstack}
IP=${REALCLOUD_IP:-127.77.0.1}   # any address in 127.0.0.0/8; its own, so that standard ports are free
REGION=RegionOne
SECRET=localtest                 # every local test password
VENV=$STATE/venv BIN=$STATE/venv/bin ETC=$STATE/etc LOG=$STATE/log RUN=$STATE/run FAULTS=$STATE/faults.json
SOCK=$RUN/mariadb.sock
URL="http://$IP"

say() { printf '%s %s\n' "$(date +%T)" "$*" >&2; }
die() { say "ERROR: $*"; exit 1; }
born() { sed 's/.*) //' "/proc/$1/stat" 2>/dev/null | awk '$1 != "Z" {print $20}'; }   # start tick: tells a reused pid

alive() { # NAME: true while the process recorded for it runs
    local pid start
    read -r pid start 2>/dev/null < "$RUN/$1.pid" || return 1
    [ -n "$start" ] && [ "$(born "$pid")" = "$start" ]
}

start() { # NAME COMMAND...: run in the background and record the pid
    local name=$1; shift
    alive "$name" && return 0
    setsid nohup "$@" >>"$LOG/$name.log" 2>&1 </dev/null &
    local pid=$!
    echo "$pid $(born $pid)" > "$RUN/$name.pid"
}

stop() { # NAME [SECONDS]: TERM to the recorded pid, after SECONDS KILL to its process group
    local pid n=$(( ${2:-15} * 10 ))
    if alive "$1"; then
        read -r pid _ < "$RUN/$1.pid"
        kill -TERM "$pid" 2>/dev/null || true
        while alive "$1" && [ $((n--)) -gt 0 ]; do sleep 0.1; done
        alive "$1" && { kill -KILL -- "-$pid" 2>/dev/null || kill -KILL "$pid" 2>/dev/null || true; }
    fi
    rm -f "$RUN/$1.pid"
}

wait_for() { # SECONDS WHAT COMMAND...: until the command succeeds
    local n=$(( $1 * 5 )) what=$2; shift 2
    until "$@" >/dev/null 2>&1; do
        [ $((n--)) -gt 0 ] || die "$what did not come up; see $LOG"
        sleep 0.2
    done
}
