# SPDX-License-Identifier: GPL-2.0
"""Flushes: a caller that requests one gets one, and waits until the host has answered."""

import pytest
from machine import aio, dsync, shared_by_both, shared_by_rust


def deep_flush(machine, device):
    """Return the attribute of a device's region that flushes it when 1 is written."""
    return machine.sh(f"ls {device.path}/ndbus*/region*/deep_flush")


@shared_by_both
def test_no_needless_flush(machine):
    """Writes that request no durability cause no flush."""
    disk = machine.disk(machine.device())
    machine.sh(f"xfs_io -c fsync /dev/{disk}")
    before = machine.host.begun()
    machine.sh(f"xfs_io -d -c 'pwrite -q -b 4k 0 128k' /dev/{disk}")
    assert machine.host.begun() == before


@shared_by_both
def test_fsync(machine):
    """An fsync of the disk is one flush: a bio without data, completed asynchronously."""
    disk = machine.disk(machine.device())
    before = machine.host.ended()
    for count in range(1, 4):
        machine.sh(f"xfs_io -c fsync /dev/{disk}")
        assert machine.host.ended() == before + count


@shared_by_both
def test_deep_flush(machine):
    """A write to the region's attribute is one flush: the path of callers that sleep."""
    device = machine.device()
    machine.disk(device)
    before = machine.host.ended()
    for count in range(1, 4):
        machine.sh(f"echo 1 >{deep_flush(machine, device)}")
        assert machine.host.ended() == before + count


@shared_by_both
@pytest.mark.parametrize("depth", [1, 16])
def test_fua(machine, depth):
    """Forced unit access reaches the host: the path of callers that submit a bio.

    One at a time, each causes a flush. Many at a time may share flushes.
    """
    disk = machine.disk(machine.device())
    before = machine.host.ended()
    machine.sh(aio(disk, "128k", depth))
    flushes = machine.host.ended() - before
    assert flushes >= 32 if depth == 1 else flushes >= 2


@shared_by_both
def test_waits_for_the_host(machine):
    """No caller of any kind returns before the host has answered a flush."""
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
        assert not machine.done(name), f"{name} did not wait"
        machine.host.plan("pass")
        status, output = machine.join(name)
        assert status == 0, output


@shared_by_rust
def test_callers_share(machine):
    """Callers that arrive while a flush is in flight wait for the next one, and share it.

    It does not matter whether they sleep or submit a bio.
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
    # The flush in flight has served none of the later callers; one flush after it served all.
    assert machine.host.begun() == before + 2


@shared_by_both
def test_16_writers(machine):
    """16 writers in one file system, with fsync after each write, verify their data."""
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
    # Callers may share flushes, but not a single one.
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
