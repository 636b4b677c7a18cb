# SPDX-License-Identifier: GPL-2.0
"""Flushes: who asks for one gets one, and waits until the host has answered."""

import pytest
from machine import aio, dsync, shared_by_both, shared_by_rust


def deep_flush(machine, device):
    """Return the attribute that has a device's region flushed when 1 is written to it."""
    return machine.sh(f"ls {device.path}/ndbus*/region*/deep_flush")


@shared_by_both
def test_no_needless_flush(machine):
    """Writes that ask for no durability cost no flush."""
    disk = machine.disk(machine.device())
    machine.sh(f"xfs_io -c fsync /dev/{disk}")
    before = machine.host.begun()
    machine.sh(f"xfs_io -d -c 'pwrite -q -b 4k 0 128k' /dev/{disk}")
    assert machine.host.begun() == before


@shared_by_both
def test_fsync(machine):
    """An fsync of the disk is one flush: a bio without data, which is handed over."""
    disk = machine.disk(machine.device())
    before = machine.host.ended()
    for count in range(1, 4):
        machine.sh(f"xfs_io -c fsync /dev/{disk}")
        assert machine.host.ended() == before + count


@shared_by_both
def test_deep_flush(machine):
    """The region's own attribute is one flush: the path of callers that sleep."""
    device = machine.device()
    machine.disk(device)
    before = machine.host.ended()
    for count in range(1, 4):
        machine.sh(f"echo 1 >{deep_flush(machine, device)}")
        assert machine.host.ended() == before + count


@shared_by_both
@pytest.mark.parametrize("depth", [1, 16])
def test_fua(machine, depth):
    """Forced unit access reaches the host: the path of callers that hand a bio over.

    One at a time, each costs a flush. Many at a time may share, but somebody has to flush.
    """
    disk = machine.disk(machine.device())
    before = machine.host.ended()
    machine.sh(aio(disk, "128k", depth))
    flushes = machine.host.ended() - before
    assert flushes >= 32 if depth == 1 else flushes >= 2


@shared_by_both
def test_waits_for_the_host(machine):
    """No kind of caller returns before the host has answered a flush."""
    device = machine.device()
    disk = machine.disk(device)
    commands = {
        "sleeper": f"echo 1 >{deep_flush(machine, device)}",
        "fsync": f"xfs_io -c fsync /dev/{disk}",
        "fua": aio(disk, "64k"),
        "both": dsync(disk, 1),
    }
    for name, command in commands.items():
        before = machine.host.begun()
        machine.host.plan("hang")
        machine.later(name, command)
        machine.host.wait_begun(before + 1)
        machine.sh("sleep 1")
        assert not machine.done(name), f"{name} has not waited"
        machine.host.plan("pass")
        status, output = machine.join(name)
        assert status == 0, output


@shared_by_rust
def test_callers_share(machine):
    """Callers that come while a flush is in flight wait for another one, and share it.

    It does not matter whether they sleep or hand a bio over.
    """
    device = machine.device()
    disk = machine.disk(device)
    commands = (f"xfs_io -c fsync /dev/{disk}", f"echo 1 >{deep_flush(machine, device)}")
    before, callers = machine.host.begun(), machine.stats(device)["callers"]
    machine.host.plan("hang")
    machine.later("first", f"xfs_io -c fsync /dev/{disk}")
    machine.host.wait_begun(before + 1)
    for index in range(8):
        machine.later(f"caller{index}", commands[index % 2])
    machine.wait_stat(device, "callers", callers + 9)
    assert machine.host.begun() == before + 1
    machine.host.plan("pass")
    for name in ("first", *(f"caller{index}" for index in range(8))):
        status, output = machine.join(name)
        assert status == 0, output
    # None was satisfied by the flush that had begun before it came; all by the same one after it.
    assert machine.host.begun() == before + 2


@shared_by_both
def test_16_writers(machine):
    """16 writers with fsync after each write, in one file system, find what they have written."""
    disk = machine.disk(machine.device())
    before = machine.host.ended()
    machine.sh(f"""
        mkfs.ext4 -q -b 4096 /dev/{disk}
        mount /dev/{disk} /mnt
        fio --name=writer --directory=/mnt --numjobs=16 --size=128k --bs=4k --rw=randwrite \\
            --ioengine=psync --fsync=1 --verify=crc32c --verify_fatal=1 --group_reporting
        umount /mnt
        e2fsck -fn /dev/{disk} >/dev/null 2>&1
    """)
    # Callers may share a flush, but not all the same.
    assert machine.host.ended() - before >= 32
    machine.check_errors()


@shared_by_both
def test_16_raw_writers(machine):
    """16 writers with O_SYNC on the disk itself: both kinds of callers at once."""
    disk = machine.disk(machine.device())
    machine.sh(f"""
        fio --name=raw --filename=/dev/{disk} --numjobs=16 --size=128k --offset_increment=128k \\
            --bs=4k --rw=randwrite --direct=1 --ioengine=psync --sync=1 --verify=crc32c \\
            --verify_fatal=1 --group_reporting
    """)
    machine.check_errors()
