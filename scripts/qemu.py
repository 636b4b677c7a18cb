# SPDX-License-Identifier: GPL-2.0
"""QEMU: a program of the user's, or a version of Debian's that runs beside the installed one.

QEMU=11.1 fetches QEMU and all libraries that it loads from a newer Debian, verified by Debian's
keyring, and unpacks them into the cache. Nothing is installed. The libraries' own loader starts it.
"""

import os
import re
import shutil

import kernel_source
import packages
import settings
import steps

# Suites in the order in which they are searched, for a system of Debian 12 or newer.
SUITES = ("trixie-backports", "trixie")

# The package and the program for an architecture of guests.
PROGRAMS = {
    "x86_64": ("qemu-system-x86", "qemu-system-x86_64"),
    "arm64": ("qemu-system-arm", "qemu-system-aarch64"),
}

# Debian 12's QEMU for arm64 lacks what guests need: the device of tests/device.
DEFAULT = {"arm64": "11.1"}

# A value of QEMU= that is no program.
VERSION = re.compile(r"\d+\.\d+")

# Data, firmware and modules are not at the paths that were compiled in.
START = """#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
root=$(dirname "$(readlink -f "$0")")
export QEMU_MODULE_DIR="$root/{libraries}/qemu"
exec "$root/{loader}" --library-path "$root/{libraries}" "$root/usr/bin/{program}" \\
	-L "$root/usr/share/qemu" -L "$root/usr/share/seabios" -L "$root/usr/lib/ipxe/qemu" "$@"
"""


def versions(apt, package):
    """Return the versions of a package in the lists, as {upstream's major.minor: (version, suite)}.
    """
    found = {}
    text = steps.output(apt.command("apt-cache", "madison", package)) or ""
    for suite in SUITES:
        for line in text.splitlines():
            _, version, origin = (part.strip() for part in line.split("|"))
            number = re.match(r"(?:\d+:)?(\d+\.\d+)", version)
            if number and f" {suite}/main " in origin:
                found.setdefault(number[1], (version, suite))
    return found


def unpack(apt, name):
    """Unpack the downloaded packages, and add the script that starts the program."""
    root = apt.folder / "root"
    for deb in (apt.folder / "cache/archives").glob("*.deb"):
        steps.run(["dpkg-deb", "-x", deb, root], apt.log, append=True)
    root.chmod(0o755)
    loader = next(root.glob("usr/lib*/ld-linux*.so.?")).relative_to(root)
    libraries = next(root.glob("usr/lib/*/libc.so.6")).parent.relative_to(root)
    start = root / name
    start.write_text(START.format(loader=loader, libraries=libraries, program=name),
                     encoding="ascii")
    start.chmod(0o755)
    return root


def fetch(number, arch, target):
    """Fetch a version of QEMU into a directory."""
    package, name = PROGRAMS[arch]
    remedy = f"install QEMU {number} and give its path with QEMU="
    packages.need("source")
    if not shutil.which("apt-get") or not shutil.which("dpkg-deb"):
        raise steps.Trouble(f"QEMU={number} is fetched with apt-get and dpkg-deb, which are not "
                            f"there: {remedy}")
    with kernel_source.private_apt(remedy=remedy) as apt:
        apt.update(SUITES)
        known = versions(apt, package)
        if number not in known:
            raise steps.Trouble(f"QEMU={number}: Debian has {', '.join(sorted(known))}: give one "
                                "of these, or a program")
        version, suite = known[number]
        apt.get("install", "--download-only", "--no-install-recommends", "-y", "-t", suite,
                f"{package}={version}", append=True)
        try:
            os.rename(unpack(apt, name), target)
        except OSError:
            if not target.exists():  # else another run was faster
                raise


def program(arch=None):
    """Return the program that runs guests of an architecture, by default of ARCH."""
    arch = arch or settings.arch()
    given, name = settings.get("QEMU") or DEFAULT.get(arch, ""), PROGRAMS[arch][1]
    if not VERSION.fullmatch(given):
        return given or name
    target = settings.cache() / f"qemu-{given}-{arch}"
    if not (target / name).exists():
        shutil.rmtree(target, ignore_errors=True)
        with steps.step(f"fetch QEMU {given}"):
            fetch(given, arch, target)
    return str(target / name)
