# SPDX-License-Identifier: GPL-2.0
"""Build the kernels of the guests, with modules and the initramfs."""

import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import build_cache
import config
import initramfs
import kernel_source
import module
import packages
import settings
import steps
import toolchain

# Those that are built here; the third one is Debian's own, with the driver as a module.
KERNELS = ("release", "debug")

# The parts of a build that guests and their tests read.
PARTS = (".config", "vmlinux", "modules", "usr/gen_init_cpio")


@dataclass(frozen=True)
class Kernel:
    """A kernel that has been built and can be booted."""
    name: str
    out: Path

    @property
    def image(self):
        """The bootable image; QEMU starts it by PVH, so nothing has to be decompressed."""
        return self.out / "vmlinux"

    @property
    def initramfs(self):
        """The guest's user space, with this kernel's modules in it."""
        return self.out / "initramfs.cpio"

    @property
    def gen_init_cpio(self):
        """The kernel's own tool for archives."""
        return self.out / "usr/gen_init_cpio"


def make_command(kdir, out, tools):
    """Return the start of a command line of the kernel's make."""
    return ["make", "-C", kdir, f"O={out}", f"-j{os.cpu_count()}",
            *toolchain.build_variables(kdir, out, tools)]


def compile_kernel(kdir, name, out, tools):
    """Configure and build a kernel and its modules."""
    make = make_command(kdir, out, tools)
    log = steps.log_path(f"kernel-{name}")
    with steps.step(f"kernel {name}"):
        config.merge(name, out, make)
        steps.run([*make, "vmlinux", "modules"], log)
        shutil.rmtree(out / "modules", ignore_errors=True)
        steps.run([*make, f"INSTALL_MOD_PATH={out / 'modules'}", "modules_install"], log,
                  append=True)


def bootable(name, out):
    """Return a kernel that was built in a directory, with its initramfs."""
    built = Kernel(name, out)
    initramfs.build(built)
    return built


def ready(name):
    """Return a kernel of this name, built if need be, from a grafted source."""
    kernel_source.given()  # refuse a bad one first
    with steps.alone():
        kdir = kernel_source.tree()
        packages.need("build", "guest")
        out = settings.out(name)
        if name in KERNELS:
            tools = toolchain.ready(kdir)
            build_cache.provide(
                name, lambda: build_cache.key(kdir, tools, config.fragments(name), PARTS), out,
                PARTS, lambda: compile_kernel(kdir, name, out, tools))
        else:
            build_cache.provide(name, module.key, out, PARTS, lambda: module.stock(kdir, out))
        return bootable(name, out)


def main():
    """Build the kernels that the command line names."""
    names = sys.argv[1:] or [settings.choice("KERNEL")]
    for name in names:
        print(ready(name).image)


if __name__ == "__main__":
    steps.main(main)
