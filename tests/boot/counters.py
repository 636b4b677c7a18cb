# SPDX-License-Identifier: GPL-2.0
"""Numbers that a guest shares with its host until it is killed: see tests/guest/records.c."""

import struct
import time

import settings
import userland

SOURCE = settings.TESTS / "guest/records.c"

# Find the memory that the guest shares with the host.
GUEST_SIDE = """
device=$(dirname $(grep -l 0x1110 /sys/bus/pci/devices/*/device))
echo 1 >$device/enable
export COUNTERS=$device/resource2
"""


def build(target):
    """Compile the program for the guest; return its path."""
    return userland.compile_static(SOURCE, target)


class Counters:
    """Memory in which guests count; the counts outlive them."""

    SIZE = 1 << 16

    def __init__(self, folder):
        self.path = folder / "counters"
        self.path.write_bytes(bytes(self.SIZE))
        self.args = ("-object", f"memory-backend-file,id=counters,share=on,mem-path={self.path},"
                     f"size={self.SIZE}", "-device", "ivshmem-plain,memdev=counters")

    def done(self, writer):
        """Return how many of a writer's records were acknowledged."""
        with open(self.path, "rb") as file:
            file.seek(16 * writer + 8)
            return struct.unpack("=Q", file.read(8))[0]

    def wait(self, goals, timeout):
        """Wait until each writer has reached its goal, given as {writer: number}."""
        limit = time.monotonic() + timeout
        while slow := {writer: self.done(writer) for writer, goal in goals.items()
                       if self.done(writer) < goal}:
            assert time.monotonic() < limit, f"goals {goals}, reached {slow}"
            time.sleep(0.02)
