# SPDX-License-Identifier: GPL-2.0
"""Where the programs of guests come from: this machine, or Debian's packages for another one."""

import contextlib
import os
import re
import shutil
import tempfile
from pathlib import Path

import architecture
import debian_root
import kernel_source
import packages
import settings
import steps

SUITE = "trixie"

# The tools of initramfs.py, and what programs of the tests' own are compiled with.
PACKAGES = (
    "busybox-static", "daxctl", "dmsetup", "e2fsprogs", "fio", "kmod", "libc6-dev", "libgcc-14-dev",
    "ndctl", "sqlite3", "trace-cmd", "xfsprogs",
)


class Host:
    """This machine."""

    @staticmethod
    def program(name):
        """Return the path of a program, or None."""
        return shutil.which(name)

    @staticmethod
    def libraries(program):
        """Return the shared libraries of a program, as {path in the guest: path here}."""
        text = steps.output(["ldd", program]) or ""
        return {path: path for path in re.findall(r"(?:=>\s+|^\s*)(/\S+)\s+\(0x", text, re.M)}

    @staticmethod
    def file(path):
        """Return where a file of the system is."""
        return Path(path)

    @staticmethod
    def compiler():
        """Return the command of a C compiler for guests."""
        return ["gcc"]


class Root:
    """A directory of unpacked packages for another architecture."""

    def __init__(self, folder, triple):
        self.folder, self.triple = folder, triple

    def file(self, path):
        """Return where a file of the system is; a link may be absolute."""
        found = self.folder / str(path).lstrip("/")
        while found.is_symlink():
            target = os.readlink(found)
            found = self.file(target) if target.startswith("/") else found.parent / target
        return found

    def program(self, name):
        """Return the path of a program, or None."""
        found = (self.file(f"/usr/{place}/{name}") for place in ("bin", "sbin"))
        return next((path for path in found if path.exists()), None)

    def libraries(self, program):
        """Return the shared libraries of a program, as {path in the guest: path here}."""
        found, left = {}, [program]
        while left:
            text = steps.output(["readelf", "-l", "-d", left.pop()]) or ""
            own = re.findall(r"runpath: \[(.*)\]", text)
            wanted = [Path(path) for path in re.findall(r"program interpreter: (\S+)\]", text)]
            for name in re.findall(r"\(NEEDED\).*\[(.*)\]", text):
                places = [Path(place) / name for place in (*own, f"/lib/{self.triple}", "/lib")]
                there = [path for path in places if self.file(path).exists()]
                if not there:
                    raise steps.Trouble(f"{program} needs {name}, which no package has")
                wanted.append(there[0])
            for path in wanted:
                if path not in found:
                    found[path] = self.file(path)
                    left.append(found[path])
        return found

    def compiler(self):
        """Return the command of a C compiler for guests."""
        clang = next(iter(sorted(Path("/usr/lib").glob("llvm-*/bin/clang"), reverse=True)), "clang")
        return [clang, f"--target={self.triple}", f"--sysroot={self.folder}", "-fuse-ld=lld"]


def compile_static(source, target):
    """Compile a program of one file for guests; return its path."""
    steps.run([*system().compiler(), "-static", "-O1", "-pthread", "-Wall", "-Wextra", "-Werror",
               "-o", target, source], steps.log_path(Path(target).name))
    return target


def fetch(arch, target):
    """Fetch and unpack the packages."""
    kernel_source.check_fetching()
    with kernel_source.private_apt(arch=arch) as apt, \
            tempfile.TemporaryDirectory(dir=settings.cache(), prefix=".fetch-") as name:
        folder = Path(name) / "root"
        for part in ("bin", "sbin", "lib"):
            (folder / "usr" / part).mkdir(parents=True, exist_ok=True)
            (folder / part).symlink_to(f"usr/{part}")
        apt.update([SUITE])
        apt.get("install", "-y", "--download-only", "--no-install-recommends", *PACKAGES,
                append=True)
        for deb in sorted((apt.folder / "cache/archives").glob("*.deb")):
            debian_root.unpack(deb, folder, apt.log)
        with contextlib.suppress(OSError):  # another run was faster
            os.rename(folder, target)


def system():
    """Return where the guests' programs come from."""
    if architecture.is_native():
        return Host()
    arch = settings.arch()
    target = settings.cache() / f"guest-{arch}-{SUITE}"
    if not target.exists():
        packages.need("source")
        with steps.step(f"fetch the guests' programs for {arch}"):
            fetch(arch, target)
    return Root(target, architecture.guests().triple)
