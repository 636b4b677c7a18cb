# SPDX-License-Identifier: GPL-2.0
"""A virtio-pmem device of the project's own (tests/device): hosts with different behaviours.

QEMU 11.1 passes the virtqueue to a program, which serves it as a vhost-user backend. The device's
range is a piece of the guest's own memory that its kernel leaves alone, or a shared memory region.
"""

import contextlib
import dataclasses
import functools
import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import settings
import steps
import toolchain

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

# The buses that devices are on.
TRANSPORTS = ("pci", "mmio")

MIB = 1 << 20
SIZE = 64 * MIB

# Seconds for the program to end after QEMU; without a QEMU it does not end by itself.
GRACE = 10

# Where the range is in the guest's memory, aligned as memory sections are.
SECTION = 128 * MIB
OFFSET = 4 * SECTION


@functools.cache
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
    folder       where its journal is, and its image if no file is given
    options      for the program, such as {"delay": 10}
    size         of the range and the image, in bytes
    start        the guest's address of the range
    """
    program: Path
    folder: Path
    personality: str
    transport: str = "pci"
    options: dict = dataclasses.field(default_factory=dict)
    file: Path | None = None
    size: int = SIZE
    start: int = 0

    @property
    def image(self):
        """The host's file, which changes by flushes alone."""
        return self.file or self.folder / "image"

    @property
    def journal(self):
        """What the program has noted."""
        return self.folder / "journal"

    @property
    def hold(self):
        """A file; while it exists, a personality that holds answers gives none."""
        return self.folder / "hold"

    @contextlib.contextmanager
    def holding(self):
        """Hold answers."""
        self.hold.touch()
        try:
            yield
        finally:
            self.hold.unlink()

    @property
    def has_region(self):
        """Whether the range is a shared memory region."""
        return self.personality == "openvmm"

    def command(self, path):
        """Return the program's command line for a socket."""
        words = {"socket": path, "image": self.image, "journal": self.journal, "size": self.size,
                 "hold": self.hold, "personality": self.personality, **self.options}
        if not self.has_region:
            words["start"] = self.start
        return [self.program, *(f"{name}={value}" for name, value in words.items())]

    def properties(self):
        """Return the properties of QEMU's side of the device."""
        return f"virtio-id=27,num_vqs=1,vq_size={PERSONALITIES[self.personality]},config_size=16"

    def lines(self, word):
        """List the journal's lines of a kind, as their words."""
        try:
            lines = self.journal.read_text(encoding="ascii").splitlines()
        except FileNotFoundError:
            return []
        return [line.split() for line in lines if line.split()[1:2] == [word]]

    def notes(self, word):
        """List the further words of the journal's lines of a kind."""
        return [words[2:] for words in self.lines(word)]

    def times(self, word):
        """List when they were written, in seconds since the device's start."""
        return [float(words[0]) for words in self.lines(word)]


class Program:
    """A device that runs, and the socket at which it waits for QEMU. It ends when QEMU does.

    wrapper  a command that runs the program
    limit    seconds after which it is killed in any case
    """

    def __init__(self, device, log, limit, wrapper=()):
        self.folder = tempfile.mkdtemp(prefix="device-")
        self.socket = Path(self.folder) / "socket"
        if not device.image.exists():
            with open(device.image, "wb") as file:
                file.truncate(device.size)
        command = ["timeout", "-s", "KILL", limit, *wrapper, *device.command(self.socket)]
        with open(log, "wb") as out:
            self.process = subprocess.Popen(
                [str(word) for word in command], stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                start_new_session=True)
        while not self.socket.exists():
            if self.process.poll() is not None:
                self.finish()
                raise steps.Trouble(f"the device did not start\n{steps.tail(log)}")
            time.sleep(0.01)

    def finish(self, limit=0):
        """Wait until the program has ended; after so many seconds it is killed."""
        try:
            self.process.wait(limit)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)
