# SPDX-License-Identifier: GPL-2.0
"""Many devices, and a large one."""

from machine import DRIVERS, MIB, aio, dsync

GIB = 1024 * MIB


def test_eight_devices(boot):
    """Eight devices work at the same time, each with its own flushes and data."""
    count = 8
    with boot(sizes=(32 * MIB,) * count) as machine:
        devices = machine.devices_found()
        disks = [machine.disk(device) for device in devices]
        assert [machine.bound(device) for device in devices] == [DRIVERS["rust"]] * count
        assert len(set(disks)) == count
        before = [machine.host.ended(disk) for disk in machine.pmem]
        for index, disk in enumerate(disks):
            machine.later(disk, aio(disk, "256k", more="--verify=crc32c --verify_fatal=1")
                          + " && " + dsync(disk, 16, 1024, pattern=index + 1))
        for disk in disks:
            status, output = machine.join(disk)
            assert status == 0, output
        for old, disk in zip(before, machine.pmem, strict=True):
            # The 16 pages of dsync() are written one by one.
            assert machine.host.ended(disk) - old >= 16
        machine.check_errors()
        machine.check()
        machine.kill()
        for index, disk in enumerate(machine.pmem):
            with open(disk.path, "rb") as file:
                file.seek(1024 * 4096)
                assert file.read(16 * 4096) == bytes([index + 1]) * (16 * 4096)


def test_64_gib(boot):
    """A device of 64 GiB can be written up to its last page, and keeps a file system."""
    size = 64 * GIB
    # Its page structures need a gigabyte.
    with boot(sizes=(size,), memory=2 * GIB) as machine:
        disk = machine.disk(machine.device())
        assert int(machine.sh(f"blockdev --getsize64 /dev/{disk}")) == size
        before = machine.host.ended()
        for page in (0, size // 4096 - 1):
            machine.write(disk, 1, page, pattern=0x64)
        assert machine.host.ended() >= before + 2
        with open(machine.pmem[0].path, "rb") as file:
            for start in (0, size - 4096):
                file.seek(start)
                assert file.read(4096) == b"\x64" * 4096
        machine.sh(f"""
            mkfs.xfs -q -f /dev/{disk}
            mount /dev/{disk} /mnt
            dd if=/dev/urandom of=/mnt/file bs=64k count=32 conv=fsync 2>/dev/null
            sum=$(sha256sum </mnt/file)
            umount /mnt
            mount /dev/{disk} /mnt
            [ "$(sha256sum </mnt/file)" = "$sum" ]
            umount /mnt
        """)
        machine.check_errors()
