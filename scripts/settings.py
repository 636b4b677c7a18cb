# SPDX-License-Identifier: GPL-2.0
"""The variables that make takes, and where things are."""

import dataclasses
import os
import re
import textwrap
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "build"
LOGS = BUILD / "logs"
TESTS = ROOT / "tests"

# Those of the kernel's make that are handed on to it.
TOOLS = ("LLVM", "RUSTC", "RUSTDOC", "RUSTFMT", "CLIPPY_DRIVER", "BINDGEN", "RUST_LIB_SRC")


@dataclasses.dataclass(frozen=True)
class Variable:
    """A variable of make: how to write its value, what it is for, and its default.

    choices  the words that it takes, if they are few
    """
    form: str
    help: str
    default: str = ""
    choices: tuple = ()


VARIABLES = {
    "KDIR": Variable("DIR", "kernel source; by default Debian's is fetched and verified"),
    "FORCE": Variable("1", "apply to a git tree with uncommitted changes"),
    "LINK": Variable("1", "apply links new files: an edit in the kernel tree is an edit here"),
    "O": Variable("DIR", "where kernels are built (build)"),
    "ARCH": Variable("x86_64|arm64", "the guests' architecture (x86_64)", "x86_64",
                     ("x86_64", "arm64")),
    "LLVM": Variable("1|-19|DIR/", "the toolchain, as for the kernel's make: by default it is "
                     "searched for"),
    **{name: Variable("PROGRAM", f"… its {name.lower().replace('_', '-')}")
       for name in TOOLS[1:-1]},
    "RUST_LIB_SRC": Variable("DIR", "… the sources of Rust's library"),
    "NO_INSTALL": Variable("1", "name missing packages, install nothing"),
    "KERNEL": Variable("release|debug|debian", "which kernel to build and boot (release); debian: "
                       "Debian's own, and the driver as a module", "release",
                       ("release", "debug", "debian")),
    "KERNEL_RELEASE": Variable("RELEASE", "module: the kernel (the running one), like "
                               "7.3.4+deb13-amd64"),
    "DRIVER": Variable("rust|c|none", "which driver the guest loads (rust)", "rust",
                       ("rust", "c", "none")),
    "MEM": Variable("1G", "the guest's memory", "1G"),
    "SMP": Variable("2", "the guest's processors", "2"),
    "PMEM_SIZE": Variable("512M", "the size of the guest's virtio-pmem device", "512M"),
    "PMEM": Variable("'FILE FILE:SIZE :SIZE'", "the guest's virtio-pmem devices: existing files; "
                     "files that are created; temporary ones"),
    "BLK": Variable("'...'", "virtio-blk devices, in the same form"),
    "SNAPSHOT": Variable("1", "discard the guest's writes to these files when it ends"),
    "SHARE": Variable("DIR", "a directory that the guest has on /share"),
    "LOGS": Variable("DIR", "where the logs of the guest's console and of QEMU go (build/logs)"),
    "QEMU_ARGS": Variable("'...'", "more arguments for QEMU"),
    "QEMU": Variable("PROGRAM|11.1", "which QEMU (the system's), or its version in Debian 13 or in "
                     "backports: it is fetched, and runs beside the system's"),
    "ACCEL": Variable("kvm|tcg", "the accelerator; by default KVM if a guest really runs, else TCG",
                      "", ("kvm", "tcg")),
    "TIMEOUT": Variable("SECONDS", "after which the guest is killed (600; debug kernel: 1800; "
                        "shell: a day); xfstests: for each case (900)"),
    "RUN": Variable("'COMMAND LINE'", "what make guest runs"),
    "SCRIPT": Variable("FILE", "a shell script that make guest runs"),
    "ONLY": Variable("'PATTERN'", "which KUnit suites run, or which of their cases: "
                     "'virtio_pmem_late.*'; which files make mutants changes: '*/engine.rs'; "
                     "xfstests: which cases of its list"),
    "LIMIT": Variable("NUMBER", "mutants, xfstests: how many, chosen by SEED (all)"),
    "MINUTES": Variable("NUMBER", "mutants, xfstests: after how long no further one is begun"),
    "XFSTESTS": Variable("DIR|ARCHIVE", "a checkout or an archive of xfstests"),
    "GROUP": Variable("quick", "xfstests: all cases of this group, and not the list; the next run "
                      "does what is left"),
    "LONG": Variable("1", "run the long tests, too, and all on both kernels; the randomized tests "
                     "run longer"),
    "SEED": Variable("NUMBER", "repeats a randomized test, whose name or log has the number"),
    "QUICK": Variable("1", "bench: short, with rough figures; lint: without clippy"),
    "CHECK": Variable("1", "bench fails when it clearly misses a target; series builds each "
                      "commit"),
    "JOBS": Variable("'1 64'", "bench: numbers of fio's jobs"),
    "DELAYS": Variable("'0 2 10'", "bench: by how many milliseconds a host's fsync takes longer",
                       "0 2 10"),
    "HERD7": Variable("PROGRAM", "litmus: herdtools7's simulator (herd7)", "herd7"),
    "ROUNDS": Variable("3", "bench: how often it measures", "3"),
}


class BadSetting(ValueError):
    """A variable has a value that cannot be used."""


def get(name):
    """Return a variable as it was given, or its default; an empty one counts as not given."""
    return os.environ.get(name) or VARIABLES[name].default


def choice(name, choices=()):
    """Return a variable that is one of a few words: of its own, or of fewer choices."""
    value, choices = get(name), choices or VARIABLES[name].choices
    if value and value not in choices:
        raise BadSetting(f"{name}={value}: use one of {', '.join(choices)}")
    return value


def flag(name):
    """Return whether a variable is 1; 0 counts as not given."""
    value = get(name)
    if value not in ("", "0", "1"):
        raise BadSetting(f"{name}={value}: use one of 0, 1")
    return value == "1"


def number(name):
    """Return a variable that is a positive number, or None when it has no value."""
    value = get(name)
    if value and (not value.isdecimal() or int(value) == 0):
        raise BadSetting(f"{name}={value}: use a positive number")
    return int(value) if value else None


def size(name):
    """Return a variable that is a size, in bytes."""
    return in_bytes(name, get(name), VARIABLES[name].default)


def in_bytes(name, text, example="512M"):
    """Return a size that stands in a variable, in bytes."""
    match = re.fullmatch(r"(\d+)([KMGT]?)", text)
    if not match or int(match[1]) == 0:
        raise BadSetting(f"{name}={text}: use a size, like {example}")
    return int(match[1]) << {"": 0, "K": 10, "M": 20, "G": 30, "T": 40}[match[2]]


def arch():
    """Return the architecture of the guests."""
    return choice("ARCH")


def out(name):
    """Return the directory of one kernel's build outputs."""
    return Path(get("O") or BUILD).expanduser().resolve() / name


def cache():
    """Return the directory that outlives the checkout."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "virtio-pmem-rust"


def ccache():
    """Return the environment in which ccache shares objects among checkouts, within bounds."""
    return {
        "CCACHE_DIR": str(cache() / "ccache"),
        "CCACHE_MAXSIZE": "2G",
        "CCACHE_BASEDIR": str(ROOT),
        "CCACHE_NOHASHDIR": "1",
    }


def main():
    """Print the variables, for make help."""
    lines = {f"{name}={variable.form}": variable.help for name, variable in VARIABLES.items()}
    lines["XDG_CACHE_HOME=DIR"] = ("virtio-pmem-rust/ there keeps the kernel's source, finished "
                                   "kernels and ccache's objects (~/.cache)")
    print("\nVariables (make TARGET NAME=value):")
    for form, words in lines.items():
        print(textwrap.fill(words, 96, initial_indent=f"  {form:21} ",
                            subsequent_indent=" " * 24))


if __name__ == "__main__":
    main()
