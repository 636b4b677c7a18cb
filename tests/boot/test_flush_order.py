# SPDX-License-Identifier: GPL-2.0
"""A bio with PREFLUSH and data on a striped disk: no member has the data before all have flushed.

ext4 has its journal on the first member and a file's data on the second one. The bio with the
commit record carries PREFLUSH, for the data of the transaction. The host holds the second
member's flush.
"""

from host import LIMIT
from machine import MIB, both_drivers
from striped import members, raid0

SIZES = (96 * MIB, 96 * MIB)

CHUNK = 16 * MIB

# The bytes on the disk before the file existed, and the bytes that are written to the file.
STALE, FRESH = "ee", "5a"

# The file begins in the first chunk, so this offset is in the second one, on the second member.
OFFSET = CHUNK

WRITE = f"xfs_io -c 'pwrite -q -S 0x{FRESH} {OFFSET} 64k' -c fsync /mnt/file"


def assemble(machine):
    """Make the disk."""
    raid0(machine, members(machine), 4 * CHUNK, CHUNK)


def prepare(machine):
    """Make the disk, and a file with allocated but unwritten blocks of stale content."""
    assemble(machine)
    machine.sh(f"""
        xfs_io -d -c 'pwrite -q -S 0x{STALE} -b 1m {CHUNK} {CHUNK}' -c fsync /dev/md0
        mkfs.ext4 -q -b 4096 -N 64 -J size=4 \\
            -E nodiscard,packed_meta_blocks=1,lazy_itable_init=0,lazy_journal_init=0 /dev/md0
        mount /dev/md0 /mnt
        fallocate -l {OFFSET + 2 * MIB} /mnt/file
        sync
    """)
    # The commit record goes to the first member, with FUA; both members are flushed before.
    before = begun(machine)
    machine.sh(f"xfs_io -c 'pwrite -q -S 0x11 {OFFSET + MIB} 64k' -c fsync /mnt/file")
    first, second = (after - old for after, old in zip(begun(machine), before, strict=True))
    assert first > second > 0


def begun(machine):
    """Return how many flushes of each member have reached the host."""
    return [machine.host.begun(disk) for disk in machine.pmem]


def write_held(machine):
    """Write to the file and sync it; wait until the second member's flush hangs."""
    second = machine.pmem[1]
    before = machine.host.begun(second)
    machine.host.plan("hang", second)
    machine.later("write", WRITE)
    machine.host.wait(lambda: machine.host.begun(second), before + 1, LIMIT)


def content(machine):
    """Return the distinct bytes in the written part of the file."""
    return machine.sh(f"""
        dd if=/mnt/file bs=64k skip={OFFSET >> 16} count=1 2>/dev/null |
            od -An -v -tx1 -w1 | sort -u
    """).split()


@both_drivers
def test_power_cut(boot, driver):
    """A commit record is not durable before the data of its transaction."""
    machine = boot(sizes=SIZES, driver=driver)
    machine.host.keep_journal(machine.pmem)
    with machine:
        prepare(machine)
        write_held(machine)
        # If the commit record is on the first member, this makes it durable.
        machine.sh(f"sleep 1; xfs_io -c fsync /dev/{members(machine)[0]}")
        assert not machine.done("write")
        machine.check()
        machine.kill()
        machine.host.lose_power(machine.pmem)
    with boot(sizes=SIZES, driver=driver) as machine:
        assemble(machine)
        machine.sh("mount /dev/md0 /mnt")
        assert content(machine) == ["00"]
        machine.sh("umount /mnt; e2fsck -fn /dev/md0 >/dev/null 2>&1")
        machine.check_errors()


@both_drivers
def test_suspended(boot, driver):
    """The suspension of an array waits for the flush; the write continues afterwards."""
    with boot(sizes=SIZES, driver=driver) as machine:
        prepare(machine)
        write_held(machine)
        machine.later("suspend", "echo raid0 >/sys/block/md0/md/level")
        machine.sh("sleep 1")
        assert not machine.done("write")
        machine.host.plan("pass")
        for name in ("suspend", "write"):
            status, output = machine.join(name)
            assert status == 0, output
        machine.sh("umount /mnt; mount /dev/md0 /mnt")
        assert content(machine) == [FRESH]
        machine.check_errors()


@both_drivers
def test_failed_flush(boot, driver):
    """If a member fails the flush, the dependent data is not written, and its caller fails."""
    with boot(sizes=SIZES, driver=driver) as machine:
        prepare(machine)
        machine.host.plan("fail", machine.pmem[1])
        machine.fails(WRITE)
        machine.host.plan("pass")
        machine.sh("umount /mnt; mount /dev/md0 /mnt")
        assert content(machine) == ["00"]
