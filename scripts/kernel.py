# SPDX-License-Identifier: GPL-2.0
"""Build the kernels of the guests, with modules and the initramfs."""

import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import architecture
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


def parts():
    """List the parts of a build that guests and their tests read."""
    return [".config", *dict.fromkeys(("vmlinux", architecture.guests().image)), "modules",
            "usr/gen_init_cpio"]


@dataclass(frozen=True)
class Kernel:
    """A kernel that has been built and can be booted."""
    name: str
    out: Path

    @property
    def image(self):
        """The bootable image."""
        return self.out / architecture.guests().image

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
    log = steps.log_path(f"kernel-{out.name}")
    with steps.step(f"kernel {out.name}"):
        config.merge(name, out, make)
        targets = dict.fromkeys(("vmlinux", architecture.guests().target, "modules"))
        steps.run([*make, *targets], log)
        shutil.rmtree(out / "modules", ignore_errors=True)
        steps.run([*make, f"INSTALL_MOD_PATH={out / 'modules'}", "modules_install"], log,
                  append=True)


def bootable(out):
    """Return the kernel that was built in a directory, which has its name, with its initramfs."""
    built = Kernel(out.name.removesuffix(architecture.suffix()), out)
    initramfs.build(built)
    return built


def ready(name):
    """Return a kernel of this name, built if need be, from a grafted source."""
    kernel_source.given()  # refuse a bad one first
    with steps.alone():
        kdir = kernel_source.tree()
        packages.need("build", "guest")
        out = settings.out(name + architecture.suffix())
        if name in KERNELS:
            tools = toolchain.ready(kdir)
            build_cache.provide(
                out.name, lambda: build_cache.key(kdir, tools, config.fragments(name), parts()),
                out, parts(), lambda: compile_kernel(kdir, name, out, tools))
        elif architecture.suffix():
            raise settings.BadSetting(f"KERNEL={name}: is there for ARCH=x86_64 alone")
        else:
            build_cache.provide(name, module.key, out, parts(), lambda: module.stock(kdir, out))
        return bootable(out)


def main():
    """Build the kernels that the command line names."""
    names = sys.argv[1:] or [settings.choice("KERNEL")]
    for name in names:
        print(ready(name).image)


if __name__ == "__main__":
    steps.main(main)
