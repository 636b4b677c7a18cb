# SPDX-License-Identifier: GPL-2.0
"""Devices that are added and removed while the guest runs."""

from machine import DRIVERS, MIB, both_drivers, dsync


@both_drivers
def test_hot_add(boot, folder, driver):
    """A device that is added through QMP loads its driver by a uevent, and works."""
    size = 128 * MIB
    with boot(sizes=(), ports=2, driver=driver) as machine:
        assert machine.run(f"lsmod | grep -q '^{DRIVERS[driver]} '").status != 0
        for index in range(2):
            machine.qmp("object-add", {
                "qom-type": "memory-backend-file", "id": f"late{index}", "size": size,
                "mem-path": str(folder / f"late{index}"), "share": True,
            })
            machine.qmp("device_add", {"driver": "virtio-pmem-pci", "id": f"hot{index}",
                                       "bus": f"port{index}", "memdev": f"late{index}"})
            machine.until(f"ls /dev/pmem{index} 2>/dev/null")
            device = machine.devices_found()[index]
            assert machine.bound(device) == DRIVERS[driver]
            disk = machine.disk(device)
            assert int(machine.sh(f"blockdev --getsize64 /dev/{disk}")) == size
            machine.sh(f"""
                mkfs.ext4 -q -b 4096 /dev/{disk}
                mount /dev/{disk} /mnt
                dd if=/dev/urandom of=/mnt/file bs=4k count=64 conv=fsync 2>/dev/null
                umount /mnt
                e2fsck -fn /dev/{disk} >/dev/null 2>&1
            """)
        assert machine.host.ended() > 0
        machine.check_errors()


@both_drivers
def test_remove_and_rescan(boot, driver):
    """A PCI function that is removed and rescanned has its disk and data again."""
    with boot(driver=driver) as machine:
        device = machine.device()
        disk = machine.disk(device)
        machine.sh(f"echo precious | dd of=/dev/{disk} conv=fsync 2>/dev/null")
        for _ in range(3):
            machine.sh(f"echo 1 >/sys/bus/pci/devices/{device.pci}/remove")
            assert machine.devices_found() == []
            assert machine.run("ls /dev/pmem*").status != 0
            machine.sh("echo 1 >/sys/bus/pci/rescan")
            device = machine.device()
            disk = machine.disk(device)
            assert machine.bound(device) == DRIVERS[driver]
            assert machine.sh(f"head -n 1 /dev/{disk}") == "precious"
            machine.write(disk, 4, first=1)
        machine.check_errors()


def test_remove_under_load(boot):
    """Writers of a function that is removed end; after a rescan, writes succeed."""
    with boot() as machine:
        device = machine.device()
        disk = machine.disk(device)
        for index in range(4):
            machine.later(f"writer{index}", f"""
                while {dsync(disk, 16, index * 16)}; do :; done
            """)
        machine.host.wait_begun(machine.host.begun() + 20)
        machine.remove(device)
        for index in range(4):
            machine.join(f"writer{index}")
        machine.sh("echo 1 >/sys/bus/pci/rescan")
        device = machine.device()
        disk = machine.disk(device)
        before = machine.host.ended()
        machine.write(disk, 4)
        assert machine.host.ended() - before >= 4
