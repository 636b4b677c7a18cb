# SPDX-License-Identifier: GPL-2.0
"""The sample of a virtio driver in Rust, on a device that any QEMU has."""

import re

RNG = ("-device", "virtio-rng-pci")


def test_virtio_rng(boot):
    """The sample gets random bytes from each device it is bound to, and gives the device back."""
    with boot(driver="none", sizes=(), args=RNG) as machine:
        device = machine.sh("""
            cd /sys/bus/virtio/drivers/virtio_rng
            device=$(echo virtio*)
            echo "$device" >unbind
            modprobe rust_driver_virtio
            echo "$device"
        """)
        sample = "/sys/bus/virtio/drivers/rust_driver_virtio"
        for _ in range(3):
            machine.until("dmesg | grep -q 'random bytes'")
            (found,) = re.findall(r"random bytes: \[(.*)\]", machine.sh("dmesg -c"))
            assert len(set(found.split(", "))) > 1
            machine.sh(f"echo {device} >{sample}/unbind; echo {device} >{sample}/bind")
        machine.sh(f"""
            rmmod rust_driver_virtio
            echo {device} >/sys/bus/virtio/drivers/virtio_rng/bind
            dd if=/dev/hwrng of=/dev/null bs=16 count=4
        """)
