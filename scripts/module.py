# SPDX-License-Identifier: GPL-2.0
"""Build the driver as a module for a kernel that was built without the overlay.

kernel_ext/build does that on the kernel's own machine. For Debian's kernels it runs in a root that
has the kernel's packages and the compilers of its suite.
"""

import hashlib
import os
import re
import shutil
import subprocess
from pathlib import Path

import debian_root
import graft
import kernel_source
import settings
import steps

# What a module is made of.
SOURCES = ("Kbuild", "kernel_ext/", "drivers/nvdimm/virtio_pmem_rust/", "include/", "rust/")

# Modules of Debian's kernel that guests use, by the directory that they are in.
MODULES = re.compile(r"kernel/(drivers/(nvdimm|dax|md/(?!dm-vdo|bcache)|block/(loop|virtio_blk))"
                     r"|fs/(9p|ext4|xfs)/|net/9p/9pnet_virtio)")


def out(release):
    """Return where the module for a kernel is built."""
    return settings.out("module") / release


def command(release):
    """Return the command that builds the module for a kernel."""
    build = [settings.ROOT / "kernel_ext/build", release, out(release)]
    if Path(f"/lib/modules/{release}/build/rust/libkernel.rmeta").exists():
        return build  # also for Debian, if its headers should once have them
    if not debian_root.RELEASE.fullmatch(release):
        return build  # which finds out what is missing
    return debian_root.enter(debian_root.root(release), out(release), *build)


def sources():
    """List the files that a module is made of."""
    names = [*graft.new_files(), "Kbuild",
             *(str(path.relative_to(settings.ROOT))
               for path in sorted((settings.ROOT / "kernel_ext").rglob("*")) if path.is_file())]
    return [name for name in names if name.startswith(SOURCES)]


def key():
    """Return the digest of all that Debian's kernel for guests depends on."""
    value = hashlib.sha256(repr((debian_root.release(), debian_root.TOOLS)).encode())
    for name in (*sources(), Path(__file__).relative_to(settings.ROOT)):
        value.update(f"{name} {kernel_source.file_digest(settings.ROOT / name)}".encode())
    return value.hexdigest()


def needed(folder, release):
    """List the modules that guests use, and all that these need."""
    text = steps.output(["depmod", "-n", "-b", folder, release])
    if not text:
        raise steps.Trouble(f"depmod lists no modules of {folder}/lib/modules/{release}")
    needs = dict(re.findall(r"^(kernel/\S+\.ko\S*):(.*)$", text, re.M))
    return sorted({one for name, more in needs.items() if MODULES.match(name)
                   for one in (name, *more.split())})


def stock(kdir, made):
    """Make Debian's kernel for guests, with the driver as a module."""
    release = debian_root.release()
    root = debian_root.root(release)
    source, target = root / f"usr/lib/modules/{release}", made / f"modules/lib/modules/{release}"
    log = steps.log_path("module")
    with steps.step("module for Debian's kernel"):
        steps.run(command(release), log)
    shutil.rmtree(made / "modules", ignore_errors=True)
    (target / "updates").mkdir(parents=True)
    (made / "usr").mkdir(exist_ok=True)
    for name in needed(root, release):
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source / name, target / name)
    # A guest would do it each time, in emulation.
    steps.run(["find", target, "-name", "*.ko.xz", "-exec", "xz", "-d", "{}", "+"], log,
              append=True)
    for name in ("modules.builtin", "modules.builtin.modinfo"):
        shutil.copy2(source / name, target)
    steps.run(["strip", "-g", "-o", target / "updates/virtio_pmem_rust.ko",
               out(release) / "virtio_pmem_rust.ko"], log, append=True)
    steps.run(["depmod", "-b", made / "modules", release], log, append=True)
    shutil.copy2(source / "vmlinuz", made / "vmlinux")
    shutil.copy2(source / "config", made / ".config")
    steps.run(["cc", "-O2", "-o", made / "usr/gen_init_cpio", kdir / "usr/gen_init_cpio.c"], log,
              append=True)


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
