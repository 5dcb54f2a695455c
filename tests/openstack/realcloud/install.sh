#!/bin/bash
# Installs what the test cloud needs: Debian packages, the services' virtual environment, and in what the servers
# boot from a virtual environment with ipyparallel, of the version $IPYPARALLEL (default: the latest). Idempotent.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
mkdir -p "$STATE"
PY=${PYTHON:-python3}

[ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || die "the test cloud needs root on a Debian machine"
need=""
for p in rabbitmq-server mariadb-server memcached cloud-init iproute2 curl python3-venv; do
    dpkg -s "$p" >/dev/null 2>&1 || need="$need $p"
done
if [ -n "$need" ]; then
    say "installing Debian packages:$need"
    # Only the programs are wanted: no service may be started by its package.
    if [ ! -e /usr/sbin/policy-rc.d ]; then
        trap 'rm -f /usr/sbin/policy-rc.d' EXIT
        printf '#!/bin/sh\nexit 101\n' > /usr/sbin/policy-rc.d
        chmod +x /usr/sbin/policy-rc.d
    fi
    lock=/tmp/griffin-apt.lock  # the services and the virtual machines may be installed at the same time
    flock $lock apt-get update -qq
    # shellcheck disable=SC2086
    DEBIAN_FRONTEND=noninteractive flock $lock apt-get install -y -qq --no-install-recommends $need >"$STATE/apt.log" 2>&1
fi

if [ ! -x "$STATE/uvenv/bin/uv" ]; then
    "$PY" -m venv "$STATE/uvenv"
    "$STATE/uvenv/bin/pip" -q install uv
fi
UV=$STATE/uvenv/bin/uv
stamp=$(cat "$HERE/requirements.txt" "$HERE"/extras/pyproject.toml "$HERE"/extras/*.py "$HERE"/extras/realcloud/*.py | sha256sum)
if [ "$(cat "$VENV/.stamp" 2>/dev/null || true)" != "$stamp" ]; then
    say "building the virtual environment"
    [ -x "$BIN/python" ] || "$UV" venv -q --python "$(command -v "$PY")" "$VENV"
    "$UV" pip install -q --python "$BIN/python" -r "$HERE/requirements.txt"
    rm -rf "$STATE/extras-build"; cp -r "$HERE/extras" "$STATE/extras-build"
    "$UV" pip install -q --python "$BIN/python" --reinstall --no-deps "$STATE/extras-build"
    cp "$HERE/extras/nova_virt_realcloud.py" "$("$BIN/python" -c 'import nova, os; print(os.path.dirname(nova.__file__))')/virt/realcloud.py"
    "$BIN/python" -m compileall -q -j 2 "$VENV/lib" >/dev/null 2>&1 || true
    echo "$stamp" > "$VENV/.stamp"
fi

# Servers run as an unprivileged user, who must be able to run their Python: the system's, not one of root's.
home=$STATE/guest-images/snapshot10/opt/ipp
wanted="ipyparallel${IPYPARALLEL:+==$IPYPARALLEL} pytest"  # the latter for ipyparallel's own tests
if [ "$(cat "$home/.stamp" 2>/dev/null || true)" != "$wanted" ]; then
    rm -rf "$home"
    "$UV" venv -q --relocatable --python /usr/bin/python3 "$home"
    # shellcheck disable=SC2086
    "$UV" pip install -q --python "$home/bin/python" $wanted
    echo "$wanted" > "$home/.stamp"
fi
ln -sfn snapshot10 "$STATE/guest-images/snapshot2"  # for engine sets of two images
say "installed"
