# SPDX-License-Identifier: GPL-2.0
"""Nothing that a device's life has taken is left when it is over."""

import pytest
from machine import dsync

pytestmark = pytest.mark.only_debug

KMEMLEAK = "/sys/kernel/debug/kmemleak"

# What kmemleak has not known for so long, in seconds, it does not report yet.
AGE = 5


def test_kmemleak(boot):
    """Kmemleak finds nothing after binds, flushes, a reset and unbinds, nor after the module went.

    (A device that is given up while the host still holds a flush is another matter: the memory that
    the host may write to is given up with it, on purpose.)
    """
    with boot() as machine:
        device = machine.device()
        disk = machine.disk(device)
        # What was there before is not ours.
        machine.sh(f"sleep {AGE + 1}; echo scan >{KMEMLEAK}; echo clear >{KMEMLEAK}")
        for _ in range(3):
            machine.sh(dsync(disk, 8))
            machine.sh(f"echo 1 >/sys/bus/pci/devices/{device.pci}/reset")
            machine.sh(dsync(disk, 8))
            machine.unbind(device)
            disk = machine.bind(device)
        machine.unbind(device)
        machine.sh("rmmod virtio_pmem_rust")
        # A pointer that was in a register at the first scan is found at the second.
        machine.sh(f"sleep {AGE + 1}; echo scan >{KMEMLEAK}; echo scan >{KMEMLEAK}")
        assert machine.sh(f"cat {KMEMLEAK}") == ""
