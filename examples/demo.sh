#!/usr/bin/env bash
# A whole cluster on this machine: dev cloud, profile, start, computation, stop. Run it with `make demo`, or with another
# number of engines than 8: `examples/demo.sh 2`. All its files are in .state/demo; nothing is left running, also after Ctrl-C.
set -euo pipefail
n=${1:-8}
cd "$(dirname "$0")/.."
state=$PWD/.state/demo
mkdir -p "$state"
export IPYTHONDIR=$state/ipython XDG_CACHE_HOME=$state/cache  # your own folders stay as they are

if [ -t 1 ]; then bold=$'\033[1m' plain=$'\033[0m'; else bold='' plain=''; fi
say() { printf '\n%s$ %s%s\n' "$bold" "$*" "$plain"; }
run() { say "$@"; "$@"; }

clean_up() {
    status=$?
    trap '' INT TERM
    trap - EXIT
    if [ -e "$IPYTHONDIR/profile_griffin/security/cluster-.json" ]; then
        ipcluster stop --profile=griffin >/dev/null 2>&1 || true
    fi
    ipp-griffin devcloud stop --folder "$state/devcloud" >/dev/null || true
    [ "$status" = 0 ] || printf '\nThe demo was interrupted or failed (status %s); everything it started is ended.\n' "$status"
    exit "$status"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

run ipp-griffin devcloud start --folder "$state/devcloud"
eval "$(ipp-griffin devcloud env --folder "$state/devcloud")"
run ipp-griffin init --cloud devcloud
run ipcluster start --profile=griffin -n "$n" --daemonize
run python examples/pi.py
run ipcluster stop --profile=griffin
run ipp-griffin devcloud status --folder "$state/devcloud"
