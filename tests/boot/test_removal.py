# SPDX-License-Identifier: GPL-2.0
"""Devices that are taken away while file systems and disks are in use, and come back."""

import pytest
from machine import DRIVERS, MIB, PATIENT, aio, dsync, shared_by_rust
from test_unbind import FILE_SYSTEMS, own_errors

# Large enough for XFS.
MACHINE = {"sizes": (512 * MIB,), "append": PATIENT}

pytestmark = pytest.mark.on_debug

WRITERS = 4


def start_files(machine):
    """Let writers make file after file in /mnt, each with an fsync, and tell what they have made.

    A file's sum, which is not taken from the file, is told only after the fsync has succeeded.
    """
    machine.sh("rm -f /tmp/told*")
    for writer in range(WRITERS):
        machine.later(f"writer{writer}", f"""
            for turn in $(seq 10000); do
                name=file{writer}-$turn
                head -c 16384 /dev/urandom >/tmp/source{writer}
                sum=$(sha256sum </tmp/source{writer} | cut -d " " -f 1)
                dd if=/tmp/source{writer} of=/mnt/$name bs=4k conv=fsync || exit 0
                echo "$sum  $name" >>/tmp/told{writer}
            done
        """)
    machine.until(" && ".join(f"[ -s /tmp/told{writer} ]" for writer in range(WRITERS)))


def remove(machine, device, way):
    """Take a device away, in one of two ways that are good order."""
    if way == "unbind":
        machine.unbind(device)
    else:
        machine.remove(device)


def give_back(machine, device, way):
    """Bring a device back; return its disk."""
    return machine.bind(device) if way == "unbind" else machine.rescan()


@pytest.mark.parametrize("way", ["unbind", "pci-remove"])
@pytest.mark.parametrize("fs", FILE_SYSTEMS)
@shared_by_rust
def test_busy_file_system(machine, fs, way):
    """An orderly removal from under a busy file system loses nothing that anybody was promised.

    That is: after the replay of its log the file system is clean, each file whose fsync has
    succeeded is there, and so is what was dirty, since the core's last sync still goes through.
    Writers end with an error. The module cannot be unloaded meanwhile, and nothing comes of trying.

    Of ext4 only files count that were told of before the removal. At its end the core shuts the
    file system down, and there ext4 may tell an fsync of success though its transaction has just
    been aborted: jbd2_complete_transaction() takes one that is over for one that was committed.
    (Seen on virtio-blk, with ext4's shutdown ioctl and these writers, in one of four attempts.)
    """
    make, check = FILE_SYSTEMS[fs]
    device = machine.device()
    disk = machine.disk(device)
    machine.sh(f"""
        {make} /dev/{disk}
        mount -t {fs} /dev/{disk} /mnt
        cd /mnt
        dd if=/dev/urandom of=synced bs=64k count=16 2>/dev/null
        sync
        head -c 1m /dev/urandom >/tmp/dirty
        sha256sum synced >/tmp/sums
        (cd /tmp; sha256sum dirty) >>/tmp/sums
    """)
    start_files(machine)
    # That is what EAGAIN, for a module with users, is called.
    assert "temporarily unavailable" in machine.fails(f"rmmod {DRIVERS['rust']} 2>&1")
    before = machine.host.ended()
    machine.host.wait_ended(before + 20)
    for writer in range(WRITERS):
        assert not machine.done(f"writer{writer}"), "failed by the attempt to unload the module"
    machine.sh("cat /tmp/dirty >/mnt/dirty; cat /tmp/told[0-9]* >/tmp/told-before")
    remove(machine, device, way)
    for writer in range(WRITERS):
        assert machine.join(f"writer{writer}")[0] == 0
    counting = "/tmp/told-before" if fs == "ext4" else "/tmp/told[0-9]*"
    machine.sh(f"cat {counting} >>/tmp/sums")
    assert own_errors(machine) == []
    machine.sh("umount /mnt")
    disk = give_back(machine, device, way)
    machine.sh(f"""
        mount -t {fs} /dev/{disk} /mnt
        cd /mnt
        sha256sum -c /tmp/sums >/tmp/result 2>&1 || {{ grep -v OK /tmp/result; exit 1; }}
        cd /
        umount /mnt
        {check} /dev/{disk} >/tmp/check 2>&1 || {{ cat /tmp/check; exit 1; }}
    """)
    assert int(machine.sh("grep -c OK /tmp/result")) >= 2 + WRITERS


class Port:
    """The root port above a device. Without its bus number, what is behind it seems to be gone.

    QEMU cannot unplug a virtio-pmem device. But it answers no access to the configuration space of
    a bus whose number no bridge has, so the PCI core finds nobody there, as after a surprise.
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
        """Let the device disappear."""
        self.set_bus(0xf0)

    def show(self):
        """Let it appear again."""
        self.set_bus(self.bus)


@pytest.mark.parametrize("host", ["hangs", "answers"])
@shared_by_rust
def test_surprise(machine, host):
    """When a device is found to be gone, every caller ends, whatever becomes of its host.

    None hangs, and none that fails is told that it has succeeded. The device that appears in that
    place later is a new one, and works.
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
    # It is not the driver's time limit that ends them.
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
