# SPDX-License-Identifier: GPL-2.0
"""What differs between the architectures of guests."""

import dataclasses
import platform

import settings


@dataclasses.dataclass(frozen=True)
class Architecture:
    """An architecture.

    host      the names that uname has for it
    triple    its name in the paths of Debian's libraries, and for compilers
    target    what kbuild makes, beside vmlinux
    image     what QEMU boots, in the build directory
    terminal  the device file of a UART, without its number
    machines  QEMU's machine for each bus that virtio devices are on
    cpu       QEMU's processor under TCG
    tcg       words for the command line under TCG; init starts the processors but the first
    memory    where the guest's memory begins
    has_pmem  whether QEMU has a virtio-pmem device there; else tests/device is one
    hole      words for the command line; the kernel leaves the memory from {start} on alone, which
              has {size} bytes and begins {offset} bytes after the memory's beginning
    """
    host: tuple
    triple: str
    target: str
    image: str
    terminal: str
    machines: dict
    cpu: str
    tcg: str
    has_pmem: bool
    memory: int
    hole: str


ARCHITECTURES = {
    # QEMU starts vmlinux by PVH, so nothing has to be decompressed. On a busy host the timer may
    # seem to be broken.
    "x86_64": Architecture(
        host=("x86_64", "amd64"), triple="x86_64-linux-gnu", target="vmlinux", image="vmlinux",
        terminal="ttyS",
        machines={"pci": "q35,nvdimm=off", "mmio": "microvm,acpi=off,pit=on,pic=on,rtc=on"},
        cpu="max", tcg="maxcpus=1 no_timer_check", has_pmem=True, memory=0,
        hole="memmap={size}${start}"),
    # Emulating the architecture's own algorithm of pointer authentication is slow.
    "arm64": Architecture(
        host=("aarch64", "arm64"), triple="aarch64-linux-gnu", target="Image",
        image="arch/arm64/boot/Image", terminal="ttyAMA",
        machines={"pci": "virt,gic-version=3", "mmio": "virt,gic-version=3"},
        cpu="max,pauth-impdef=on", tcg="maxcpus=1", has_pmem=False, memory=1 << 30,
        hole="mem={offset}"),
}


def guests():
    """Return the architecture of the guests, ARCH."""
    return ARCHITECTURES[settings.arch()]


def is_native():
    """Return whether the guests' architecture is this machine's."""
    return platform.machine() in guests().host


def suffix():
    """Return what ends the names of kernels that are not for x86_64."""
    return "" if settings.arch() == "x86_64" else f"-{settings.arch()}"
