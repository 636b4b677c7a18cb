# SPDX-License-Identifier: GPL-2.0
"""A removed driver leaves no memory allocated."""

import pytest
from machine import dsync

pytestmark = pytest.mark.only_debug

KMEMLEAK = "/sys/kernel/debug/kmemleak"

# The age in seconds from which kmemleak reports an object.
AGE = 5


def test_kmemleak(boot):
    """Kmemleak finds nothing after binds, flushes, resets, unbinds and the module's unload.

    (The exception is a device that is given up while the host holds a flush: the memory to which
    the host may still write is leaked on purpose.)
    """
    with boot() as machine:
        device = machine.device()
        disk = machine.disk(device)
        # Ignore earlier leaks, of other code.
        machine.sh(f"sleep {AGE + 1}; echo scan >{KMEMLEAK}; echo clear >{KMEMLEAK}")
        for _ in range(3):
            machine.sh(dsync(disk, 8))
            machine.sh(f"echo 1 >/sys/bus/pci/devices/{device.pci}/reset")
            machine.sh(dsync(disk, 8))
            machine.unbind(device)
            disk = machine.bind(device)
        machine.unbind(device)
        machine.sh("rmmod virtio_pmem_rust")
        # The second scan finds a pointer that was only in a register during the first.
        machine.sh(f"sleep {AGE + 1}; echo scan >{KMEMLEAK}; echo scan >{KMEMLEAK}")
        assert machine.sh(f"cat {KMEMLEAK}") == ""
