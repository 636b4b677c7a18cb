# SPDX-License-Identifier: GPL-2.0
"""The DKMS package: installed in a fresh Debian, and removed without a trace (LONG=1)."""

import os
import subprocess

import pytest

import deb
import debian_root
import kernel as kernels
import kernel_source
import packages
import settings
import steps
from guest import Disk, Guest

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

# The package's dependencies come first, because they are not removed with it.
INSTALL = """
install="apt-get -q -y install --no-install-recommends"
apt-get -q update
$install "linux-headers-$1"
$install $(dpkg-deb -f /root/package.deb Depends | sed 's/([^)]*)//g; s/,//g')
find / -xdev -path /tmp -prune -o -print | sort >/tmp/before
$install /root/package.deb
dkms status -m virtio-pmem-rust | grep -q ': installed'
find /lib/modules -name 'virtio_pmem_rust.ko*' -exec cp {} /tmp \\;
apt-get -q -y purge virtio-pmem-rust-dkms
find / -xdev -path /tmp -prune -o -print | sort >/tmp/after
"""

# apt's and dpkg's own notes, which stay.
NOTES = ("/var/lib/dpkg/", "/var/log/", "/var/cache/", "/var/lib/apt/")


@pytest.mark.skipif(not settings.flag("LONG") or os.geteuid() != 0,
                    reason="takes minutes, as root: LONG=1")
def test_install_and_purge(tmp_path):
    """The module that the package builds binds on the stock kernel; a purge leaves no file."""
    packages.need("deb")
    root, release = tmp_path / "root", debian_root.release()
    steps.run(["unshare", "--mount", "sh", "-exc", ENTER, "sh", root, release,
               kernel_source.MIRROR, deb.build(), INSTALL], steps.log_path("dkms"))

    before, after = ({*(root / "tmp" / name).read_text().splitlines()}
                     for name in ("before", "after"))
    assert not before - after
    assert not [path for path in after - before if not path.startswith(NOTES)]

    (built,) = (root / "tmp").glob("virtio_pmem_rust.ko*")
    if built.suffix == ".xz":
        subprocess.run(["xz", "-d", built], check=True)
        built = built.with_suffix("")
    with Guest(kernels.ready("debian"), name="dkms", driver="none", files={"/root/ours.ko": built},
               pmem=[Disk(tmp_path / "pmem", 128 << 20)]) as guest:
        guest.run("modprobe libnvdimm && insmod ours.ko", check=True)
        found = guest.run("ls /sys/bus/virtio/drivers/virtio_pmem_rust", check=True).output
        assert "virtio" in found
