# SPDX-License-Identifier: GPL-2.0
"""Build the kernels of the guests, with modules and the initramfs."""

import hashlib
import json
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import config
import graft
import initramfs
import kernel_source
import packages
import settings
import steps
import toolchain

KERNELS = ("release", "debug")


@dataclass(frozen=True)
class Kernel:
    """A kernel that has been built and can be booted."""
    name: str
    out: Path

    @property
    def image(self):
        """The bootable image; QEMU starts it by PVH, so there is nothing to decompress."""
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
    return ["make", "-C", kdir, f"O={out}", f"-j{os.cpu_count()}", *toolchain.variables(tools)]


def fingerprint(kdir, name):
    """Return what a build of the project's own tree depends on."""
    value = hashlib.sha256((kdir / graft.MANIFEST).read_bytes())
    value.update(repr(kernel_source.version(kdir)).encode())
    value.update(config.fragments(name).encode())
    value.update(repr([settings.get(tool) for tool in settings.TOOLS]).encode())
    return value.hexdigest()


def compile_kernel(kdir, name, out):
    """Configure and build a kernel and its modules."""
    tools = toolchain.ready(kdir)
    make = make_command(kdir, out, tools)
    out.mkdir(parents=True, exist_ok=True)
    log = steps.log_path(f"kernel-{name}")
    with steps.step(f"kernel {name}"):
        config.merge(name, out, make)
        steps.run([*make, "vmlinux", "modules"], log)
        shutil.rmtree(out / "modules", ignore_errors=True)
        steps.run([*make, f"INSTALL_MOD_PATH={out / 'modules'}", "modules_install"], log,
                  append=True)


def ready(name):
    """Return a kernel of this name, built if need be, from a grafted source."""
    kernel_source.given()  # a bad one is not worth waiting for
    with steps.alone():
        kdir = kernel_source.tree()
        packages.need("build", "guest")
        out = settings.out(name)
        built = Kernel(name, out)
        stamp, want = out / ".built.json", json.dumps([str(kdir), fingerprint(kdir, name)])
        # Somebody's own tree changes in ways that only make can see.
        if settings.get("KDIR") or not stamp.exists() or stamp.read_text() != want:
            stamp.unlink(missing_ok=True)
            compile_kernel(kdir, name, out)
            stamp.write_text(want)
        initramfs.build(built)
        return built


def main():
    """Build the kernels that the command line names."""
    names = sys.argv[1:] or [settings.choice("KERNEL", "release", KERNELS)]
    for name in names:
        print(ready(name).image)


if __name__ == "__main__":
    steps.main(main)
