# SPDX-License-Identifier: GPL-2.0
"""A virtio-pmem device of the project's own (tests/device): hosts with different behaviours.

QEMU 11.1 passes the virtqueue to a program, which serves it as a vhost-user backend. The device's
range is a piece of the guest's own memory that its kernel leaves alone, or a shared memory region.
"""

import dataclasses
import os
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import settings
import steps
import toolchain
from guest import Guest

# The QEMU that has the generic vhost-user device.
QEMU = "11.1"

# The size of the queue that a personality's host has.
PERSONALITIES = {
    "qemu": 128,
    "firecracker": 256,
    "cloud-hypervisor": 256,
    "crosvm": 256,
    "openvmm": 64,
    "remote": 256,
    "snapshot": 256,
    "hostile": 256,
}

# Machines of QEMU with the device on this bus; all others are on PCI.
MACHINES = {
    "pci": "q35,nvdimm=off",
    "mmio": "microvm,acpi=off,pit=on,pic=on,rtc=on",
}

MIB = 1 << 20
SIZE = 64 * MIB

# Where the range is in the guest's memory; it is aligned as memory sections are.
START = 512 * MIB


def build():
    """Build the program; return its path."""
    target = settings.BUILD / "device"
    with steps.step("device"):
        steps.run([toolchain.cargo(), "build", "--release", "--locked", "--manifest-path",
                   settings.TESTS / "device/Cargo.toml", "--target-dir", target],
                  steps.log_path("device"))
    return target / "release/pmem-device"


@dataclasses.dataclass(frozen=True)
class Device:
    """A device.

    program      as build() returns it
    folder       where its image and its journal are
    options      for the program, such as {"delay": 10}
    """
    program: Path
    folder: Path
    personality: str
    transport: str
    options: dict = dataclasses.field(default_factory=dict)

    @property
    def image(self):
        """The host's file, which changes by flushes alone."""
        return self.folder / "image"

    @property
    def journal(self):
        """What the program has noted."""
        return self.folder / "journal"

    @property
    def has_region(self):
        """Whether the range is a shared memory region."""
        return self.personality == "openvmm"

    def command(self, path):
        """Return the program's command line for a socket."""
        words = {"socket": path, "image": self.image, "journal": self.journal, "size": SIZE,
                 "personality": self.personality, **self.options}
        if not self.has_region:
            words["start"] = START
        return [self.program, *(f"{name}={value}" for name, value in words.items())]

    def notes(self, word):
        """List the journal's lines of a kind, as their further words."""
        try:
            lines = self.journal.read_text(encoding="ascii").splitlines()
        except FileNotFoundError:
            return []
        return [line.split()[2:] for line in lines if line.split()[1:2] == [word]]


class Served(Guest):
    """A guest with such a device; its RAM is shared with the device's program."""

    def __init__(self, *positional, served, append="", **more):
        self.served, self.program, self.socket = served, None, None
        if not served.has_region:
            append = f"memmap={SIZE}${START} {append}"
        super().__init__(*positional, append=append, **more)

    def machine(self):
        """Return QEMU's arguments for the machine and its memory."""
        size = f"{self.memory >> 20}M"
        return ["-M", f"{MACHINES[self.served.transport]},memory-backend=ram", "-m", size,
                "-object", f"memory-backend-memfd,id=ram,size={size},share=on",
                "-global", "virtio-mmio.force-legacy=off"]

    def port(self):
        """Return QEMU's arguments for the port that carries commands."""
        if self.served.transport == "pci":
            return super().port()
        if self.uart:
            return ["-device", "isa-serial,index=1,chardev=agent"]
        return ["-device", "virtio-serial-device",
                "-device", "virtserialport,chardev=agent,name=agent"]

    def devices(self):
        """Return QEMU's arguments for the devices under test."""
        queue = PERSONALITIES[self.served.personality]
        properties = f"chardev=served,virtio-id=27,num_vqs=1,vq_size={queue},config_size=16"
        words = ["-chardev", f"socket,id=served,path={self.socket}"]
        if self.served.transport == "pci":
            words += ["-device", "pcie-root-port,id=served-port,chassis=99,bus=pcie.0",
                      "-device", f"vhost-user-test-device-pci,bus=served-port,{properties}"]
        else:
            words += ["-device", f"vhost-user-test-device,{properties}"]
        return super().devices() + words

    def start(self):
        """Start the program and the guest."""
        if not self.served.image.exists():
            with open(self.served.image, "wb") as file:
                file.truncate(SIZE)
        folder = tempfile.mkdtemp(prefix="device-")
        self.socket = Path(folder) / "socket"
        log = steps.log_path(f"{self.name}.device", self.console_log.parent)
        with open(log, "wb") as out:
            command = ["timeout", "-s", "KILL", str(self.timeout),
                       *self.served.command(self.socket)]
            self.program = subprocess.Popen(
                [str(word) for word in command], stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                start_new_session=True)
        while not self.socket.exists():
            if self.program.poll() is not None:
                raise self.error(f"its device did not start\n{steps.tail(log)}")
            time.sleep(0.01)
        super().start()

    def finish(self):
        """Wait until the program has ended, which it does after QEMU."""
        if self.program is None:
            return
        try:
            self.program.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(self.program.pid, signal.SIGKILL)
            self.program.wait()
        self.program = None
        self.socket.unlink(missing_ok=True)
        os.rmdir(self.socket.parent)

    def kill(self):
        """End the guest as a power failure does; the image stays as it is."""
        super().kill()
        self.finish()

    def close(self):
        """End the guest and the program."""
        super().close()
        self.finish()
