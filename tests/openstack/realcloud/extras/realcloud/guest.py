"""Guests: what runs where a hypervisor would run a virtual machine.

A guest is a network namespace holding the server's fixed addresses on a bridge shared by its network, and in it a
process tree in its own mount, pid, uts and ipc namespaces whose root is an overlay of this machine's file system
(and of $REALCLOUD_STATE/guest-images/<image name>, if that folder exists). Writes are lost with the guest.
Inside, cloud-init runs the user data from a config drive that Nova made. The cloud's own endpoints are reached at
their usual address through a relay. Nothing else outside the tenant networks can be reached.
"""

import asyncio
import contextlib
import ctypes
import fcntl
import ipaddress
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time

STATE = pathlib.Path(os.environ.get("REALCLOUD_STATE", "/var/tmp/real-openstack"))
IP = os.environ.get("REALCLOUD_IP", "127.77.0.1")
PORTS = (5000, 8080, 8774, 8778, 9292, 9696)
FABRIC = "rc-fabric"


def folder(uuid):
    return STATE / "guests" / uuid


def born(pid):
    try:
        fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        return None if fields[0] == "Z" else fields[19]
    except (OSError, IndexError):
        return None


def alive(uuid):
    try:
        pid, start = (folder(uuid) / "pid").read_text().split()
        return int(pid) if born(pid) == start else 0
    except (OSError, ValueError):
        return 0


def create(uuid, hostname, image, nics, files=(), command=()):
    home = folder(uuid)
    home.mkdir(parents=True, exist_ok=True)
    for path, data in files:
        target = home / "drive" / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data.encode() if isinstance(data, str) else data)
    (home / "drive").mkdir(exist_ok=True)
    spec = {"hostname": hostname, "image": image, "nics": nics, "command": list(command)}
    (home / "spec.json").write_text(json.dumps(spec))


def start(uuid):
    home = folder(uuid)
    if alive(uuid) or not (home / "spec.json").exists():
        return
    with (home / "console.log").open("ab") as log:
        child = subprocess.Popen(
            [sys.executable, "-m", "realcloud.guest", uuid],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    (home / "pid").write_text(f"{child.pid} {born(child.pid)}")
    threading.Thread(target=child.wait, daemon=True).start()


def stop(uuid):
    pid = alive(uuid)
    if pid:
        os.kill(pid, signal.SIGTERM)
        for _ in range(50):
            if not alive(uuid):
                break
            time.sleep(0.05)
        else:
            os.killpg(pid, signal.SIGKILL)
    subprocess.run(["ip", "netns", "del", f"rc-{uuid[:8]}"], capture_output=True)


def delete(uuid):
    stop(uuid)
    shutil.rmtree(folder(uuid), ignore_errors=True)


def console(uuid):
    try:
        return (folder(uuid) / "console.log").read_bytes()[-102400:].decode("utf-8", "replace")
    except OSError:
        return ""


# --- the process that is one guest's "hypervisor"


def ip(*args, check=True):
    return subprocess.run(["ip", *args], check=check, capture_output=True, text=True)


def wire(uuid, nics):
    """Make the namespace and plug its addresses into the bridges of their networks."""
    short = uuid[:8]
    ns = f"rc-{short}"
    with (STATE / "guests" / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if ip("-n", FABRIC, "link", check=False).returncode:
            ip("netns", "add", FABRIC)
            ip("-n", FABRIC, "link", "set", "lo", "up")
        ip("netns", "del", ns, check=False)
        ip("netns", "add", ns)
        for i, nic in enumerate(nics):
            bridge = "b" + nic["network"][:12]
            net = ipaddress.ip_network(nic["cidr"])
            if ip("-n", FABRIC, "link", "show", bridge, check=False).returncode:
                ip("-n", FABRIC, "link", "add", bridge, "type", "bridge")
                ip("-n", FABRIC, "link", "set", bridge, "up")
                if nic.get("gateway"):
                    ip("-n", FABRIC, "addr", "add", f"{nic['gateway']}/{net.prefixlen}", "dev", bridge)
            ip("-n", FABRIC, "link", "add", f"v{short}{i}", "type", "veth", "peer", "name", f"eth{i}", "netns", ns)
            ip("-n", FABRIC, "link", "set", f"v{short}{i}", "master", bridge, "up")
            if nic.get("mac"):
                ip("-n", ns, "link", "set", f"eth{i}", "address", nic["mac"])
            ip("-n", ns, "addr", "add", f"{nic['ip']}/{net.prefixlen}", "dev", f"eth{i}")
            ip("-n", ns, "link", "set", f"eth{i}", "up")
            if nic.get("gateway"):
                ip("-n", ns, "route", "add", "default", "via", nic["gateway"], check=False)
    ip("-n", ns, "link", "set", "lo", "up")
    ip("-n", ns, "addr", "add", "169.254.169.254/32", "dev", "lo")
    return ns


def listeners(ns, addresses):
    """Sockets that listen inside the namespace while this process stays outside."""
    libc = ctypes.CDLL(None, use_errno=True)
    found = []
    with pathlib.Path("/proc/self/ns/net").open() as here, pathlib.Path(f"/run/netns/{ns}").open() as there:
        if libc.setns(there.fileno(), 0):
            raise OSError(ctypes.get_errno(), "setns")
        try:
            for address in addresses:
                s = socket.socket()
                s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                s.bind(address)
                s.listen(64)
                s.setblocking(False)
                found.append(s)
        finally:
            libc.setns(here.fileno(), 0)
    return found


async def relay(reader, writer, port):
    async def pump(source, sink):
        try:
            while data := await source.read(65536):
                sink.write(data)
                await sink.drain()
            sink.write_eof()
        except OSError:
            sink.close()

    try:
        back_reader, back_writer = await asyncio.open_connection(IP, port)
    except OSError:
        writer.close()
        return
    await asyncio.gather(pump(reader, back_writer), pump(back_reader, writer))
    writer.close()
    back_writer.close()


async def metadata(reader, writer, drive):
    """Serve the files of the config drive at the metadata address, as Nova's metadata service does."""
    try:
        line = (await reader.readline()).split()
        while (await reader.readline()).strip():
            pass
        path = (drive / line[1].decode().split("?")[0].strip("/")).resolve()
        if drive.resolve() not in (path, *path.parents) or not path.exists():
            status, body = "404 Not Found", b""
        elif path.is_dir():
            status, body = "200 OK", "\n".join(sorted(p.name for p in path.iterdir())).encode()
        else:
            status, body = "200 OK", path.read_bytes()
        writer.write(f"HTTP/1.0 {status}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
        await writer.drain()
    except (OSError, IndexError, ValueError):
        pass
    writer.close()


INIT = r"""
set -e
root=$1/root; mkdir -p $1; mount -t tmpfs -o size=2g tmpfs $1; mkdir $1/up $1/work $root
mount -t overlay overlay -o lowerdir=/,upperdir=$1/up,workdir=$1/work $root
if [ -n "$3" ]; then  # the image's own files on top; a second overlay, as layers may not overlap
    base=$root; root=$1/image; mkdir $1/up2 $1/work2 $root
    mount -t overlay overlay -o lowerdir=$3:$base,upperdir=$1/up2,workdir=$1/work2 $root
fi
mount -t proc proc $root/proc; mount -t sysfs sys $root/sys
mount -t tmpfs tmpfs $root/dev; mkdir $root/dev/pts $root/dev/shm; mount -t tmpfs tmpfs $root/dev/shm
for d in null zero full random urandom tty; do touch $root/dev/$d; mount --bind /dev/$d $root/dev/$d; done
ln -s /proc/self/fd $root/dev/fd; ln -s fd/0 $root/dev/stdin; ln -s fd/1 $root/dev/stdout; ln -s fd/2 $root/dev/stderr
ln -s /proc/self/fd/1 $root/dev/console
mount -t tmpfs tmpfs $root/run; mount -t tmpfs tmpfs $root/tmp
rm -rf $root/var/lib/cloud; mkdir -p $root/var/lib/cloud/seed
cp -r $4/drive $root/var/lib/cloud/seed/config_drive
mount -t tmpfs tmpfs $root$5
hostname "$2"; echo "$2" > $root/etc/hostname; printf '127.0.0.1 localhost\n127.0.1.1 %s\n' "$2" > $root/etc/hosts
for c in poweroff shutdown halt; do printf '#!/bin/sh\nkill -TERM 1\n' > $root/sbin/$c; chmod 755 $root/sbin/$c; done
mkdir -p $root/etc/cloud; cat > $root/etc/cloud/cloud.cfg <<'CFG'
datasource_list: [ConfigDrive]
disable_root: false
network: {config: disabled}
manage_etc_hosts: false
preserve_hostname: true
output: {all: '| tee -a /var/log/cloud-init-output.log'}
system_info: {distro: debian}
log_cfgs: [/etc/cloud/log.cfg]
cloud_init_modules: [bootcmd, write-files, ca-certs, users-groups]
cloud_config_modules: [runcmd]
cloud_final_modules: [scripts-vendor, scripts-per-once, scripts-per-boot, scripts-per-instance, scripts-user, final-message, power-state-change]
CFG
cat > $root/etc/cloud/log.cfg <<'CFG'
[loggers]
keys=root
[handlers]
keys=file
[formatters]
keys=plain
[logger_root]
level=INFO
handlers=file
[handler_file]
class=FileHandler
formatter=plain
args=('/var/log/cloud-init.log',)
[formatter_plain]
format=%(asctime)s %(filename)s[%(levelname)s]: %(message)s
CFG
rm -rf $root/etc/cloud/cloud.cfg.d
exec env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/ LANG=C.UTF-8 TERM=linux chroot $root /bin/bash -c '
trap "echo [guest] power off; exit 0" TERM
echo "[guest] booting $(hostname)"
(
if command -v cloud-init >/dev/null; then
    cloud-init init --local && cloud-init init && cloud-init modules --mode=config && cloud-init modules --mode=final
else
    data=/var/lib/cloud/seed/config_drive/openstack/latest/user_data
    if [ "$(head -c 2 $data 2>/dev/null)" = "#!" ]; then
        cp $data /run/user_data; chmod 755 /run/user_data; cd /; /run/user_data
    else echo "[guest] no cloud-init here and the user data is no script"; fi
fi
echo "[guest] boot finished with status $?"
) 2>&1 &
while :; do wait; sleep 1 & wait $!; done'
"""


def main(uuid):
    home = folder(uuid)
    spec = json.loads((home / "spec.json").read_text())
    ns = wire(uuid, spec["nics"])
    sockets = listeners(ns, [(IP, p) for p in PORTS] + [("169.254.169.254", 80)])
    command = spec.get("command")
    if not command:
        image = STATE / "guest-images" / (spec["image"] or "-")
        command = [
            "nsenter",
            f"--net=/run/netns/{ns}",
            "unshare",
            "--mount",
            "--propagation",
            "private",
            "--pid",
            "--fork",
            "--kill-child",
            "--uts",
            "--ipc",
            "/bin/bash",
            "-c",
            INIT,
            "init",
            str(home / "mnt"),
            spec["hostname"] or "guest",
            str(image) if image.is_dir() else "",
            str(home),
            str(STATE),
        ]
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL)

    def end(*_):
        child.kill()

    signal.signal(signal.SIGTERM, end)

    async def serve():
        for s, port in zip(sockets, (*PORTS, None), strict=True):
            if port:
                await asyncio.start_server(lambda r, w, port=port: relay(r, w, port), sock=s)
            else:
                await asyncio.start_server(lambda r, w: metadata(r, w, home / "drive"), sock=s)
        while child.poll() is None:
            kids = pathlib.Path(f"/proc/{child.pid}/task/{child.pid}/children").read_text().split()
            if kids:
                (home / "init").write_text(kids[0])
            await asyncio.sleep(0.2)

    with contextlib.suppress(OSError):
        asyncio.run(serve())
    child.kill()
    child.wait()
    subprocess.run(["ip", "netns", "del", ns], capture_output=True)


if __name__ == "__main__":
    main(sys.argv[1])
