# SPDX-License-Identifier: GPL-2.0
"""The variables that make takes, and where things are."""

import os
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "build"
LOGS = BUILD / "logs"
TESTS = ROOT / "tests"

# Those of the kernel's make that are handed on to it.
TOOLS = ("LLVM", "RUSTC", "RUSTDOC", "RUSTFMT", "CLIPPY_DRIVER", "BINDGEN", "RUST_LIB_SRC")

VARIABLES = (
    "KDIR", "ARCH", "O", *TOOLS, "NO_INSTALL", "ACCEL", "QEMU", "KERNEL", "DRIVER", "MEM", "SMP",
    "PMEM_SIZE", "QEMU_ARGS", "TIMEOUT", "RUN", "SCRIPT", "FORCE", "LINK", "QUICK", "CHECK", "JOBS",
    "ROUNDS", "DELAYS", "LONG", "SEED", "ONLY",
)


class BadSetting(ValueError):
    """A variable has a value that cannot be used."""


def get(name, default=""):
    """Return a variable; an empty one counts as not given."""
    return os.environ.get(name) or default


def choice(name, default, allowed):
    """Return a variable that takes one of a few words."""
    value = get(name, default)
    if value not in allowed:
        raise BadSetting(f"{name}={value}: use one of {', '.join(allowed)}")
    return value


def flag(name):
    """Return a variable that is 1, or is 0 or not given."""
    return choice(name, "0", ("0", "1")) == "1"


def number(name, default):
    """Return a variable that is a positive number."""
    value = get(name, str(default))
    if not value.isdecimal() or int(value) == 0:
        raise BadSetting(f"{name}={value}: use a positive number, like {default}")
    return int(value)


def size(name, default):
    """Return a variable that is a size, in bytes."""
    value = get(name, default)
    match = re.fullmatch(r"(\d+)([KMGT]?)", value)
    if not match or int(match[1]) == 0:
        raise BadSetting(f"{name}={value}: use a size, like {default}")
    return int(match[1]) << {"": 0, "K": 10, "M": 20, "G": 30, "T": 40}[match[2]]


def arch():
    """Return the architecture of the guests."""
    return choice("ARCH", "x86_64", ("x86_64",))


def qemu():
    """Return which QEMU is run."""
    return get("QEMU", "qemu-system-x86_64")


def out(name):
    """Return the directory of one kernel's build outputs."""
    return Path(get("O", str(BUILD))).expanduser().resolve() / name


def cache():
    """Return the directory that outlives the checkout."""
    base = get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "virtio-pmem-rust"


def ccache():
    """Return the environment in which ccache shares objects among checkouts, within bounds."""
    return {
        "CCACHE_DIR": str(cache() / "ccache"),
        "CCACHE_MAXSIZE": "2G",
        "CCACHE_BASEDIR": str(ROOT),
        "CCACHE_NOHASHDIR": "1",
    }
