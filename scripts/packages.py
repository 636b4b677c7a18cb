# SPDX-License-Identifier: GPL-2.0
"""Find missing packages, and install them where apt-get is available."""

import functools
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import settings
import steps

# Debian's packages, and what proves that each is installed: a command, or a file by its path.
NEEDS = {
    "source": {
        "debian-archive-keyring": "/usr/share/keyrings/debian-archive-keyring.gpg",
        "gpgv": "gpgv",
        "xz-utils": "xz",
        "patch": "patch",
    },
    "build": {
        "ca-certificates": "/etc/ssl/certs/ca-certificates.crt",  # cargo fetches by https
        "make": "make",
        "gcc": "gcc",
        "ccache": "ccache",
        "libc6-dev": "/usr/include/stdio.h",
        "flex": "flex",
        "bison": "bison",
        "bc": "bc",
        "perl": "perl",
        "libelf-dev": "/usr/include/libelf.h",
        "libssl-dev": "/usr/include/openssl/ssl.h",
        "kmod": "depmod",
        "patch": "patch",
    },
    "guest": {
        "qemu-system-x86": "qemu-system-x86_64",
        "busybox-static": "busybox",
        "e2fsprogs": "mkfs.ext4",
        "xfsprogs": "mkfs.xfs",
        "fio": "fio",
        "ndctl": "ndctl",
        "kmod": "modprobe",
        "strace": "strace",
        "sqlite3": "sqlite3",
        "dmsetup": "dmsetup",
        "trace-cmd": "trace-cmd",
    },
    "xfstests": {
        "autoconf": "autoconf",
        "automake": "automake",
        "libtool": "libtoolize",
        "pkg-config": "pkg-config",
        "xfslibs-dev": "/usr/include/xfs/xfs.h",
        "libacl1-dev": "/usr/include/sys/acl.h",
        "libaio-dev": "/usr/include/libaio.h",
        "liburing-dev": "/usr/include/liburing.h",
        "uuid-dev": "/usr/include/uuid/uuid.h",
        "acl": "setfacl",
        "attr": "setfattr",
        "bc": "bc",
        "bsdextrautils": "hexdump",
        "file": "file",
        "gawk": "gawk",
        "hostname": "hostname",
        "libcap2-bin": "capsh",
        "perl": "perl",
        "procps": "ps",
        "psmisc": "killall",
        "uuid-runtime": "uuidgen",
        "xz-utils": "xz",
    },
    "test": {"git": "git", "patch": "patch"},
    "deb": {"debootstrap": "debootstrap", "dpkg": "dpkg-deb", "lintian": "lintian"},
    "lint": {"shellcheck": "shellcheck", "perl": "perl", "git": "git"},
}

PAUSE = 5  # seconds before anything is installed

# Not every user has the administrator's commands on the path.
os.environ["PATH"] += os.pathsep + "/usr/local/sbin:/usr/sbin:/sbin"


def there(what):
    """Return whether a command or file is there."""
    return Path(what).exists() if what.startswith("/") else bool(shutil.which(what))


def missing(*groups):
    """List the packages of these groups that are not installed."""
    found = []
    for group in groups:
        for package, what in NEEDS[group].items():
            if not there(what) and package not in found:
                found.append(package)
    return found


def root():
    """Return how to run a command as root, or None."""
    if os.geteuid() == 0:
        return []
    if subprocess.run(["sudo", "-n", "true"], capture_output=True, check=False).returncode == 0 \
            if shutil.which("sudo") else False:
        return ["sudo", "-n"]
    return None


def apt_get(*words):
    """Run apt-get as root."""
    steps.run([*(root() or []), "env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-q", "-y",
               *words], steps.log_path("install"), append=True)


def announce(command):
    """Print what is about to be run as root; a user at a terminal has time to stop it."""
    line = "as root: " + " ".join([*(root() or []), *command])
    if os.environ.get("CI") or not sys.stdin.isatty():
        steps.say(line)
        return
    steps.say(f"{line}\nbegins in {PAUSE} seconds; Ctrl-C stops it")
    time.sleep(PAUSE)


@functools.cache
def refresh():
    """Fetch apt's lists, once and if that is allowed; a fresh machine has none."""
    if not settings.flag("NO_INSTALL") and shutil.which("apt-get") and root() is not None:
        with steps.step("apt-get update"):
            apt_get("update")


def install(names):
    """Install Debian packages, or name those that the user has to install."""
    if not names:
        return
    command = f"apt-get install {' '.join(names)}"
    if settings.flag("NO_INSTALL"):
        raise steps.Trouble(f"missing (NO_INSTALL is set): {command}")
    if not shutil.which("apt-get"):
        raise steps.Trouble(f"missing; install what Debian calls: {' '.join(names)}")
    if root() is None:
        raise steps.Trouble(f"missing, and you are not root: sudo {command}")
    words = ["install", "--no-install-recommends", *names]
    announce(["apt-get", *words])
    refresh()
    with steps.step(f"install {' '.join(names)}"):
        apt_get(*words)


def need(*groups):
    """Install what is missing of these groups."""
    install(missing(*groups))
    left = missing(*groups)
    if left:
        raise steps.Trouble(f"still missing after the installation: {' '.join(left)}\n"
                            f"log: {steps.log_path('install')}")


def candidate(package):
    """Return the version of a package that apt would install, or None."""
    text = steps.output(["apt-cache", "policy", package]) or ""
    for line in text.splitlines():
        word, _, version = line.strip().partition(": ")
        if word == "Candidate" and version != "(none)":
            return version
    return None
