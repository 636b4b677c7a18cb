# SPDX-License-Identifier: GPL-2.0
"""A device that read_only names: root of the guest cannot change the host's file.

The driver in C has no such parameter. With it each of these attacks changes the file, which shows
that the attacks are real.
"""

import hashlib
import re
import subprocess

import pytest
from machine import MIB, dsync, shared_by_both, shared_by_rust

SIZE = 64 * MIB
MACHINE = {"append": "virtio_pmem_rust.read_only=all", "sizes": (SIZE,)}

# Writes through a file system with DAX, mounted on /mnt, and ends that mount.
DAX = """
    xfs_io -c 'mmap -rw 0 4k' -c 'mwrite -S 0x5a 0 4k' -c 'msync -s 0 4k' /mnt/file
    status=$?
    umount /mnt
    exit $status
"""

# Each exits with an error if it has been refused.
ATTACKS = {
    "write": "dd if=/dev/urandom of=/dev/DISK bs=4k count=1 conv=notrunc,fsync",
    "direct write": "xfs_io -d -c 'pwrite 0 4k' /dev/DISK",
    "durable write": dsync("DISK", 1),
    "write of zeroes": "xfs_io -c 'fzero 0 64k' -c fsync /dev/DISK",
    "mapping": "xfs_io -c 'mmap -rw 0 4k' -c 'mwrite 0 4k' -c 'msync -s 0 4k' /dev/DISK",
    "BLKROSET": f"blockdev --setrw /dev/DISK; {dsync('DISK', 1)}",
    "region": f"echo 0 >REGION/read_only; {dsync('DISK', 1)}",
    "mkfs": "mkfs.xfs -q -f -m reflink=0 -d size=64m /dev/DISK || mkfs.ext4 -q -F /dev/DISK",
    "mount": "mount -t ext4 /dev/DISK /mnt; touch /mnt/new; status=$?; umount /mnt; exit $status",
    "remount": f"mount -t ext4 -o ro,dax /dev/DISK /mnt; mount -o remount,rw /mnt; {DAX}",
    "DAX": f"mount -t ext4 -o dax /dev/DISK /mnt; {DAX}",
    "DAX on another disk": f"""
        dmsetup create --noudevsync other --table '0 {SIZE // 512} linear /dev/DISK 0' || exit
        while ! [ -b /dev/dm-0 ]; do usleep 10000; done
        mount -t ext4 -o dax /dev/dm-0 /mnt
        ({DAX})
        status=$?
        dmsetup remove --noudevsync other
        exit $status
    """,
    "loop": f"""
        modprobe loop
        losetup /dev/loop0 /dev/DISK || exit
        {dsync('loop0', 1)}
        status=$?
        losetup -d /dev/loop0
        exit $status
    """,
    "page map": "ndctl create-namespace -f -e namespace0.0 --mode=fsdax",
    "device-dax": "ndctl create-namespace -f -e namespace0.0 --mode=devdax",
    "sectors": "ndctl create-namespace -f -e namespace0.0 --mode=sector",
}


def content(disk):
    """Return the hash of a disk's file."""
    with open(disk.path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def make_image(disk):
    """Fill a disk's file with a file system that holds a file."""
    source = disk.path.with_suffix(".files")
    source.mkdir(exist_ok=True)
    (source / "file").write_bytes(bytes(range(256)) * 4096)
    disk.create()
    subprocess.run(["mkfs.ext4", "-q", "-F", "-b", "4096", "-d", source, disk.path], check=True)


@pytest.fixture
def image(shared):
    """The hash of the disk's file, which is restored if a test has changed it."""
    disk = shared.pmem[0]
    kept = disk.path.with_suffix(".kept")
    if not kept.exists():
        make_image(disk)
        kept.write_bytes(disk.path.read_bytes())
    if shared.alive() and kept.read_bytes() != disk.path.read_bytes():
        # Without a cache of the old content, and without its namespaces.
        device = shared.device()
        shared.unbind(device)
        with open(disk.path, "r+b") as file:
            file.write(kept.read_bytes())
        shared.bind(device)
    return content(disk)


def region(machine):
    """Return the directory of the device's region in sysfs."""
    return machine.sh(f"echo {machine.device().path}/ndbus*/region*")


@shared_by_both
@pytest.mark.parametrize("attack", ATTACKS)
def test_attack(image, machine, attack):
    """An attack is refused, and the file stays as it is; with the driver in C it succeeds."""
    disk = machine.disk(machine.device())
    begun = machine.host.begun()
    script = ATTACKS[attack].replace("DISK", disk).replace("REGION", region(machine))
    result = machine.run(script)
    if machine.driver == "c":
        assert result.status == 0, result.output
        assert content(machine.pmem[0]) != image
        return
    assert result.status != 0, result.output
    assert content(machine.pmem[0]) == image
    assert machine.host.begun() == begun
    # The disk is still there, and can be read.
    assert machine.sh(f"blockdev --getro /dev/{disk}; cat {region(machine)}/read_only") == "1\n1"
    machine.sh(f"cat /dev/{disk} >/dev/null")


@shared_by_rust
def test_no_flush(image, machine):
    """No flush is sent: not for an fsync, deep_flush, a mount, a function reset or an unbind."""
    device = machine.device()
    disk = machine.disk(device)
    begun = machine.host.begun()
    machine.sh(f"xfs_io -r -c fsync /dev/{disk}; sync")
    assert "write error" in machine.fails(f"echo 1 >{region(machine)}/deep_flush")
    machine.sh(f"""
        mount -t ext4 -o ro,dax /dev/{disk} /mnt
        xfs_io -r -c 'mmap -r 0 4k' -c 'mread 0 4k' /mnt/file >/dev/null
        sync
        umount /mnt
        echo 1 >/sys/bus/pci/devices/{device.pci}/reset
        cat /dev/{disk} >/dev/null
    """)
    machine.unbind(device)
    disk = machine.bind(device)
    machine.sh(f"cat /dev/{disk} >/dev/null")
    assert machine.stats(device)["host_flushes"] == 0
    assert machine.host.begun() == begun
    assert content(machine.pmem[0]) == image
    machine.check_errors()


# Where x86 maps all memory, without address space randomization.
DIRECT_MAP = 0xffff888000000000


@shared_by_both
def test_kernel_mapping(image, machine):
    """The kernel's own mapping is read-only, so that its stray stores cannot reach the file."""
    machine.disk(machine.device())
    text = machine.sh("grep 'namespace0.0$' /proc/iomem")
    start = DIRECT_MAP + int(text.partition("-")[0], 16)
    text = machine.qmp("human-monitor-command", {"command-line": "info mem"})
    rights = {rights for first, last, rights in re.findall(r"(\w{16})-(\w{16}) \w+ (\S+)", text)
              if int(first, 16) < start + SIZE and int(last, 16) > start}
    assert rights == {"-r-" if machine.driver == "rust" else "-rw"}
    assert content(machine.pmem[0]) == image


@shared_by_rust
def test_first_moment(image, machine):
    """A program that opens the disk as soon as it appears cannot write to it."""
    device = machine.device()
    disk = machine.disk(device)
    machine.sh("rm -f /tmp/stop")
    machine.later("opener", f"""
        until [ -e /tmp/stop ]; do
            xfs_io -c 'pwrite 0 4k' -c fsync /dev/{disk} && exit 1
        done 2>/dev/null
        true
    """)
    for _ in range(10):
        machine.unbind(device)
        machine.bind(device)
    machine.sh("touch /tmp/stop")
    assert machine.join("opener")[0] == 0
    assert content(machine.pmem[0]) == image


def load(machine, names):
    """Load the driver with this parameter."""
    for device in machine.devices_found():
        if machine.bound(device) != "none":
            machine.unbind(device)
    machine.sh(f"rmmod virtio_pmem_rust; modprobe virtio_pmem_rust read_only={names}")
    for device in machine.devices_found():
        machine.disk(device)


def test_names(boot):
    """Only devices that are named are read-only, by their own name or that of their transport."""
    with boot(sizes=(SIZE, SIZE)) as machine:
        first, second = machine.devices_found()
        for names, named, other in [(first.pci, first, second),
                                    (f"virtio99,{second.virtio}", second, first)]:
            machine.clear_messages()
            load(machine, names)
            assert machine.sh(f"cat /sys/block/{machine.disk(named)}/ro") == "1"
            assert machine.sh(f"cat /sys/block/{machine.disk(other)}/ro") == "0"
            machine.write(machine.disk(other), 1)
            assert f"{other.virtio}: not named by read_only" in machine.sh("dmesg")
        machine.check_errors()


@pytest.mark.parametrize("mode", ["fsdax", "devdax", "sector"])
def test_info_blocks(boot, mode):
    """An info block in the image does not make libnvdimm write to it."""
    with boot(sizes=(SIZE,)) as machine:
        device = machine.device()
        machine.disk(device)
        machine.sh(f"ndctl create-namespace -f -e namespace0.0 --mode={mode} >/dev/null 2>&1")
        machine.unbind(device)
        before = content(machine.pmem[0])
        machine.sh("rmmod virtio_pmem_rust; modprobe virtio_pmem_rust read_only=all")
        machine.wait_console("must not be written")
        machine.sh("ndctl list -NRu; ls /dev/pmem* /dev/dax* || true")
        assert machine.run("ls /dev/pmem* /dev/dax*").status != 0
        machine.unbind(device)
        assert content(machine.pmem[0]) == before
