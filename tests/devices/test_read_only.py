# SPDX-License-Identifier: GPL-2.0
"""Hosts whose image is read-only, with the driver's parameter and without it.

The device notes each page that the guest has changed nevertheless, at the latest when it ends.
"""

import hashlib

import pytest
from subject import combinations, wait

HOSTS = combinations(["firecracker", "openvmm"])
READ_ONLY = {"read_only": 1}

WRITE = 'xfs_io -d -s -c "pwrite -q -S 0x5a -b 4k 0 4k" /dev/{disk}'

ATTACKS = (
    "dd if=/dev/urandom of=/dev/{disk} bs=4k count=1 conv=notrunc,fsync",
    WRITE,
    "blockdev --setrw /dev/{disk}; " + WRITE,
    "xfs_io -c 'mmap -rw 0 4k' -c 'mwrite 0 4k' -c 'msync -s 0 4k' /dev/{disk}",
    "mount -t ext4 /dev/{disk} /mnt; touch /mnt/new; status=$?; umount /mnt; exit $status",
    "mount -t ext4 -o ro,dax /dev/{disk} /mnt; mount -o remount,rw /mnt; touch /mnt/new; "
    "status=$?; umount /mnt; exit $status",
    "mkfs.ext4 -q -F /dev/{disk}",
)


@pytest.fixture
def image(make, folder, combination):
    """The hash of an image with a file system, which a writable device has made."""
    with make(*combination, folder, name=f"make-image-{'-'.join(combination)}") as machine:
        machine.sh(f"""
            mkfs.ext4 -q -b 4096 /dev/{machine.disk(machine.device())}
            mount /dev/pmem0 /mnt
            echo content >/mnt/file
            umount /mnt
        """)
        path = machine.served.image
    return hashlib.sha256(path.read_bytes()).hexdigest()


def content(machine):
    """Return the hash of the image."""
    return hashlib.sha256(machine.served.image.read_bytes()).hexdigest()


@pytest.mark.parametrize("combination", HOSTS)
def test_read_only(make, folder, combination, image):
    """With read_only no attack changes the range, and no flush is sent."""
    with make(*combination, folder, READ_ONLY, name=f"read-only-{'-'.join(combination)}",
              append="virtio_pmem_rust.read_only=all") as machine:
        device = machine.device()
        disk = machine.disk(device)
        for attack in ATTACKS:
            machine.fails(attack.format(disk=disk))
        machine.sh(f"mount -t ext4 -o ro,dax /dev/{disk} /mnt; grep -q content /mnt/file; sync; "
                   "umount /mnt")
        machine.unbind(device)
    assert machine.served.notes("flush") == []
    assert machine.served.notes("stores") == []
    assert content(machine) == image


@pytest.mark.parametrize("combination", HOSTS)
def test_without_parameter(make, folder, combination, image):
    """Without it a store is lost: Firecracker's machine ends, OpenVMM reports success."""
    with make(*combination, folder, READ_ONLY, name=f"lossy-{'-'.join(combination)}") as machine:
        machine.later("writer", WRITE.format(disk=machine.disk(machine.device())))
        wait(lambda: len(machine.served.notes("stores")), 1)
        if combination[0] == "openvmm":
            assert machine.join("writer")[0] == 0
        else:
            machine.sh("sleep 1")
            assert not machine.done("writer")
        machine.kill()
    assert content(machine) == image
