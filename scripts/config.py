# SPDX-License-Identifier: GPL-2.0
"""Merge configuration fragments into tinyconfig, and check that each option was taken."""

import os
import re

import settings
import steps

# The fragments of each kernel; a later one adds to the earlier.
FRAGMENTS = {
    "release": ("release", "{arch}"),
    "debug": ("release", "{arch}", "debug"),
    "clippy": ("release", "{arch}", "clippy"),
}


def options(text):
    """Return the options that a configuration sets, as {name: value}; n for those not set."""
    found = {}
    for line in text.splitlines():
        line = line.strip()
        if match := re.fullmatch(r"(CONFIG_\w+)=(.*)", line):
            found[match[1]] = match[2]
        elif match := re.fullmatch(r"# (CONFIG_\w+) is not set", line):
            found[match[1]] = "n"
        elif line and not line.startswith("#"):
            raise steps.Trouble(f"not a line of a configuration: {line}")
    return found


def refused(wanted, merged):
    """List the options that the merge did not take, with their actual values."""
    return [
        f"{name}={value} (is {merged.get(name, 'n')})"
        for name, value in wanted.items() if merged.get(name, "n") != value
    ]


def fragments(kernel):
    """Return the text of a kernel's fragments, in order."""
    folder = settings.TESTS / "configs"
    return "\n".join((folder / f"{part.format(arch=settings.arch())}.config").read_text()
                     for part in FRAGMENTS[kernel])


def merge(kernel, out, make):
    """Write a kernel's configuration; an unchanged file keeps its time stamp.

    kbuild compares the stamp with that of auto.conf. Where there is none yet, kconfig writes that
    of tinyconfig, which must be older than the configuration.
    """
    log = steps.log_path(f"config-{kernel}")
    path, wanted = out / ".config", fragments(kernel)
    built = path.exists() and (out / "include/config/auto.conf").exists()
    old = path.read_bytes() if built else None
    stamp = path.stat() if built else None
    steps.run([*make, "tinyconfig"], log)
    with open(path, "a", encoding="utf-8") as config:
        config.write(wanted)
    steps.run([*make, "olddefconfig"], log, append=True)
    failed = refused(options(wanted), options(path.read_text(encoding="utf-8")))
    if failed:
        names = "\n    ".join(failed)
        raise steps.Trouble(f"the configuration {kernel} did not take:\n    {names}\nlog: {log}")
    if old == path.read_bytes():
        os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
