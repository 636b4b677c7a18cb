# SPDX-License-Identifier: GPL-2.0
"""A guest on the project's own device, and what the host's image holds."""

import functools
import time

import pytest
from host import LIMIT
from machine import Machine

import served

MIB = 1 << 20

# Transports that a personality's hosts have, and their rings; the first is in the quick selection.
TRANSPORTS = {
    "qemu": ("pci", "pci-packed"),
    "firecracker": ("mmio", "pci"),
    "cloud-hypervisor": ("pci",),
    "crosvm": ("pci", "pci-packed"),
    "openvmm": ("pci-packed", "pci"),
    "remote": ("mmio", "pci", "mmio-packed"),
    "snapshot": ("pci", "mmio", "pci-packed"),
    "hostile": ("pci", "mmio", "pci-packed"),
}

# Personalities on which everything works, if slowly.
WORKING = ("qemu", "firecracker", "cloud-hypervisor", "crosvm", "openvmm", "remote")

# A remote store needs longer for a flush, in milliseconds: seconds in nature, less here.
OPTIONS = {"remote": {"delay": 100}}


class NoHost:
    """The host's part of a Machine: nothing is preloaded into this QEMU."""

    slowness = 1

    @staticmethod
    def wrapper():
        """Return the command that runs QEMU."""
        return []


class Subject(served.Served, Machine):
    """A guest that survives a suspend."""

    def __init__(self, kernel, **more):
        super().__init__(kernel, NoHost(), None, sizes=(), uart=True, **more)

    def flushes(self):
        """Return how many flushes the device has done."""
        return len(self.served.notes("flush"))

    def wait_flushes(self, count):
        """Wait until the device has done so many flushes more."""
        wait(functools.partial(self.flushes), self.flushes() + count)

    def has(self, token):
        """Return whether a page of the host's image is full of a token, as page() writes it."""
        return content(token) in self.served.image.read_bytes()


def wait(counter, count, limit=LIMIT):
    """Wait until a counter has reached a number."""
    end = time.monotonic() + limit
    while counter() < count:
        assert time.monotonic() < end, f"{counter()} of {count}"
        time.sleep(0.02)


def content(token):
    """Return a page that is full of a token."""
    return (f"{token}\n" * 4096).encode()[:4096]


def page(token):
    """Return the guest's command that prints such a page."""
    return f"yes {token} | head -c 4096"


def combinations(names=WORKING, shared=False):
    """Return the parameters of a test: personality and transport, with "-packed" for such a ring.

    Tests that share a guest run on one of pytest's workers, one group for each pair.
    """
    found = []
    for name in names:
        for index, transport in enumerate(TRANSPORTS[name]):
            marks = [pytest.mark.xdist_group(f"{name}-{transport}")] if shared else []
            marks += [pytest.mark.long] if index else []
            found.append(pytest.param((name, transport), id=f"{name}-{transport}", marks=marks))
    return found
