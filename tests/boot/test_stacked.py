# SPDX-License-Identifier: GPL-2.0
"""Disks over several devices: the members flush at the same time, and no data is lost."""

import pytest
from machine import MIB, shared_by_both, shared_by_rust
from striped import mapper, members, raid0, remove, stop

COUNT = 4
MACHINE = {"sizes": (96 * MIB,) * COUNT}

STACKS = {"md": raid0, "dm": mapper}
ENDS = {"md": stop, "dm": remove}


def build(machine, kind):
    """Make one striped disk over all devices; return its name."""
    return STACKS[kind](machine, members(machine), 64 * MIB, 64 << 10)


@pytest.fixture(name="stack", params=STACKS)
def make_stack(request, machine):
    """A striped disk, as (machine, its name)."""
    disk = build(machine, request.param)
    yield machine, disk
    machine.host.plan("pass")
    ENDS[request.param](machine)


def begun(machine):
    """Return how many flushes of each member have reached the host."""
    return [machine.host.begun(disk) for disk in machine.pmem]


@shared_by_both
def test_members_flush_together(stack):
    """An fsync reaches the files of all members before the host has answered one flush."""
    machine, disk = stack
    before = begun(machine)
    machine.host.plan("hang")
    machine.later("fsync", f"xfs_io -c fsync /dev/{disk}")
    machine.host.wait_begun(sum(before) + COUNT)
    machine.sh("sleep 1")
    assert begun(machine) == [count + 1 for count in before]
    assert not machine.done("fsync")
    machine.host.plan("pass")
    status, output = machine.join("fsync")
    assert status == 0, output


@shared_by_rust
def test_fsync_is_a_bio(machine):
    """A flush without data does not sleep in the driver: it arrives as a bio."""
    disk = members(machine)[0]
    machine.sh("""
        cd /sys/kernel/tracing
        echo >trace
        echo 1 >events/virtio_pmem/virtio_pmem_arrive/enable
    """)
    machine.sh(f"xfs_io -c fsync /dev/{disk}")
    text = machine.sh("""
        cd /sys/kernel/tracing
        echo 0 >events/virtio_pmem/virtio_pmem_arrive/enable
        cat trace
    """)
    assert [line.split()[-1] for line in text.splitlines() if "arrive:" in line] == ["bio"]


@shared_by_both
def test_failure_of_a_flush(machine):
    """A flush that the host fails fails the fsync, of a disk and of a disk over it."""
    stack = build(machine, "dm")
    machine.host.plan("fail")
    for disk in (members(machine)[0], stack):
        assert "Input/output error" in machine.run(f"xfs_io -c fsync /dev/{disk} 2>&1").output
    machine.host.plan("pass")
    machine.sh(f"xfs_io -c fsync /dev/{stack}")
    remove(machine)


@shared_by_both
def test_file_system(stack):
    """A file system on all members keeps its synced data on a slow host."""
    machine, disk = stack
    machine.host.plan("delay 2")
    machine.sh(f"""
        mkfs.ext4 -q -b 4096 /dev/{disk}
        mount /dev/{disk} /mnt
        fio --name=writer --directory=/mnt --numjobs=4 --size=256k --bs=4k --rw=randwrite \\
            --ioengine=psync --fsync=1 --verify=crc32c --verify_fatal=1 --group_reporting
        umount /mnt
        e2fsck -fn /dev/{disk} >/dev/null 2>&1
    """)
    machine.check_errors()
