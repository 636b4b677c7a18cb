# SPDX-License-Identifier: GPL-2.0
"""Random operations on a device, with 64 writers.

LONG=1 runs for an hour, and for ten minutes on Debian's kernel, under another QEMU, and on arm64:
an hour for each would be half of all tests. SEED=number repeats a run's decisions.
"""

import os
import random
import time

import pytest
from machine import LIFE, LIMIT, MIB, aio

import settings
from guest import GIB

# Half of them sleep, the other half submit bios. They fail when their disk disappears, and start
# again. The shell opens the disk: fio unlinks a name that did not exist when fio started, and by
# then it may be the new disk's.
LOAD = """
until [ -e /tmp/stop ]; do
    disk=$(ls /sys/block | grep pmem) && fio --filename=/proc/self/fd/3 \\
        --rw=randwrite --bs=4k --size=32m --thread --time_based --runtime=600 --numjobs=32 \\
        --name=sleepers --ioengine=psync --fsync=1 \\
        --name=bios --ioengine=libaio --iodepth=4 --direct=1 --sync=dsync \\
        3</dev/$disk >/dev/null 2>&1
    usleep 100000
done
"""


def duration(kernel):
    """Return for how many seconds a kernel's guest is tested."""
    if not settings.flag("LONG"):
        return 30
    is_main = kernel.name != "debian" and settings.arch() == "x86_64" and not settings.get("QEMU")
    return 3600 if is_main else 600


class Stress:
    """A guest, and operations on its only device."""

    def __init__(self, machine, seed):
        self.machine, self.random = machine, random.Random(seed)
        self.done = []

    def rebind(self):
        """Unbind the device and bind it again."""
        device = self.machine.device()
        self.machine.unbind(device)
        self.machine.bind(device)

    def reset(self):
        """Reset the PCI function."""
        device = self.machine.device()
        self.machine.sh(f"echo 1 >/sys/bus/pci/devices/{device.pci}/reset")

    def rescan(self):
        """Remove the PCI function, and rescan."""
        self.machine.remove(self.machine.device())
        self.machine.rescan()

    def suspend(self):
        """Suspend all devices for a second."""
        self.machine.sh(f"""
            echo {self.random.choice(("devices", "platform"))} >/sys/power/pm_test
            # If a task cannot be frozen, the console gets the processors' stacks.
            echo {self.random.choice(("mem", "disk"))} >/sys/power/state ||
                {{ echo l >/proc/sysrq-trigger; sleep 3; exit 1; }}
        """)

    def slow_host(self):
        """Make the host slow."""
        self.machine.host.plan(f"delay {self.random.choice((10, 100, 500))}")

    def failing_host(self):
        """Make the host fail some flushes."""
        self.machine.host.plan(f"fail {self.random.choice((1, 2, 10))}")

    def good_host(self):
        """Make the host execute flushes normally."""
        self.machine.host.plan("pass")

    def run(self, duration):
        """Execute random operations for this many seconds, and no fewer than there are kinds."""
        actions = [self.rebind, self.rescan, self.suspend, self.slow_host, self.failing_host,
                   self.good_host]
        # Debian's kernel does not report it to the driver, so it loses a flush: test_stock.py.
        if self.machine.kernel.name != "debian":
            actions.append(self.reset)
        end = time.monotonic() + duration
        while time.monotonic() < end or len(self.done) < len(actions):
            action = self.random.choice(actions)
            self.done.append(action.__name__)
            action()
            time.sleep(self.random.uniform(0, 0.5))
            self.machine.check()


@pytest.mark.on_debug
@pytest.mark.parametrize("seed", [int(os.environ["SEED"])])
def test_stress(boot, kernel, seed):
    """After any sequence of operations the device works, and no caller hangs."""
    seconds = duration(kernel)
    # A hibernation image of a debug kernel needs as much memory again.
    with boot(uart=True, timeout=seconds + LIFE, sizes=(64 * MIB,), memory=2 * GIB) as machine:
        # A task that touches the device's memory cannot be frozen while the host reads the page.
        machine.sh(f"""
            echo 1 >/sys/module/suspend/parameters/pm_test_delay
            echo 1 >/sys/module/hibernate/parameters/pm_test_delay
            echo {1000 * LIMIT * machine.slowness} >/sys/power/pm_freeze_timeout
        """)
        machine.later("load", LOAD)
        machine.host.wait_begun(machine.host.begun() + 20)
        stress = Stress(machine, seed)
        try:
            stress.run(seconds)
        finally:
            print("done:", *stress.done)
        machine.host.plan("pass")
        before = machine.host.begun()
        machine.sh("touch /tmp/stop")
        # The loop may be about to start fio.
        machine.until("killall fio 2>/dev/null; [ -e /tmp/load.status ]")
        machine.join("load")
        # The device works as before.
        disk = machine.disk(machine.device())
        machine.sh(aio(disk, "1m", more="--verify=crc32c --verify_fatal=1"))
        assert machine.host.begun() > before
