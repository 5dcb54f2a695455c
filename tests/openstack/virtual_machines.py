"""Virtual machines for the dev cloud's servers: a real kernel, systemd and cloud-init, under QEMU.

They take the place of the dev cloud's local processes, so that a cluster on them is started as any other. Everything
runs in a network namespace that has loopback only (``guest-vm/run.sh`` makes it): what a guest calls 10.0.2.2, or the
metadata address, is the namespace's 127.0.0.1.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import http.server
import json
import os
import subprocess
import sys
import tempfile
import threading
import uuid
from collections.abc import Sequence
from pathlib import Path

STATE = Path(os.environ.get("GUEST_VM_STATE", "/var/tmp/guest-vm"))
HOST = "10.0.2.2"  # the namespace, for guests; with a metadata service it is METADATA, where Nova's is
METADATA = "169.254.169.254"
GUEST = (
    "10.0.2.15"  # what every guest gets; an address of the namespace, too, where a guest's ports are forwarded to it
)
# Emulated, unless told otherwise: where /dev/kvm can be opened, guests may still not run.
ACCEL = os.environ.get("GUEST_ACCEL", "tcg,tb-size=256")
QEMU = [
    *("qemu-system-x86_64", "-machine", "q35,usb=off,vmport=off,smm=off,hpet=off", "-accel", ACCEL),
    *("-cpu", "qemu64,+ssse3,+sse4.1,+sse4.2,+popcnt,+rdrand", "-smp", "1", "-m", "1024"),
    *("-nodefaults", "-no-user-config", "-display", "none", "-rtc", "base=utc"),
    *("-smbios", "type=1,manufacturer=OpenStack Foundation,product=OpenStack Nova"),
    *("-object", "rng-random,id=rng0,filename=/dev/urandom", "-device", "virtio-rng-pci,rng=rng0"),
    *("-kernel", str(STATE / "vmlinuz"), "-initrd", str(STATE / "initrd.img")),
    *("-append", "root=/dev/vda ro console=ttyS0 loglevel=4 mitigations=off nokaslr tsc=reliable"),
]


class VirtualMachine:
    """One QEMU process. ``image``: "ipp" or "bare", see ``guest-vm/build-image.sh``. ``metadata``: serve what a config drive
    holds at the metadata address instead, for one virtual machine at a time. ``ports``: what connects to these of GUEST in the namespace
    is let through to it, of one at a time. ``terminal``: its console is ours."""

    def __init__(
        self,
        folder: Path,
        *,
        image: str,
        user_data: bytes,
        metadata: bool = False,
        ports: Sequence[int] = (),
        terminal: bool = False,
    ) -> None:
        self.folder = folder
        self.console = folder / "console.log"
        self._metadata: http.server.ThreadingHTTPServer | None = None
        id = str(uuid.uuid4())
        mac = "52:54:00:" + ":".join(id[n : n + 2] for n in (0, 2, 4))
        _write_config_drive(folder / "drive", id, mac, user_data)
        disk = folder / "disk.qcow2"
        subprocess.run(
            ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", STATE / f"{image}.raw", disk], check=True
        )
        drives = ["-drive", f"file={disk},if=virtio,format=qcow2,cache=unsafe"]
        network = f"user,model=virtio-net-pci,mac={mac},ipv6=off"
        if metadata:
            serve = functools.partial(_Metadata, directory=str(folder / "drive"))
            self._metadata = http.server.ThreadingHTTPServer(("127.0.0.1", 80), serve)
            threading.Thread(target=self._metadata.serve_forever, daemon=True).start()
            network += f",net=169.254.0.0/16,host={METADATA},dns=169.254.169.253,dhcpstart=169.254.9.10"
        else:
            iso = folder / "config-2.iso"
            make = ["xorriso", "-as", "mkisofs", "-quiet", "-V", "config-2", "-J", "-r", "-o", iso, folder / "drive"]
            subprocess.run(make, check=True, stderr=subprocess.DEVNULL)
            drives += ["-drive", f"file={iso},if=virtio,format=raw,readonly=on"]
        network += "".join(f",hostfwd=tcp:{GUEST}:{port}-{GUEST}:{port}" for port in ports)
        command = [*QEMU, *drives, "-nic", network]
        if terminal:
            self.process = subprocess.Popen([*command, "-serial", "mon:stdio"])
            return
        with (folder / "qemu.log").open("wb") as log:
            self.process = subprocess.Popen(
                [*command, "-serial", f"file:{self.console}", "-qmp", "stdio"],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
            )

    def reset(self) -> None:
        """As the reset button does: nothing is shut down."""
        assert self.process.stdin
        for command in ("qmp_capabilities", "system_reset"):
            self.process.stdin.write(json.dumps({"execute": command}).encode() + b"\n")
        self.process.stdin.flush()

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()
        if self._metadata is not None:
            self._metadata.shutdown()
            self._metadata.server_close()


class VirtualMachines:
    """What the dev cloud boots, in place of `ipp_griffin.devcloud.guests.Guests`."""

    image = "ipp"
    metadata = False
    ports: Sequence[int] = ()

    def __init__(self, folder: Path, cloud_id: str) -> None:
        self._folder = folder
        self.all: dict[str, VirtualMachine] = {}

    def boot(self, server_id: str, user_data: str, under: Sequence[str] = ()) -> None:
        home = self._folder / server_id
        home.mkdir(parents=True)
        self.all[server_id] = VirtualMachine(
            home,
            image=self.image,
            user_data=base64.b64decode(user_data),
            metadata=self.metadata,
            ports=self.ports,
        )

    def kill(self, server_ids: list[str]) -> None:
        for id in server_ids:
            with contextlib.suppress(KeyError):
                self.all[id].kill()

    def kill_all(self) -> None:
        self.kill(list(self.all))

    def remove(self, server_id: str) -> None:
        """The disk stays until the test ends: what is on the console says why it failed."""

    def console(self, server_id: str, lines: int | None = None) -> str:
        text = self.all[server_id].console.read_text(errors="replace")
        return text if lines is None else "\n".join(text.splitlines()[-lines:])


def _write_config_drive(folder: Path, id: str, mac: str, user_data: bytes) -> None:
    """As Nova does: https://docs.openstack.org/nova/latest/user/metadata.html"""
    link = {"id": "tap0", "type": "ovs", "ethernet_mac_address": mac, "mtu": 1450, "vif_id": id}
    network = {"id": "network0", "link": "tap0", "type": "ipv4_dhcp", "network_id": id}
    files = {
        "user_data": user_data,
        "meta_data.json": json.dumps(
            {"uuid": id, "name": "griffin", "hostname": "griffin", "availability_zone": "nova"}
        ),
        "network_data.json": json.dumps({"links": [link], "networks": [network], "services": []}),
        "vendor_data.json": "{}",
    }
    for version in ("latest", "2018-08-27"):
        for name, content in files.items():
            path = folder / "openstack" / version / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else content.encode())


class _Metadata(http.server.SimpleHTTPRequestHandler):
    """Nova's metadata service: a folder is listed one name a line."""

    def do_GET(self) -> None:  # noqa: N802
        path = Path(self.translate_path(self.path))
        if not path.is_dir():
            super().do_GET()
            return
        names = "\n".join(sorted(entry.name for entry in path.iterdir())).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(names)))
        self.end_headers()
        self.wfile.write(names)

    def log_message(self, *arguments: object) -> None:
        pass


def main(user_data: str, image: str = "ipp") -> int:
    """Boot one by hand: ``guest-vm/run.sh boot USER_DATA [bare]``."""
    with tempfile.TemporaryDirectory() as folder:
        machine = VirtualMachine(Path(folder), image=image, user_data=Path(user_data).read_bytes(), terminal=True)
        return machine.process.wait()


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
