# SPDX-License-Identifier: GPL-2.0
"""Virtio-pmem devices with all of QEMU's options: each binds, flushes, and keeps a file system."""

import dataclasses

import pytest
from machine import DRIVERS, MIB, both_drivers

from guest import GuestError

# Feature bits (VIRTIO 1.3, section 6).
INDIRECT_DESC, EVENT_IDX, VERSION_1, ACCESS_PLATFORM, RING_PACKED = 28, 29, 32, 33, 34

IOMMU = ("-device", "intel-iommu,intremap=off")


@dataclasses.dataclass(frozen=True)
class Variant:
    """A device's options, and the feature bits that must be negotiated or not."""
    options: str = ""
    args: tuple = ()
    on: tuple = ()
    off: tuple = ()


VARIANTS = {
    "default": Variant(on=(EVENT_IDX, VERSION_1), off=(RING_PACKED, ACCESS_PLATFORM)),
    "packed": Variant("packed=on", on=(RING_PACKED, EVENT_IDX)),
    "packed-no-event-idx": Variant("packed=on,event_idx=off", on=(RING_PACKED,), off=(EVENT_IDX,)),
    "no-event-idx": Variant("event_idx=off", off=(EVENT_IDX,)),
    "no-indirect-desc": Variant("indirect_desc=off", off=(INDIRECT_DESC,)),
    "iommu": Variant("iommu_platform=on,disable-legacy=on", IOMMU, on=(ACCESS_PLATFORM,)),
    "iommu-packed": Variant("iommu_platform=on,disable-legacy=on,packed=on", IOMMU,
                            on=(ACCESS_PLATFORM, RING_PACKED)),
    "modern": Variant("disable-legacy=on,disable-modern=off", on=(VERSION_1,)),
}

FILE_SYSTEM = """
mkfs.ext4 -q -b 4096 /dev/pmem0
mount /dev/pmem0 /mnt
dd if=/dev/urandom of=/mnt/file bs=64k count=32 conv=fsync 2>/dev/null
sum=$(sha256sum </mnt/file)
umount /mnt
mount /dev/pmem0 /mnt
[ "$(sha256sum </mnt/file)" = "$sum" ]
umount /mnt
e2fsck -fn /dev/pmem0 >/dev/null 2>&1
"""


def negotiated(machine, device):
    """Return the numbers of the feature bits that are set."""
    text = machine.sh(f"cat {device.path}/features")
    return {bit for bit, value in enumerate(text) if value == "1"}


def check_flushes(machine, disk="pmem0", count=16, host_disk=None):
    """Write with O_SYNC, and check that each write had its flush answered before it returned."""
    before = machine.host.ended(host_disk)
    machine.write(disk, count)
    assert machine.host.ended(host_disk) - before >= count


def check_variant(boot, variant, driver):
    """Boot with such a device, check the negotiated features, and use it."""
    with boot(options=variant.options, args=variant.args, driver=driver) as machine:
        device = machine.device()
        assert machine.bound(device) == DRIVERS[driver]
        assert machine.disk(device) == "pmem0"
        features = negotiated(machine, device)
        assert features >= set(variant.on)
        assert not features & set(variant.off)
        if driver == "rust":
            # With this feature the ring would allocate memory for each request.
            assert INDIRECT_DESC not in features
        if variant.args == IOMMU:
            assert machine.run(f"[ -e /sys/bus/pci/devices/{device.pci}/iommu_group ]").status == 0
        check_flushes(machine)
        machine.sh(FILE_SYSTEM)
        machine.check_errors()


@pytest.mark.parametrize("name", VARIANTS)
def test_variant(boot, name):
    """The driver works with every ring layout, feature and transport that QEMU can offer."""
    check_variant(boot, VARIANTS[name], "rust")


def test_variant_c(boot):
    """The driver in C passes the same test."""
    check_variant(boot, VARIANTS["default"], "c")


@both_drivers
def test_three_sizes(boot, driver):
    """Three devices are three disks, each with its own size, memory and flushes."""
    sizes = (64 * MIB, 192 * MIB, 128 * MIB)
    with boot(sizes=sizes, driver=driver) as machine:
        devices = machine.devices_found()
        disks = [machine.disk(device) for device in devices]
        assert [machine.bound(device) for device in devices] == [DRIVERS[driver]] * 3
        assert len(set(disks)) == 3
        for disk, size in zip(disks, sizes, strict=True):
            assert int(machine.sh(f"blockdev --getsize64 /dev/{disk}")) == size

        for index, disk in enumerate(disks):
            others = [machine.pmem[other] for other in range(3) if other != index]
            before = [machine.host.begun(other) for other in others]
            check_flushes(machine, disk, 4, machine.pmem[index])
            assert [machine.host.begun(other) for other in others] == before

            # The first and the last page are at their offsets in the file.
            for page in (0, sizes[index] // 4096 - 1):
                machine.write(disk, 1, page, pattern=index + 1)
        machine.check_errors()
        machine.kill()
        for index, disk in enumerate(machine.pmem):
            with open(disk.path, "rb") as file:
                for page in (0, sizes[index] - 4096):
                    file.seek(page)
                    assert file.read(4096) == bytes([index + 1]) * 4096


@both_drivers
def test_unusable_size(boot, driver):
    """A device whose range cannot be mapped is refused with a message; others still work.

    QEMU itself refuses a size of 0 or of a fraction of a page (KUnit covers these). It accepts one
    mebibyte, but the kernel maps device memory in units of two.
    """
    with boot(sizes=(128 * MIB, MIB), driver=driver) as machine:
        good, bad = machine.devices_found()
        disk = machine.disk(good)
        machine.wait_console("misaligned, unable to map")
        check_flushes(machine, disk)
        assert machine.sh("ls /sys/block | grep -c pmem") == "1"

        # A device without a disk is unbound and bound like any other.
        for _ in range(3):
            machine.unbind(bad)
            assert machine.bound(bad) == "none"
            machine.clear_messages()
            machine.sh(f"echo {bad.virtio} >/sys/bus/virtio/drivers/{DRIVERS[driver]}/bind")
            machine.until("dmesg | grep -q 'misaligned, unable to map'")
        check_flushes(machine, disk)


@pytest.mark.parametrize("size", [0, 512, 4096 + 512])
def test_size_qemu_refuses(boot, size):
    """QEMU refuses these sizes, so they do not reach the driver."""
    machine = boot(sizes=())
    path = machine.host.plan_file.with_name("odd")
    path.write_bytes(b"\0" * 8192)
    machine.args += ["-object", f"memory-backend-file,id=odd,share=on,mem-path={path},size={size}",
                     "-device", "virtio-pmem-pci,memdev=odd"]
    with pytest.raises(GuestError, match="must be multiple of|doesn't take value '0'"), machine:
        pass
