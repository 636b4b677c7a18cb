# SPDX-License-Identifier: GPL-2.0
"""Disks of the device mapper over two devices: their flush is a flush of each member."""

import pytest
from machine import MIB
from striped import mapper, members

SIZE = 256 * MIB


def stripe(machine):
    """Make a striped disk of the two devices."""
    mapper(machine, members(machine), SIZE, 64 << 10)


def mirror(machine):
    """Make a disk that the two devices mirror."""
    parts = " ".join(f"/dev/{disk} 0" for disk in members(machine))
    machine.sh("dmsetup create --noudevsync mirror --table "
               f"'0 {SIZE // 512} mirror core 2 128 nosync 2 {parts}'")
    machine.until("[ -b /dev/dm-0 ]")


def flushes(machine):
    """Return how many flushes of each device the host has answered."""
    return [machine.host.ended(disk) for disk in machine.pmem]


def check_flushes(machine):
    """Check that one fsync flushes both devices before it returns."""
    before = flushes(machine)
    machine.sh("xfs_io -c fsync /dev/dm-0")
    assert all(after > old for after, old in zip(flushes(machine), before, strict=True))


def verify(more=""):
    """Return fio's command to write to the mounted file system; --verify_only reads it."""
    return ("fio --name=verify --directory=/mnt --rw=randwrite --bs=4k --size=256k --numjobs=4 "
            "--thread --ioengine=psync --fsync=4 --verify=crc32c --verify_fatal=1 --do_verify=0 "
            f"--group_reporting {more}")


@pytest.mark.parametrize("fs, options", [("ext4", ""), ("xfs", ""), ("xfs", "-o dax")])
def test_striped(boot, fs, options):
    """A striped disk keeps its files across a power cut, also with DAX."""
    machine = boot(sizes=(SIZE, SIZE))
    machine.host.keep_journal(machine.pmem)
    with machine:
        stripe(machine)
        check_flushes(machine)
        machine.sh(f"""
            mkfs.{fs} -q /dev/dm-0
            mount {options} /dev/dm-0 /mnt
            {verify()}
            sync
        """)
        machine.check()
        machine.kill()
        machine.host.lose_power(machine.pmem)
    with boot(sizes=(SIZE, SIZE)) as machine:
        stripe(machine)
        machine.sh(f"""
            mount {options} /dev/dm-0 /mnt
            {verify("--verify_only")}
            umount /mnt
        """)
        machine.check_errors()


def test_mirrored(boot):
    """Each side of a mirror has the data that was synced before a power cut."""
    machine = boot(sizes=(SIZE, SIZE))
    machine.host.keep_journal(machine.pmem)
    with machine:
        mirror(machine)
        check_flushes(machine)
        machine.sh(f"""
            mkfs.ext4 -q -b 4096 /dev/dm-0
            mount /dev/dm-0 /mnt
            {verify()}
            sync
        """)
        machine.check()
        machine.kill()
        machine.host.lose_power(machine.pmem)
    with boot(sizes=(SIZE, SIZE)) as machine:
        for device in machine.devices_found():
            machine.sh(f"""
                mount /dev/{machine.disk(device)} /mnt
                {verify("--verify_only")}
                umount /mnt
            """)
        machine.check_errors()
