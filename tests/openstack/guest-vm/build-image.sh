#!/bin/bash
# Builds a small Debian bookworm guest: kernel, initrd, and two disks with cloud-init. bare.raw has Python 3 alone, ipp.raw
# ipyparallel in /opt/ipp as well. wheels/ is a folder from which a server can install it. Needs root on Debian; idempotent.
set -euo pipefail
STATE=${GUEST_VM_STATE:-/var/tmp/guest-vm}
IPYPARALLEL=${IPYPARALLEL:-9.2.0}
SIZE=2500M
ROOT=$STATE/rootfs
HERE=$(cd "$(dirname "$0")" && pwd)
[ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || { echo "build-image.sh: virtual machines need root on a Debian machine" >&2; exit 1; }
PYTHON=$HERE/../../../.venv/bin/python  # the system's may have no pip
"$PYTHON" -m pip --version >/dev/null 2>&1 || { echo "build-image.sh: no pip in .venv: run \`make test-guest-vm\`, which makes it" >&2; exit 1; }

need=""  # also where the image is there already: the state may come from another machine
for p in qemu-system-x86 qemu-utils mmdebstrap xorriso ipxe-qemu seabios e2fsprogs iproute2; do
    dpkg -s "$p" >/dev/null 2>&1 || need="$need $p"
done
if [ -n "$need" ]; then
    lock=/tmp/griffin-apt.lock  # the services and the virtual machines may be installed at the same time
    flock $lock apt-get update -qq
    # shellcheck disable=SC2086
    DEBIAN_FRONTEND=noninteractive flock $lock apt-get install -y -qq --no-install-recommends $need >/dev/null
fi
stamp="$IPYPARALLEL $(sha256sum < "$HERE/build-image.sh")"
[ "$(cat "$STATE/stamp" 2>/dev/null || true)" != "$stamp" ] || exit 0

mkdir -p "$STATE"
rm -rf --one-file-system "$ROOT" "$STATE"/{stamp,wheels,*.raw}

# The network is systemd-networkd's (no ifupdown, no netplan). No mirror is named: mmdebstrap's default for the suite.
PKGS=linux-image-cloud-amd64,cloud-init,cloud-guest-utils,eatmydata,sudo,systemd-sysv,udev,dbus,libpam-systemd
PKGS+=,python3,ca-certificates,iproute2,initramfs-tools,zstd,e2fsprogs,kmod,procps,passwd,netbase
SOURCE_DATE_EPOCH=$(date +%s) DEBIAN_FRONTEND=noninteractive \
mmdebstrap --quiet --mode=root --variant=minbase --include="$PKGS" \
  --aptopt='APT::Install-Recommends "false"' \
  --dpkgopt='path-exclude=/usr/share/doc/*' \
  --dpkgopt='path-exclude=/usr/share/man/*' \
  --dpkgopt='path-exclude=/usr/share/locale/*' \
  bookworm "$ROOT"

# --- initrd: only what a virtio guest needs
printf 'virtio_pci\nvirtio_blk\nvirtio_rng\nvirtio_net\next4\ncrc32c_generic\nisofs\n' >"$ROOT/etc/initramfs-tools/modules"
printf 'MODULES=list\nCOMPRESS=zstd\nRESUME=none\nFSTYPE=ext4\n' >"$ROOT/etc/initramfs-tools/conf.d/guest"
chroot "$ROOT" update-initramfs -u -k all >/dev/null 2>&1
cp "$ROOT"/boot/vmlinuz-* "$STATE/vmlinuz"; cp "$ROOT"/boot/initrd.img-* "$STATE/initrd.img"

# --- configuration; nothing here changes what cloud-init does with user-data
echo '/dev/vda / ext4 defaults,noatime 0 1' >"$ROOT/etc/fstab"
: >"$ROOT/etc/machine-id"; rm -f "$ROOT/var/lib/dbus/machine-id" "$ROOT/etc/hostname"
printf '127.0.0.1 localhost\n' >"$ROOT/etc/hosts"
# only OpenStack's data sources are looked for; no sshd and no locale data in this image: keep their modules short
cat >"$ROOT/etc/cloud/cloud.cfg.d/90_guest.cfg" <<'C'
datasource_list: [ConfigDrive, OpenStack, None]
manage_etc_hosts: true
output: {all: '| tee -a /var/log/cloud-init-output.log'}
ssh_genkeytypes: [ed25519]
locale: C.UTF-8
C
# no DNS in the guest: look-ups fail at once instead of timing out
printf '# no name server\n' >"$ROOT/etc/resolv.conf"
chroot "$ROOT" systemctl -q enable systemd-networkd.service
for u in apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer \
         e2scrub_reap.service fstrim.timer systemd-timesyncd.service systemd-pstore.service getty@tty1.service; do
  chroot "$ROOT" systemctl -q mask "$u" 2>/dev/null || true
done
rm -f "$ROOT"/var/cache/apt/archives/*.deb "$ROOT"/var/lib/apt/lists/*_* 2>/dev/null || true

disk() { # NAME: what is in $ROOT now
    truncate -s "$SIZE" "$STATE/$1.raw"
    mkfs.ext4 -q -F -L guest-root -E lazy_itable_init=0 -d "$ROOT" "$STATE/$1.raw"
}
disk bare

# --- ipyparallel: fetched by this machine's pip for the guest's Python (3.11), installed there by pip's own wheel
"$PYTHON" -m pip download -qq --disable-pip-version-check --only-binary=:all: --python-version 3.11 --implementation cp \
  --platform manylinux2014_x86_64 --platform manylinux_2_28_x86_64 --platform manylinux_2_17_x86_64 --platform linux_x86_64 \
  -d "$STATE/wheels" pip "ipyparallel==$IPYPARALLEL"
cp -r "$STATE/wheels" "$ROOT/tmp/wheels"
chroot "$ROOT" /usr/bin/env -i PATH=/usr/bin:/bin PIP_CONFIG_FILE=/dev/null /bin/sh -ec '
  /usr/bin/python3 -m venv --without-pip /opt/ipp
  pip=$(echo /tmp/wheels/pip-*.whl)/pip
  /opt/ipp/bin/python "$pip" install -q --no-cache-dir --no-index --find-links /tmp/wheels "ipyparallel=='"$IPYPARALLEL"'"
  rm -rf /tmp/wheels'
disk ipp
rm -rf --one-file-system "$ROOT"
echo "$stamp" > "$STATE/stamp"
