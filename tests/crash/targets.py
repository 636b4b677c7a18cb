# SPDX-License-Identifier: GPL-2.0
"""The disks on which workloads run: a file system, or none, on one device or over two."""

from dataclasses import dataclass

from machine import MIB
from striped import mapper, members, raid0

import file_systems

# More for mkfs: small images, and no work later.
FORMAT = {"ext4": "-J size=4 -E nodiscard,lazy_itable_init=0,lazy_journal_init=0", "xfs": "-K"}

CHUNK = 64 << 10


@dataclass(frozen=True)
class Target:
    """A disk.

    fs     of it, or None
    stack  what it is: None for the device itself, "md" or "dm" over two, "btt"
    """
    fs: str | None
    options: str = ""
    stack: str | None = None

    def __str__(self):
        return "-".join(filter(None, (self.stack, self.fs or "raw", self.options[3:])))

    @property
    def share(self):
        """The share of images that are checked: BTT flushes four times for each sector."""
        return 0.1 if self.stack == "btt" else 1

    @property
    def sizes(self):
        """The sizes of its devices."""
        return (32 * MIB,) * 2 if self.stack in ("md", "dm") else (64 * MIB,)

    def make(self, machine):
        """Make the disk for the first time; return its name."""
        if self.stack == "btt":
            machine.sh("ndctl create-namespace -f -e namespace0.0 --mode=sector >/dev/null 2>&1")
            machine.until("[ -b /dev/pmem0s ]")
        disk = self.assemble(machine)
        if self.fs:
            machine.sh(f"{file_systems.MAKE[self.fs]} {FORMAT[self.fs]} /dev/{disk}")
            machine.sh(f"mount {self.options} /dev/{disk} /mnt")
        return disk

    def assemble(self, machine):
        """Return the disk's name; one over two devices lives as long as the guest."""
        disks = members(machine) if self.stack != "btt" else ["pmem0s"]
        if self.stack == "md":
            return raid0(machine, disks, self.sizes[0], CHUNK)
        if self.stack == "dm":
            return mapper(machine, disks, self.sizes[0], CHUNK)
        return disks[0]

    def attach(self):
        """Return the command after which the disk has what the host has put into its devices."""
        return """
            ndctl enable-namespace namespace0.0 >/dev/null 2>&1 || true
            tries=0
            while [ ! -b /dev/pmem0s ] && [ $tries -lt 1000 ]; do
                tries=$((tries + 1))
                usleep 10000
            done
        """ if self.stack == "btt" else ""

    def detach(self):
        """Return the command after which the host may do so."""
        command = "ndctl disable-namespace namespace0.0 >/dev/null 2>&1"
        return f"cd /; umount /mnt 2>/dev/null || true; {command if self.stack == 'btt' else ''}"

    def look(self, disk, folders):
        """Return the command that prints what is in folders; there must be nothing to repair."""
        return f"""
            {self.attach()}
            mount {self.options} /dev/{disk} /mnt
            cd /mnt
            runner look {' '.join(folders)}
            cd /
            umount /mnt
            {file_systems.check(self.fs, disk)}
        """


RAW = Target(None)
FILE_SYSTEMS = (
    *(Target(fs, options) for fs in FORMAT for options in ("", "-o dax")),
    *(Target(fs, stack=stack) for stack in ("md", "dm") for fs in FORMAT),
    Target("ext4", stack="btt"),
    Target("xfs", stack="btt"),
)
