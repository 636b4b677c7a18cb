# SPDX-License-Identifier: GPL-2.0
"""The sample of a virtio driver in Rust, on a device that any QEMU has."""

import re

SAMPLE = "/sys/bus/virtio/drivers/rust_driver_virtio"
ORIGINAL = "/sys/bus/virtio/drivers/virtio_rng"


def test_virtio_rng(boot):
    """The sample gets random bytes from a device at each bind, and releases it at each unbind."""
    with boot(driver="none", sizes=(), args=("-device", "virtio-rng-pci")) as machine:
        # Both drivers have the alias, so both are loaded; the kernel's own was first.
        device = machine.sh(f"cd {ORIGINAL}; echo virtio*")
        machine.sh(f"echo {device} >{ORIGINAL}/unbind")
        for _ in range(3):
            machine.sh(f"dmesg -c >/dev/null; echo {device} >{SAMPLE}/bind")
            machine.until("dmesg | grep -q 'random bytes'")
            (found,) = re.findall(r"random bytes: \[(.*)\]", machine.sh("dmesg"))
            assert len(set(found.split(", "))) > 1
            machine.sh(f"echo {device} >{SAMPLE}/unbind")
        machine.sh(f"""
            rmmod rust_driver_virtio
            echo {device} >{ORIGINAL}/bind
            dd if=/dev/hwrng of=/dev/null bs=16 count=4
        """)
