# SPDX-License-Identifier: GPL-2.0
"""Make the guest's user space: an initramfs of Debian's tools, by the kernel's gen_init_cpio."""

import hashlib
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import settings
import steps
import userland

# Dynamically linked tools; the rest of user space is busybox.
TOOLS = (
    "fio", "mkfs.ext4", "e2fsck", "tune2fs", "debugfs", "mkfs.xfs", "xfs_repair", "xfs_io",
    "xfs_db", "ndctl", "daxctl", "modprobe", "sqlite3", "dmsetup", "trace-cmd",
)
OPTIONAL = {"daxctl", "debugfs", "xfs_db"}

DIRECTORIES = (
    "/bin", "/dev", "/etc", "/etc/modprobe.d", "/lib", "/lib/modules", "/mnt", "/proc", "/root",
    "/run", "/sbin", "/sys", "/tmp", "/usr", "/usr/bin", "/usr/sbin", "/usr/lib",
)


class Archive:
    """The contents of an archive, as lines for gen_init_cpio; programs come from a system."""

    def __init__(self, system=None):
        self.lines = {}
        self.system = system

    def directory(self, path):
        """Add a directory and its parents."""
        for parent in reversed([Path(path), *Path(path).parents]):
            if str(parent) != "/":
                self.lines.setdefault(str(parent), f"dir {parent} 0755 0 0")

    def file(self, path, source, mode=None):
        """Add a file from the host."""
        source = Path(source).resolve()
        mode = mode or ("0755" if source.stat().st_mode & 0o111 else "0644")
        self.directory(Path(path).parent)
        self.lines[str(path)] = f"file {path} {source} {mode} 0 0"

    def link(self, path, target):
        """Add a symbolic link."""
        self.directory(Path(path).parent)
        self.lines.setdefault(str(path), f"slink {path} {target} 0777 0 0")

    def program(self, name):
        """Add a program, with its libraries at the paths that its loader searches."""
        found = self.system.program(name)
        if not found:
            raise steps.Trouble(f"{name} is not installed")
        self.file(f"/usr/sbin/{name}", found)
        for path, library in self.system.libraries(found).items():
            self.file(path, library)

    def tree(self, path, source):
        """Add a directory tree of regular files."""
        for file in sorted(source.rglob("*")):
            if file.is_file() and not file.is_symlink():
                self.file(Path(path) / file.relative_to(source), file)

    def text(self):
        """Return the list of contents."""
        return "\n".join(self.lines.values()) + "\n"


def applets():
    """Return the names of busybox's commands."""
    text = steps.output(["busybox", "--list"])
    if not text:
        raise steps.Trouble("busybox does not run")
    return text.split()


def pack(generator, text, target):
    """Write an archive; it gets its name when it is complete, also with concurrent writers."""
    with tempfile.TemporaryDirectory(dir=target.parent, prefix="pack-") as folder:
        listing, new = Path(folder) / "list", Path(folder) / "cpio"
        listing.write_text(text)
        with open(new, "wb") as out:
            done = subprocess.run([generator, listing], stdout=out, stderr=subprocess.PIPE,
                                  text=True, check=False)
        if done.returncode:
            raise steps.Trouble(f"gen_init_cpio failed: {done.stderr}")
        new.replace(target)


def contents(kernel):
    """Return the contents of a kernel's initramfs."""
    system = userland.system()
    archive = Archive(system)
    for path in DIRECTORIES:
        archive.directory(path)
    # The kernel opens the console before init mounts /dev.
    archive.lines["/dev/console"] = "nod /dev/console 0600 0 0 c 5 1"
    busybox = system.program("busybox")
    archive.file("/bin/busybox", busybox)
    if system.libraries(busybox):
        raise steps.Trouble("busybox is not static: install busybox-static")
    for name in TOOLS:
        if system.program(name) or name not in OPTIONAL:
            archive.program(name)
    for name in applets():
        if f"/usr/sbin/{name}" not in archive.lines:
            archive.link(f"/bin/{name}", "/bin/busybox")
    archive.link("/sbin/modprobe", "/usr/sbin/modprobe")
    if system.file("/etc/mke2fs.conf").exists():
        archive.file("/etc/mke2fs.conf", system.file("/etc/mke2fs.conf"))
    archive.file("/init", settings.TESTS / "guest/init", "0755")
    archive.file("/sbin/hotplug", settings.TESTS / "guest/hotplug", "0755")
    archive.file("/sbin/agent", settings.TESTS / "guest/agent", "0755")
    for module in sorted((kernel.out / "modules/lib/modules").iterdir()):
        archive.tree(f"/lib/modules/{module.name}", module)
    return archive


def build(kernel):
    """Make a kernel's initramfs, unless it is up to date."""
    text = contents(kernel).text()
    value = hashlib.sha256(text.encode())
    for source in re.findall(r"^file \S+ (\S+)", text, re.M):
        stat = Path(source).stat()
        value.update(f"{source} {stat.st_size} {stat.st_mtime_ns}".encode())
    stamp = kernel.initramfs.with_suffix(".stamp")
    if kernel.initramfs.exists() and stamp.exists() and stamp.read_text() == value.hexdigest():
        return
    with steps.step(f"initramfs {kernel.name}"):
        pack(kernel.gen_init_cpio, text, kernel.initramfs)
        stamp.write_text(value.hexdigest())


def add_files(kernel, files, target):
    """Write a copy of a kernel's initramfs with more files, given as {guest path: host path}."""
    archive = Archive()
    for path, source in files.items():
        archive.file(path, source)
    pack(kernel.gen_init_cpio, archive.text(), target)
    extra = target.read_bytes()
    with open(target, "wb") as out, open(kernel.initramfs, "rb") as base:
        shutil.copyfileobj(base, out)
        out.write(b"\0" * (-out.tell() % 4))
        out.write(extra)
