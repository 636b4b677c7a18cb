# SPDX-License-Identifier: GPL-2.0
"""The commands that make and check the file systems of the tests."""

# Blocks as large as pages, which DAX needs; XFS on disks that are smaller than it supports, too.
MAKE = {"ext4": "mkfs.ext4 -q -F -b 4096", "xfs": "mkfs.xfs -q -f --unsupported"}

CHECK = {"ext4": "e2fsck -fn", "xfs": "xfs_repair -n"}


def check(fs, disk):
    """Return the guest's command that fails if there is something to repair, and prints it."""
    return f"{CHECK[fs]} /dev/{disk} >/tmp/check 2>&1 || {{ cat /tmp/check; exit 1; }}"
