# SPDX-License-Identifier: GPL-2.0
"""Taking the driver from a device in good order, and giving it back."""

import pytest
from machine import DRIVERS, dsync

pytestmark = pytest.mark.parametrize("shared", list(DRIVERS), indirect=True)


def test_rebind_20_times(machine):
    """Unbound and bound again, a device has the same disk, which works, each time."""
    device = machine.device()
    disk = machine.disk(device)
    size = machine.sh(f"blockdev --getsize64 /dev/{disk}")
    for turn in range(20):
        machine.write(disk, 2, pattern=turn + 1)
        machine.unbind(device)
        assert machine.bound(device) == "none"
        assert machine.run("ls /sys/block | grep pmem").status != 0
        disk = machine.bind(device)
        assert machine.sh(f"blockdev --getsize64 /dev/{disk}") == size
        byte = machine.sh(f"hexdump -n 1 -e '\"%d\"' /dev/{disk}")
        assert int(byte) == turn + 1
    assert machine.errors() == []


@pytest.mark.parametrize("fs, make, check", [
    ("ext4", "mkfs.ext4 -q -b 4096", "e2fsck -fn"),
    ("xfs", "mkfs.xfs -q -f", "xfs_repair -n"),
])
def test_mounted_and_dirty(machine, fs, make, check):
    """What was synced before an orderly unbind is there after it, in a consistent file system.

    Mounted without DAX. What nobody has synced is written back by the block layer while the
    device still works: it is there, too.
    """
    device = machine.device()
    disk = machine.disk(device)
    machine.sh(f"""
        {make} /dev/{disk}
        mount -t {fs} /dev/{disk} /mnt
        cd /mnt
        dd if=/dev/urandom of=fsynced bs=64k count=16 conv=fsync 2>/dev/null
        dd if=/dev/urandom of=synced bs=64k count=16 2>/dev/null
        sync
        dd if=/dev/urandom of=dirty bs=64k count=16 2>/dev/null
        sha256sum fsynced synced dirty >/tmp/sums
    """)
    machine.unbind(device)
    errors = machine.errors()
    assert [line for line in errors if DRIVERS[machine.driver] in line] == []
    machine.sh("umount /mnt")
    disk = machine.bind(device)
    machine.sh(f"""
        mount -t {fs} /dev/{disk} /mnt
        cd /mnt
        sha256sum -c /tmp/sums
        cd /
        umount /mnt
        {check} /dev/{disk} >/tmp/check 2>&1 || {{ cat /tmp/check; exit 1; }}
    """)


def test_under_load(machine):
    """Writers that are at it when the device is unbound end with an error; nobody hangs."""
    device = machine.device()
    disk = machine.disk(device)
    for _ in range(3):
        for index in range(4):
            machine.later(f"writer{index}", f"""
                while {dsync(disk, 16, index * 16)}; do :; done
            """)
        machine.host.wait_begun(machine.host.begun() + 20)
        assert machine.unbind(device) < 20
        for index in range(4):
            machine.join(f"writer{index}")
        assert [line for line in machine.errors() if DRIVERS[machine.driver] in line] == []
        disk = machine.bind(device)
        machine.write(disk, 4)


def test_slow_host(machine):
    """A host that takes seconds for a flush delays an unbind; it does not fail the writer."""
    device = machine.device()
    disk = machine.disk(device)
    begun = machine.host.begun()
    machine.host.plan("delay 3000")
    # One page, one write: its FUA flush is with the host when the unbind begins.
    machine.later("writer", f"xfs_io -d -c 'pwrite -q 0 4k' -c fsync /dev/{disk}")
    machine.host.wait_begun(begun + 1)
    assert machine.unbind(device) < 30
    status, output = machine.join("writer")
    assert status == 0, output
    machine.host.plan("pass")
    assert [line for line in machine.errors() if DRIVERS[machine.driver] in line] == []
    disk = machine.bind(device)
    machine.write(disk, 4)
