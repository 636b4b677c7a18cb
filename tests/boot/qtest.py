# SPDX-License-Identifier: GPL-2.0
"""Writes to a guest's devices from the host, by QEMU's protocol for tests."""

import socket

import pytest

# The notification of the first queue in BAR 4 of QEMU's modern virtio-pci device.
NOTIFY = 0x3000


class Qtest:
    """A connection to a guest's physical memory; args are for QEMU."""

    def __init__(self, folder):
        self.path = folder / "qtest"
        self.args = ("-qtest", f"unix:{self.path},server=on,wait=off", "-qtest-log", "/dev/null")

    def writew(self, address, value):
        """Write 16 bits."""
        with socket.socket(socket.AF_UNIX) as qtest:
            qtest.connect(str(self.path))
            qtest.sendall(f"writew {address:#x} {value:#x}\n".encode())
            assert qtest.recv(100).startswith(b"OK")

    def break_device(self, machine, device):
        """Make a device need a reset, by a notification without a request."""
        if machine.qmp("query-version")["qemu"]["major"] >= 10:
            pytest.skip("this QEMU ignores a notification without a request")
        bar = machine.sh(f"sed -n 5p /sys/bus/pci/devices/{device.pci}/resource").split()[0]
        self.writew(int(bar, 16) + NOTIFY, 0)
