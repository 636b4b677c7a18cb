# SPDX-License-Identifier: GPL-2.0
"""Build the driver as a module for a kernel that was built without the overlay.

kernel_ext/build does that on the kernel's own machine. For Debian's kernels it runs in a root that
has the kernel's packages and the compilers of its suite.
"""

import os
import re
import subprocess
from pathlib import Path

import debian
import settings
import steps


def out(release):
    """Return where the module for a kernel is built."""
    return settings.out("module") / release


def command(release):
    """Return the command that builds the module for a kernel."""
    build = [settings.ROOT / "kernel_ext/build", release, out(release)]
    if Path(f"/lib/modules/{release}/build/rust/libkernel.rmeta").exists():
        return build  # also for Debian, if its headers should once have them
    if not debian.RELEASE.fullmatch(release):
        return build  # which finds out what is missing
    return debian.enter(debian.root(release), *build)


def main():
    """Build the module for KERNEL_RELEASE, or for the running kernel."""
    release = settings.get("KERNEL_RELEASE") or os.uname().release
    with steps.alone():
        status = subprocess.run([str(word) for word in command(release)], check=False,
                                env=steps.environment()).returncode
    if status:
        return 1
    name = out(release) / "virtio_pmem_rust.ko"
    print(f"load it, as root, on that kernel: modprobe libnvdimm && insmod {name}\n"
          f"for good: cp {name} /lib/modules/{release}/updates/ && depmod {release}")
    return 0


if __name__ == "__main__":
    steps.main(main)
