# SPDX-License-Identifier: GPL-2.0
"""Make the DKMS package: the module's sources, which are built for each kernel on installation."""

import gzip
import hashlib
import re
import shutil
import tempfile
from email.utils import formatdate
from pathlib import Path

import module
import packages
import settings
import steps

NAME = "virtio-pmem-rust-dkms"
OWNER = "virtio-pmem-rust project <virtio-pmem-rust@packages.invalid>"

CONTROL = """\
Package: {name}
Version: {version}
Architecture: all
Maintainer: {owner}
Section: kernel
Priority: optional
Depends: dkms (>= 3.2), bindgen, gcc, linux-source-7.3, make, rust-src, rustc
Recommends: linux-headers-amd64 (>= 7.3), openssl
Description: driver for virtio-pmem devices, in Rust (DKMS)
 virtio-pmem gives a virtual machine persistent memory that is a file of
 its host. With this driver concurrent callers of fsync share the flushes
 that they cause; the kernel's own driver sends one for each.
 .
 DKMS builds the module for kernels that have Rust. On other kernels, and
 when this package is removed, the kernel's own driver serves the devices.
"""

COPYRIGHT = """\
Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: virtio-pmem-rust

Files: *
Copyright: 2026 virtio-pmem-rust project
License: GPL-2

License: GPL-2
 On Debian systems, the text of the GNU General Public License version 2
 is in /usr/share/common-licenses/GPL-2.
"""

# Both drivers have the devices' alias. The first one that is loaded binds; the other one has
# nothing to do. Where this module is missing, the rule has no effect.
MODPROBE = """\
# Load the driver in Rust before the one in C, where it was built.
softdep virtio_pmem pre: virtio_pmem_rust
"""

POSTINST = """\
#!/bin/sh
set -e
if [ "$1" = configure ]; then
	/usr/lib/dkms/common.postinst {module} {version} /usr/share/{name} "" "$2"
fi
"""

PRERM = """\
#!/bin/sh
set -e
case $1 in
remove|upgrade|deconfigure)
	if [ -n "$(dkms status -m {module} -v {version})" ]; then
		dkms remove -m {module} -v {version} --all
	fi
	;;
esac
"""


def version():
    """Return the driver's version, which must be that of dkms.conf."""
    events = settings.ROOT / "drivers/nvdimm/virtio_pmem_rust/virtio_pmem_rust_events.c"
    found = re.search(r'^MODULE_VERSION\("(.+)"\);$', events.read_text(), re.M)[1]
    conf = (settings.ROOT / "dkms.conf").read_text()
    if f'PACKAGE_VERSION="{found}"' not in conf:
        raise steps.Trouble(f"dkms.conf has not the version of {events}, {found}")
    return found


def write(path, text, mode=0o644):
    """Write a file of the package."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)


def fill(folder):
    """Write the package's files; return its version."""
    number = version()
    words = {"name": NAME, "version": number, "owner": OWNER, "module": "virtio-pmem-rust"}
    source = folder / f"usr/src/virtio-pmem-rust-{number}"
    for name in (*module.sources(), "dkms.conf"):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(settings.ROOT / name, source / name)
    write(folder / "usr/lib/modprobe.d/virtio-pmem-rust.conf", MODPROBE)
    doc = folder / f"usr/share/doc/{NAME}"
    write(doc / "copyright", COPYRIGHT)
    log = (f"{NAME} ({number}) trixie; urgency=medium\n\n  * CHANGELOG.md of the project.\n\n"
           f" -- {OWNER}  {formatdate()}\n")
    (doc / "changelog.gz").write_bytes(gzip.compress(log.encode(), mtime=0))
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    sums = [f"{hashlib.md5(path.read_bytes()).hexdigest()}  {path.relative_to(folder)}\n"
            for path in files]
    write(folder / "DEBIAN/control", CONTROL.format(**words))
    write(folder / "DEBIAN/md5sums", "".join(sums))
    write(folder / "DEBIAN/postinst", POSTINST.format(**words), 0o755)
    write(folder / "DEBIAN/prerm", PRERM.format(**words), 0o755)
    for path in folder.rglob("*"):
        if path.is_dir():
            path.chmod(0o755)
    return number


def build():
    """Make the package; return its path."""
    packages.need("deb")
    settings.BUILD.mkdir(exist_ok=True)
    log = steps.log_path("deb")
    with tempfile.TemporaryDirectory(dir=settings.BUILD, prefix="deb-") as name:
        folder = Path(name) / "package"
        target = settings.BUILD / f"{NAME}_{fill(folder)}_all.deb"
        steps.run(["dpkg-deb", "--root-owner-group", "--build", folder, target], log)
    steps.run(["lintian", "--fail-on=error,warning", "--allow-root", target], log, append=True)
    return target


def main():
    """Make the package, and print its path."""
    print(build())


if __name__ == "__main__":
    steps.main(main)
