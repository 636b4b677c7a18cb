# SPDX-License-Identifier: GPL-2.0
"""A root of Debian's packages in the cache: a stock kernel, with the compilers of its suite.

Nothing is installed: the packages are unpacked, and what runs there runs in a chroot.
"""

import contextlib
import os
import re
import shutil
import tempfile
from pathlib import Path

import kernel_source
import packages
import settings
import steps

SUITES = ("trixie", "trixie-backports")

# What kernel_ext/build runs.
TOOLS = (
    "base-files", "bash", "bindgen", "binutils", "coreutils", "cpio", "dash", "diffutils",
    "findutils", "gcc", "gcc-14", "gzip", "grep", "kmod", "libc6-dev", "libdw-dev", "libelf-dev",
    "libssl-dev", "make", "mawk", "pahole", "perl-base", "python3-minimal", "rust-src", "rustc",
    "sed", "tar", "xz-utils",
)
KERNEL = ("linux-headers-{}", "linux-headers-{common}", "linux-kbuild-{short}", "linux-base-{}",
          "linux-binary-{}", "linux-modules-{}")

# No tool here needs them, and they are a third of the root.
UNUSED = ("usr/share/doc", "usr/share/man", "usr/share/locale", "usr/lib/llvm-*/include",
          "usr/lib/llvm-*/lib/*.a", "usr/src/rustc-*/compiler", "usr/src/rustc-*/src")

NEWEST = 2  # roots that are kept

RELEASE = re.compile(r"(\d+\.\d+)\.\d+\+deb13-amd64")

# Runs a command in the root $1, with the project and its outputs at their own paths, as root of a
# namespace.
ENTER = """
root=$1
for path in "$2" "$3"; do
	mkdir -p "$root$path"
	mount --bind "$path" "$root$path"
done
shift 3
mount --rbind /proc "$root/proc"
mount --rbind /dev "$root/dev"
exec chroot "$root" env -i PATH=/usr/sbin:/usr/bin LC_ALL=C.UTF-8 HOME=/root "$@"
"""


def release():
    """Return the release of Debian's kernel whose source is used, or else is pinned."""
    note = settings.BUILD / "linux" / kernel_source.NOTE
    name = note.read_text().split()[1] if note.exists() else kernel_source.read_pin().name
    version = re.search(r"_([\d.]+)-", name)[1]
    return f"{version}+deb13-amd64"


def kernel_packages(name):
    """List the packages of a kernel."""
    common = name.removesuffix("-amd64")
    return [package.format(name, short=common, common=f"{common}-common") for package in KERNEL]


def place(name):
    """Return where the root with a kernel is."""
    return settings.cache() / f"debian-{name}"


def unpack(package, folder, log):
    """Unpack a package."""
    steps.run(["sh", "-c", 'package=$1; shift; dpkg-deb --fsys-tarfile "$package" | tar -x "$@"',
               "sh", package, "-C", folder, "--keep-directory-symlink", "--no-same-owner",
               "--no-wildcards-match-slash", *(f"--exclude=./{path}" for path in UNUSED)],
              log, append=True)


def fill(folder, name, apt):
    """Unpack the tools and a kernel into a directory."""
    apt.update(SUITES)
    names = kernel_packages(name)
    if not apt.has(names[0]):
        raise steps.Trouble(f"Debian no longer has {names[0]}: run 'make bump', or name another "
                            "kernel of trixie-backports by KERNEL_RELEASE=")
    text = steps.output(apt.command("apt-cache", "show", names[0]))
    version = re.search(r"^Version: (.*)", text, re.M)[1]
    short = RELEASE.fullmatch(name)[1]
    source = kernel_source.Pin(f"linux-source-{short}_{version}.tar.xz", "")
    if not source.path.exists():
        kernel_source.extract(apt, source.package)

    apt.get("install", "-y", "--download-only", "--no-install-recommends", *TOOLS, append=True)
    apt.get("download", *names, append=True)
    for part in ("bin", "sbin", "lib", "lib64"):
        (folder / "usr" / part).mkdir(parents=True, exist_ok=True)
        (folder / part).symlink_to(f"usr/{part}")
    debs = sorted([*(apt.folder / "cache/archives").glob("*.deb"), *apt.folder.glob("*.deb")])
    for deb in debs:
        unpack(deb, folder, apt.log)
    for part in ("dev", "proc", "tmp", "root"):
        (folder / part).mkdir(exist_ok=True)
    # Its postinst, which did not run, would make it.
    (folder / "usr/bin/awk").symlink_to("mawk")
    shutil.copy2(source.path, folder / f"usr/src/linux-source-{short}.tar.xz")
    (folder / "packages").write_text("".join(f"{deb.name}\n" for deb in debs), encoding="ascii")


def root(name):
    """Return the root with a kernel, made if it is not in the cache."""
    target = place(name)
    if (target / "packages").exists():
        return target
    kernel_source.check_fetching()
    with steps.step(f"fetch Debian's kernel {name} and its compilers"), \
            kernel_source.private_apt() as apt, \
            tempfile.TemporaryDirectory(dir=settings.cache(), prefix=".fetch-") as folder:
        made = Path(folder) / "root"
        made.mkdir()
        fill(made, name, apt)
        with contextlib.suppress(OSError):  # another run was faster
            os.rename(made, target)
    roots = sorted(settings.cache().glob("debian-*"), key=lambda path: path.stat().st_mtime)
    for old in roots[:-NEWEST]:
        shutil.rmtree(old, ignore_errors=True)
    return target


def enter(folder, out, *command):
    """Return the command line that runs a command in a root; it writes to the directory out."""
    out.mkdir(parents=True, exist_ok=True)
    packages.need("source")
    user = [] if os.geteuid() == 0 else ["--map-root-user"]
    return ["unshare", "--mount", *user, "sh", "-ec", ENTER, "sh", folder, settings.ROOT,
            out, *command]
