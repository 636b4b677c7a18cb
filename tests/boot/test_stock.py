# SPDX-License-Identifier: GPL-2.0
"""What the module does where the kernel lacks the patches: on a distribution's own kernel only."""

import contextlib
import re
import subprocess

import pytest

import deb
from guest import DRIVERS

pytestmark = pytest.mark.only_stock

# In QEMU's memory, the device's IDs and then the capability of its configuration space, which ends
# with the length.
CAPABILITY = re.compile(rb"\xf4\x1a\x5b\x10.{,240}?\x09.\x10\x04\x04\0{4}\x20\0{2}(\0\x10\0\0)",
                        re.S)


def shorten(machine, length):
    """Change the length of the configuration space that a device reports, before the guest runs."""
    machine.qmp("query-status")  # the devices are there
    pid = subprocess.run(["pgrep", "-g", str(machine.group), "qemu"], check=True,
                         stdout=subprocess.PIPE, text=True).stdout.strip()
    with open(f"/proc/{pid}/maps", encoding="ascii") as maps:
        (heap,) = (line.split()[0] for line in maps if "[heap]" in line)
    start, end = (int(address, 16) for address in heap.split("-"))
    with open(f"/proc/{pid}/mem", "r+b", buffering=0) as memory:
        memory.seek(start)
        (found,) = CAPABILITY.finditer(memory.read(end - start))
        memory.seek(start + found.start(1))
        memory.write(length.to_bytes(4, "little"))


def test_alias(boot):
    """The module is loaded by the alias, on a kernel without the driver, and binds."""
    with boot() as machine:
        device = machine.device()
        assert machine.bound(device) == DRIVERS["rust"]
        assert "/updates/" in machine.sh(f"modinfo -n {DRIVERS['rust']}")
        assert machine.sh(f"cat /sys/block/{machine.disk(device)}/queue/fua") == "0"


def test_both_drivers(boot, folder):
    """By the package's rule ours binds, whichever of the two modules is loaded, or by an alias."""
    rule = folder / "rule"
    rule.write_text(deb.MODPROBE)
    path = "/etc/modprobe.d/virtio-pmem-rust.conf"
    with boot(driver="both", files={path: rule}) as machine:
        def again(load):
            """Load the drivers for a device that is added; return the one that binds."""
            machine.remove(machine.device())
            machine.sh(f"rmmod virtio_pmem virtio_pmem_rust; {load}")
            machine.rescan()
            return machine.bound(machine.device())

        assert machine.bound(machine.device()) == DRIVERS["rust"]
        assert again("true") == DRIVERS["rust"]
        machine.sh("grep '^virtio_pmem ' /proc/modules")
        assert again("/sbin/modprobe virtio_pmem") == DRIVERS["rust"]
        assert again(f"rm {path}; /sbin/modprobe virtio_pmem") == DRIVERS["c"]


def test_fua(boot):
    """With fua=1 the disk advertises FUA and the region has deep_flush; a DIMM is there."""
    with boot(append="virtio_pmem_rust.fua=1") as machine:
        device = machine.device()
        disk = machine.disk(device)
        assert machine.sh(f"cat /sys/block/{disk}/queue/fua") == "1"
        machine.sh("ls /sys/bus/nd/devices/nmem0")
        before = machine.host.ended()
        machine.sh(f"echo 1 | tee {device.path}/ndbus*/region*/deep_flush")
        assert machine.host.ended() == before + 1
        assert "unable to guarantee persistence" not in machine.console()
        machine.unbind(device)
        machine.bind(device)


def test_sector_mode(boot):
    """A write in sector mode fails with a message, and another mode works afterwards."""
    with boot() as machine:
        machine.disk(machine.device())
        create = "ndctl create-namespace -f -e namespace0.0 -m"
        machine.sh(f"{create} sector")
        machine.until("[ -b /dev/pmem0s ]")
        machine.fails("dd if=/dev/zero of=/dev/pmem0s bs=4k count=1 oflag=direct")
        assert "this kernel cannot write in sector mode" in machine.sh("dmesg")
        machine.sh(f"{create} fsdax")
        machine.until("[ -b /dev/pmem0 ]")
        machine.sh("dd if=/dev/zero of=/dev/pmem0 bs=4k count=1 oflag=direct conv=fsync")


def test_short_configuration(boot):
    """A device whose configuration space has no room for the range is refused."""
    with contextlib.closing(boot(args=("-S",))) as machine:
        machine.start()
        shorten(machine, 12)
        machine.qmp("cont")
        machine.wait_ready()
        machine.wait_console("the configuration space has no room for a range")
        assert machine.bound(machine.device()) == "none"
        machine.check()


def test_function_reset(boot):
    """The core reports no reset of the function; a flush that it loses can be sent again."""
    with boot(append="virtio_pmem_rust.resend_after=1") as machine:
        device = machine.device()
        disk = machine.disk(device)
        machine.sh(f"echo 1 >/sys/bus/pci/devices/{device.pci}/reset")
        machine.write(disk, 4)
        assert "sending it again after a reset" in machine.console()
        machine.unbind(device)
        machine.write(machine.bind(device), 4)


def test_read_only(boot):
    """A device that is to be read-only is refused, because the kernel cannot protect it."""
    with boot(append="virtio_pmem_rust.read_only=all") as machine:
        machine.wait_console("this kernel's libnvdimm cannot protect the memory")
        assert machine.bound(machine.device()) == "none"
