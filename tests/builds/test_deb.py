# SPDX-License-Identifier: GPL-2.0
"""The DKMS package: installed in a fresh Debian, and removed without a trace (LONG=1)."""

import os
import shutil

import pytest

import boot
import deb
import debian_root
import kernel as kernels
import kernel_source
import packages
import settings
import steps
from guest import DRIVERS, Disk, Guest

SIZE = 128 << 20

# Prepares a Debian in $1, with the headers of kernel $2, and runs a script there.
ENTER = """
debootstrap --variant=minbase trixie "$1" "$3"
for suite in trixie trixie-backports; do
	echo "deb $3 $suite main"
done >"$1/etc/apt/sources.list"
cp "$4" "$1/root/package.deb"
mount --rbind /proc "$1/proc"
mount --rbind /dev "$1/dev"
exec chroot "$1" env -i PATH=/usr/sbin:/usr/bin DEBIAN_FRONTEND=noninteractive sh -exc "$5" sh "$2"
"""

# The package's dependencies come first, because they are not removed with it. DKMS skips what
# cannot be built: apt does not fail, and the log has the reason. With openssl it signs the module.
INSTALL = """
install="apt-get -q -y install --no-install-recommends"
fake() {
	mv "/usr/bin/$1" "/usr/bin/$1.real"
	printf '#!/bin/sh\n%s\n' "$2" >"/usr/bin/$1"
	chmod +x "/usr/bin/$1"
}
real() {
	mv "/usr/bin/$1.real" "/usr/bin/$1"
}
skipped() {
	[ -z "$(dkms status -m virtio-pmem-rust | grep installed)" ]
	grep "$1" /var/lib/dkms/virtio-pmem-rust/*/build/make.log
	[ -z "$(dpkg --audit)" ]
}

apt-get -q update
$install "linux-headers-$1" openssl
$install $(dpkg-deb -f /root/package.deb Depends | sed 's/([^)]*)//g; s/,//g')
find / -xdev -path /tmp -prune -o -print | sort >/tmp/before

fake rustc 'echo rustc 1.99.0'
$install /root/package.deb
skipped 'apt install rustc'
real rustc

fake bindgen '[ "$1" = --version ] && echo bindgen 0'
dkms autoinstall -k "$1"
skipped 'it does not build'
real bindgen

for other in 6.12.0 7.4.0; do
	mkdir -p "/lib/modules/$other/build/include"
done
grep -v '^CONFIG_RUST=' "/lib/modules/$1/build/.config" >/lib/modules/6.12.0/build/.config
cp "/lib/modules/$1/build/.config" /lib/modules/7.4.0/build
dkms autoinstall -k 6.12.0
skipped 'Install one that has CONFIG_RUST=y'
dkms autoinstall -k 7.4.0
skipped 'or a kernel 7.3'
rm -r /lib/modules/6.12.0 /lib/modules/7.4.0

dkms autoinstall -k "$1"
dkms status -m virtio-pmem-rust | grep -q ': installed'
find /lib/modules -name 'virtio_pmem_rust.ko*' -exec cp {} /tmp \\;
grep 'Module signature appended' /tmp/virtio_pmem_rust.ko
cp /usr/lib/modprobe.d/virtio-pmem-rust.conf /tmp
apt-get -q -y purge virtio-pmem-rust-dkms
find / -xdev -path /tmp -prune -o -print | sort >/tmp/after
"""

# Notes of apt and dpkg, and DKMS's key, which stay.
NOTES = ("/var/lib/dpkg/", "/var/log/", "/var/cache/", "/var/lib/apt/", "/var/lib/dkms/mok.")


def stock(folder, *modules):
    """Return Debian's kernel with these modules beside its own."""
    shutil.copytree(kernels.ready("debian").out, folder)
    (updates,) = folder.glob("modules/lib/modules/*/updates")
    shutil.rmtree(updates)
    updates.mkdir()
    for path in modules:
        shutil.copy(path, updates)
    steps.run(["depmod", "-b", folder / "modules", updates.parent.name], steps.log_path("depmod"))
    return kernels.bootable(folder)


@pytest.mark.skipif(not settings.flag("LONG") or os.geteuid() != 0,
                    reason="takes minutes, as root: LONG=1")
def test_install_and_purge(tmp_path):
    """The module that the package builds binds and keeps data; a purge leaves no file."""
    packages.need("deb")
    root = tmp_path / "root"
    steps.run(["unshare", "--mount", "sh", "-exc", ENTER, "sh", root, debian_root.release(),
               kernel_source.MIRROR, deb.build(), INSTALL], steps.log_path("dkms"))

    before, after = ({*(root / "tmp" / name).read_text().splitlines()}
                     for name in ("before", "after"))
    assert not before - after
    assert not [path for path in after - before if not path.startswith(NOTES)]

    def bound(kernel, **options):
        with Guest(kernel, name="dkms", driver="both", pmem=[Disk(tmp_path / "pmem", SIZE)],
                   **options) as guest:
            return guest.run(boot.BOUND, check=True).output.split()[-1]

    installed = stock(tmp_path / "installed", *(root / "tmp").glob("virtio_pmem_rust.ko*"))
    rule = "virtio-pmem-rust.conf"
    files = {f"/etc/modprobe.d/{rule}": root / "tmp" / rule}
    assert bound(installed, files=files) == DRIVERS["rust"]
    boot.power_cycle(installed, ("ext4", False), SIZE, {"driver": "rust"})
    assert bound(stock(tmp_path / "purged")) == DRIVERS["c"]
