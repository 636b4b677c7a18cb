# SPDX-License-Identifier: GPL-2.0
"""Writes to a guest's devices from outside."""

import socket

# In QEMU's modern virtio-pci device: where the first queue is notified, in BAR 4.
NOTIFY = 0x3000


class Poke:
    """Writes to the guest's physical memory by QEMU's protocol for tests; args are for QEMU."""

    def __init__(self, folder):
        self.path = folder / "qtest"
        self.args = ("-qtest", f"unix:{self.path},server=on,wait=off", "-qtest-log", "/dev/null")

    def writew(self, address, value):
        """Write 16 bits."""
        with socket.socket(socket.AF_UNIX) as qtest:
            qtest.connect(str(self.path))
            qtest.sendall(f"writew {address:#x} {value:#x}\n".encode())
            assert qtest.recv(100).startswith(b"OK")

    def ask_for_reset(self, machine, device):
        """Have a device ask for a reset, as QEMU does when notified of a request it cannot find."""
        bar = machine.sh(f"sed -n 5p /sys/bus/pci/devices/{device.pci}/resource").split()[0]
        self.writew(int(bar, 16) + NOTIFY, 0)
