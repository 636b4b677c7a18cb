# SPDX-License-Identifier: GPL-2.0
"""Devices that are removed while file systems and disks are in use, and added again."""

import pytest
from machine import DRIVERS, LONG_TIMEOUT, MIB, aio, dsync, shared_by_rust
from test_unbind import own_errors

from file_systems import MAKE, check

# Large enough for XFS.
MACHINE = {"sizes": (512 * MIB,), "append": LONG_TIMEOUT}

pytestmark = pytest.mark.on_debug

WRITERS = 4


def start_files(machine):
    """Start writers that make file after file in /mnt, each with an fsync, and list them.

    A file's sum, which is that of its source, is listed only after the fsync has succeeded.
    """
    machine.sh("rm -f /tmp/synced*")
    for writer in range(WRITERS):
        machine.later(f"writer{writer}", f"""
            for turn in $(seq 10000); do
                name=file{writer}-$turn
                head -c 16384 /dev/urandom >/tmp/source{writer}
                sum=$(sha256sum </tmp/source{writer} | cut -d " " -f 1)
                dd if=/tmp/source{writer} of=/mnt/$name bs=4k conv=fsync || exit 0
                echo "$sum  $name" >>/tmp/synced{writer}
            done
        """)
    machine.until(" && ".join(f"[ -s /tmp/synced{writer} ]" for writer in range(WRITERS)))


def remove(machine, device, way):
    """Remove a device in one of the two orderly ways."""
    if way == "unbind":
        machine.unbind(device)
    else:
        machine.remove(device)


def give_back(machine, device, way):
    """Add a device again; return its disk."""
    return machine.bind(device) if way == "unbind" else machine.rescan()


@pytest.mark.parametrize("way", ["unbind", "pci-remove"])
@pytest.mark.parametrize("fs", MAKE)
@shared_by_rust
def test_busy_file_system(machine, fs, way):
    """The orderly removal of a device below a busy file system loses no acknowledged data.

    After the replay of its log the file system is clean. It has each file whose fsync succeeded,
    and also the dirty one, because the core's last sync still reaches the device. Writers end with
    an error. An attempt to unload the module meanwhile fails, and has no effect.

    On ext4 only files count whose fsync ended before the removal. At its end the core shuts the
    file system down, and then an fsync of ext4 may succeed though its transaction was just aborted:
    jbd2_complete_transaction() treats a finished transaction as a committed one. (This happened on
    virtio-blk, with ext4's shutdown ioctl and these writers, in one of four attempts.)
    """
    device = machine.device()
    disk = machine.disk(device)
    machine.sh(f"""
        {MAKE[fs]} /dev/{disk}
        mount -t {fs} /dev/{disk} /mnt
        cd /mnt
        dd if=/dev/urandom of=synced bs=64k count=16 2>/dev/null
        sync
        head -c 1m /dev/urandom >/tmp/dirty
        sha256sum synced >/tmp/sums
        (cd /tmp; sha256sum dirty) >>/tmp/sums
    """)
    start_files(machine)
    # The message of EAGAIN, for a module with users.
    assert "temporarily unavailable" in machine.fails(f"rmmod {DRIVERS['rust']} 2>&1")
    before = machine.host.ended()
    machine.host.wait_ended(before + 20)
    for writer in range(WRITERS):
        assert not machine.done(f"writer{writer}"), "failed at the attempt to unload the module"
    machine.sh("cat /tmp/dirty >/mnt/dirty; cat /tmp/synced[0-9]* >/tmp/synced-before")
    remove(machine, device, way)
    for writer in range(WRITERS):
        assert machine.join(f"writer{writer}")[0] == 0
    expected = "/tmp/synced-before" if fs == "ext4" else "/tmp/synced[0-9]*"
    machine.sh(f"cat {expected} >>/tmp/sums")
    assert own_errors(machine) == []
    machine.sh("umount /mnt")
    disk = give_back(machine, device, way)
    machine.sh(f"""
        mount -t {fs} /dev/{disk} /mnt
        cd /mnt
        sha256sum -c /tmp/sums >/tmp/result 2>&1 || {{ grep -v OK /tmp/result; exit 1; }}
        cd /
        umount /mnt
        {check(fs, disk)}
    """)
    assert int(machine.sh("grep -c OK /tmp/result")) >= 2 + WRITERS


class Port:
    """The root port above a device. Without its bus number, the device is unreachable.

    QEMU cannot unplug a virtio-pmem device. But it answers no access to the configuration space of
    a bus whose number no bridge has, so the PCI core finds no device, as after a surprise removal.
    """

    def __init__(self, machine, device):
        self.machine = machine
        parent = f"$(readlink -f /sys/bus/pci/devices/{device.pci}/..)"
        self.config = machine.sh(f"echo {parent}/config")
        self.bus = int(device.pci.split(":")[1], 16)

    def set_bus(self, number):
        """Write the numbers of the secondary and the last subordinate bus."""
        byte = f"\\x{number:02x}"
        self.machine.sh(f"printf '{byte}{byte}' | dd of={self.config} bs=1 seek=25 conv=notrunc "
                        "2>/dev/null")

    def hide(self):
        """Make the device unreachable."""
        self.set_bus(0xf0)

    def show(self):
        """Make the device reachable again."""
        self.set_bus(self.bus)


@pytest.mark.parametrize("host", ["hangs", "answers"])
@shared_by_rust
def test_surprise(machine, host):
    """When a device has disappeared, every caller ends, whether its host hangs or answers.

    The device that appears in its place later is a new one, and works.
    """
    device = machine.device()
    disk = machine.disk(device)
    port = Port(machine, device)
    names = []
    for index in range(WRITERS):
        names += [f"writer{index}", f"sleeper{index}", f"bios{index}"]
        machine.later(names[-3], f"while {dsync(disk, 16, index * 16)}; do :; done")
        machine.later(names[-2], f"while xfs_io -c fsync /dev/{disk}; do :; done")
        machine.later(names[-1], f"while {aio(disk, '64k')}; do :; done")
    machine.host.wait_begun(machine.host.begun() + 20)
    if host == "hangs":
        machine.host.hang()
        ended = machine.host.ended()
    port.hide()
    # The driver's timeout is too long to end them.
    machine.remove(device)
    for name in names:
        machine.join(name)
    if host == "hangs":
        assert machine.host.ended() == ended
        machine.host.plan("pass")
        machine.host.wait_ended(machine.host.begun())
    port.show()
    disk = machine.rescan()
    machine.write(disk, 4)
