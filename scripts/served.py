# SPDX-License-Identifier: GPL-2.0
"""A guest on a device of the project's own with a behaviour of choice: see device.py."""

import dataclasses

import architecture
import device
import settings
from guest import Guest


class Served(Guest):
    """A guest with such a device on a bus of choice; its range is within the guest's memory."""

    def __init__(self, *positional, served, **more):
        start = architecture.guests().memory + device.OFFSET
        self.served = dataclasses.replace(served, start=start)
        super().__init__(*positional, **more)

    def served_devices(self):
        """List the devices that programs of the project's own serve."""
        return [self.served]

    def machine(self):
        """Return QEMU's arguments for the machine and its memory."""
        return self.shared_memory(self.served.transport, self.memory)

    def port(self):
        """Return QEMU's arguments for the port that carries commands."""
        if self.served.transport == "pci" or self.uart and settings.arch() != "x86_64":
            return super().port()
        if self.uart:
            return ["-device", "isa-serial,index=1,chardev=agent"]
        return ["-device", "virtio-serial-device",
                "-device", "virtserialport,chardev=agent,name=agent"]

    def devices(self):
        """Return QEMU's arguments for the devices under test."""
        words, properties = self.link(0)
        if self.served.transport == "pci":
            words += ["-device", "pcie-root-port,id=served-port,chassis=99,bus=pcie.0",
                      "-device", f"vhost-user-test-device-pci,bus=served-port,{properties}"]
        else:
            words += ["-device", f"vhost-user-test-device,{properties}"]
        return super().devices() + words
