# SPDX-License-Identifier: GPL-2.0
"""Orderly unbinds of the driver, and binds after them."""

import pytest
from machine import DRIVERS, LONG_TIMEOUT, MIB, aio, dsync, shared_by_both, shared_by_rust

from file_systems import MAKE, check

# Large enough for XFS.
MACHINE = {"sizes": (512 * MIB,), "append": LONG_TIMEOUT}


def own_errors(machine):
    """List the driver's own messages of level error and above."""
    return [line for line in machine.errors() if DRIVERS[machine.driver] in line]


@shared_by_both
def test_rebind_20_times(machine):
    """A device that is unbound and bound again has the same disk, which works, each time."""
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
    machine.check_errors()


@pytest.mark.parametrize("fs", MAKE)
@shared_by_rust
def test_mounted_and_dirty(machine, fs):
    """Data that was synced before an orderly unbind is intact, in a consistent file system.

    The mount has no DAX. Dirty data is intact, too: the block layer writes it back while the device
    still works. (The C driver disables flushes first, so its dirty data is lost.)
    """
    device = machine.device()
    disk = machine.disk(device)
    machine.sh(f"""
        {MAKE[fs]} /dev/{disk}
        mount -t {fs} /dev/{disk} /mnt
        cd /mnt
        dd if=/dev/urandom of=fsynced bs=64k count=16 conv=fsync 2>/dev/null
        dd if=/dev/urandom of=synced bs=64k count=16 2>/dev/null
        sync
        dd if=/dev/urandom of=dirty bs=64k count=16 2>/dev/null
        sha256sum fsynced synced dirty >/tmp/sums
    """)
    machine.unbind(device)
    assert own_errors(machine) == []
    machine.sh("umount /mnt")
    disk = machine.bind(device)
    machine.sh(f"""
        mount -t {fs} /dev/{disk} /mnt
        cd /mnt
        sha256sum -c /tmp/sums
        cd /
        umount /mnt
        {check(fs, disk)}
    """)


@shared_by_rust
def test_under_load(machine):
    """Writers of a device that is unbound end with an error; none hangs."""
    device = machine.device()
    disk = machine.disk(device)
    for _ in range(3):
        for index in range(4):
            machine.later(f"writer{index}", f"""
                while {dsync(disk, 16, index * 16)}; do :; done
            """)
        machine.host.wait_begun(machine.host.begun() + 20)
        # The driver's timeout is too long to end them.
        machine.unbind(device)
        for index in range(4):
            machine.join(f"writer{index}")
        assert own_errors(machine) == []
        disk = machine.bind(device)
        machine.write(disk, 4)


@shared_by_rust
def test_slow_host(machine):
    """A host that is slow to answer a flush delays an unbind, but fails neither kind of caller.

    (Under the C driver both get I/O errors.)
    """
    device = machine.device()
    disk = machine.disk(device)
    callers = machine.stats(device)["callers"]
    machine.host.plan("hang")
    machine.later("bios", aio(disk, "16k"))
    machine.later("sleeper", f"xfs_io -c fsync /dev/{disk}")
    machine.wait_stat(device, "callers", callers + 5)
    machine.later("unbind", f"echo {device.virtio} >{device.path}/driver/unbind")
    machine.until_within("unbind_store")
    machine.sh("sleep 1")
    assert not machine.done("unbind")
    machine.host.plan("pass")
    for name in ("bios", "sleeper", "unbind"):
        status, output = machine.join(name)
        assert status == 0, output
    assert own_errors(machine) == []
    disk = machine.bind(device)
    machine.write(disk, 4)
