# SPDX-License-Identifier: GPL-2.0
"""What a guest offers for a user's own tests: disks, a shared directory, modules, namespaces."""

from machine import MIB, dsync

from guest import Disk

OLD, NEW = 0xee, 0x5a


def check_pages(path, pattern):
    """Check that a file begins with pages of this pattern."""
    with open(path, "rb") as file:
        assert file.read(16384) == bytes([pattern]) * 16384, path


def test_disks_and_share(boot, folder):
    """Pmem and virtio-blk disks, with and without snapshot, and a directory work together."""
    sizes = {"pmem1": 96 * MIB, "blk0": 16 * MIB, "blk1": 32 * MIB}
    for name, size in sizes.items():
        with open(folder / name, "wb") as file:
            file.write(bytes([OLD]) * 16384)
            file.truncate(size)
    share = folder / "a,b"
    share.mkdir()
    (share / "in").write_text("from the host")
    blk = [Disk(folder / "blk0"), Disk(folder / "blk1", snapshot=True)]
    machine = boot(sizes=(64 * MIB,), blk=blk, share=share)
    machine.pmem.append(Disk(folder / "pmem1", snapshot=True))
    with machine:
        disks = [*map(machine.disk, machine.devices_found()), "vda", "vdb"]
        for disk, size in zip(disks, (64 * MIB, *sizes.values()), strict=True):
            assert int(machine.sh(f"blockdev --getsize64 /dev/{disk}")) == size
            machine.sh(dsync(disk, 4, pattern=NEW))
            machine.sh("echo 3 >/proc/sys/vm/drop_caches")
            assert machine.sh(f"hexdump -n 1 -e '\"%d\"' /dev/{disk}") == str(NEW)
        assert machine.sh("cat /share/in") == "from the host"
        machine.sh("mkdir /share/new; dmesg >/share/new/dmesg; chown 1:1 /share/new/dmesg; sync")
        machine.check_errors()
        machine.check()
        machine.kill()
    for name, pattern in {"pmem0": NEW, "pmem1": OLD, "blk0": NEW, "blk1": OLD}.items():
        check_pages(folder / name, pattern)
    assert "Linux version" in (share / "new/dmesg").read_text()


def test_kernel_and_paths(boot, tmp_path):
    """Programs in /usr/bin, loop, dm-flakey, dm-log-writes, ACLs and user namespaces work."""
    program = tmp_path / "program"
    program.write_text("#!/bin/sh\necho started\n")
    program.chmod(0o755)
    with boot(sizes=(64 * MIB, 64 * MIB), files={"/usr/bin/program": program}) as machine:
        a, b = map(machine.disk, machine.devices_found())
        assert machine.sh("program") == "started"
        machine.sh(f"""
            dmsetup create --noudevsync flakey --table '0 65536 flakey /dev/{a} 0 3600 0'
            dmsetup create --noudevsync log --table '0 65536 log-writes /dev/dm-0 /dev/{b}'
            mkfs.ext4 -q -b 4096 /dev/dm-1
            mount -o acl /dev/dm-1 /mnt
        """)
        machine.sh("""
            modprobe loop
            dd if=/dev/zero of=/mnt/image bs=1M count=4 2>/dev/null
            device=$(losetup -f)
            losetup $device /mnt/image
            mkfs.ext4 -q $device
            losetup -d $device
            umount /mnt
            dmsetup remove --noudevsync log
            dmsetup remove --noudevsync flakey
        """)
        assert machine.sh("unshare -U -r id -u") == "0"
        machine.check_errors()
