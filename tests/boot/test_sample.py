# SPDX-License-Identifier: GPL-2.0
"""The samples of virtio drivers in Rust, on devices that any QEMU has."""

import contextlib
import re
import time

import pytest
from injection import prepare, set_probability, text_of
from machine import LIMIT, MIB

from guest import GIB

SAMPLE = "/sys/bus/virtio/drivers/rust_driver_virtio"
ORIGINAL = "/sys/bus/virtio/drivers/virtio_rng"
BALLOON = "/sys/bus/virtio/drivers/rust_driver_virtio_balloon"

# The balloon's path in QEMU.
DEVICE = "/machine/peripheral/balloon0"

# What the host takes of a guest's memory, and by how much a guest's use of memory may vary.
TAKEN = 512 * MIB
SLACK = 32 * MIB

AVAILABLE = "awk '/^MemAvailable/ { print $2 }' /proc/meminfo"


def test_virtio_rng(boot):
    """The sample gets random bytes from a device at each bind, and releases it at each unbind."""
    with boot(driver="none", sizes=(), args=("-device", "virtio-rng-pci")) as machine:
        # Both drivers have the alias, so both are loaded; the kernel's own was first.
        device = machine.sh(f"cd {ORIGINAL}; echo virtio*")
        machine.sh(f"echo {device} >{ORIGINAL}/unbind")
        for _ in range(3):
            machine.sh(f"dmesg -c >/dev/null; echo {device} >{SAMPLE}/bind")
            machine.until("dmesg | grep -q 'random bytes'")
            (found,) = re.findall(r"random bytes: \[(.*)\]", machine.sh("dmesg"))
            assert len(set(found.split(", "))) > 1
            machine.sh(f"echo {device} >{SAMPLE}/unbind")
        machine.sh(f"""
            rmmod rust_driver_virtio
            echo {device} >{ORIGINAL}/bind
            dd if=/dev/hwrng of=/dev/null bs=16 count=4
        """)


@pytest.mark.on_debug
def test_bind_and_unbind_during_resets(boot):
    """A reset of the function finds a driver that is bound as a whole, or none.

    (The kernel's own driver cannot take turns here: it has no callback for a reset, and may wait
    for ever for what a reset has lost.)
    """
    port = ("-device", "pcie-root-port,id=root,chassis=9,bus=pcie.0")
    with boot(driver="none", sizes=(),
              args=(*port, "-device", "virtio-rng-pci,bus=root")) as machine:
        device = machine.sh(f"cd {ORIGINAL}; echo virtio*")
        function = machine.sh(f"readlink -f /sys/bus/virtio/devices/{device}/..")
        machine.sh(f"echo {device} >{ORIGINAL}/unbind")
        machine.later("resets", f"until [ -e /tmp/stop ]; do echo 1 >{function}/reset; done")
        for _ in range(20):
            machine.sh(f"echo {device} >{SAMPLE}/bind; echo {device} >{SAMPLE}/unbind")
        machine.sh("touch /tmp/stop")
        assert machine.join("resets") == (0, "")
        machine.sh(f"dmesg -c >/dev/null; echo {device} >{SAMPLE}/bind")
        machine.until("dmesg | grep -q 'random bytes'")


class Balloon:
    """The balloon of a guest, whose host gives memory to it in the beginning."""

    def __init__(self, machine):
        self.machine = machine
        self.device = machine.sh(f"cd {BALLOON}; echo virtio*")
        self.most = self.actual()
        self.before = self.available()

    def actual(self):
        """Return how much memory the host has left to the guest, as the driver reports it."""
        return self.machine.qmp("query-balloon")["actual"]

    def available(self):
        """Return how much memory the guest has left."""
        return 1024 * int(self.machine.sh(AVAILABLE))

    def set(self, taken):
        """Have the host take so much memory."""
        self.machine.qmp("balloon", {"value": self.most - taken})

    def wait(self, condition):
        """Wait until a condition on the host is true."""
        limit = time.monotonic() + LIMIT * self.machine.slowness
        while not condition():
            if time.monotonic() > limit:
                raise self.machine.error("the balloon has not the wanted size: the host leaves "
                                         f"{self.actual()}, available {self.available()}")
            time.sleep(0.1)

    def check(self, taken):
        """Wait until the host has so much memory, and the guest has the rest."""
        self.wait(lambda: self.actual() == self.most - taken)
        # Lists of free pages of the processors are no available memory, until the kernel shrinks
        # them.
        self.wait(lambda: abs(self.before - taken - self.available()) < SLACK)

    def check_whole(self):
        """Check that the guest of an unbound driver gets all its memory."""
        assert self.actual() == self.most
        self.check(0)

    def unbind(self):
        """Unbind the driver; check that the guest gets all its memory."""
        self.machine.sh(f"echo {self.device} >{BALLOON}/unbind")
        self.check_whole()

    def bind(self):
        """Bind the driver again."""
        self.machine.sh(f"echo {self.device} >{BALLOON}/bind")

    def unbind_during(self, old, new):
        """Unbind the driver when the host takes another amount than before, and a part of it."""
        limit = (self.before - (old + new) // 2) // 1024
        relation = "-lt" if new > old else "-gt"
        self.machine.later("unbind", f"""
            until [ $({AVAILABLE}) {relation} {limit} ]; do :; done
            echo {self.device} >{BALLOON}/unbind
        """)
        self.set(new)
        assert self.machine.join("unbind") == (0, "")
        self.check_whole()

    def check_statistic(self, taken):
        """Wait until the driver has reported that the guest has the rest of its memory left."""
        def is_reported():
            stats = self.machine.qmp("qom-get", {"path": DEVICE, "property": "guest-stats"})
            available = stats["stats"]["stat-available-memory"]
            return abs(self.before - taken - available) < SLACK
        self.wait(is_reported)


@pytest.fixture(name="balloon")
def start_balloon(boot, kernel):
    """A function that boots a guest with a balloon."""
    @contextlib.contextmanager
    def start(**options):
        memory = GIB * (2 if kernel.name == "debug" else 1)
        with boot(driver="none", sizes=(), memory=memory,
                  args=("-device", "virtio-balloon-pci,id=balloon0"), **options) as machine:
            yield Balloon(machine)
    return start


def test_balloon_takes_and_returns_memory(balloon):
    """The guest's memory follows the host's wishes, and is whole after an unbind."""
    with balloon() as guest:
        for taken in TAKEN, TAKEN // 4, TAKEN // 2, 0, TAKEN:
            guest.set(taken)
            guest.check(taken)
        guest.unbind()
        guest.bind()
        # The host still wants it.
        guest.check(TAKEN)
        guest.machine.sh("rmmod rust_driver_virtio_balloon")
        guest.check(0)


def test_balloon_statistics(balloon):
    """The host gets the amount of available memory again and again."""
    with balloon() as guest:
        guest.machine.qmp("qom-set", {"path": DEVICE, "value": 1,
                                      "property": "guest-stats-polling-interval"})
        for taken in 0, TAKEN, 0:
            guest.set(taken)
            guest.check_statistic(taken)


@pytest.mark.on_debug
def test_balloon_is_unbound_under_load(balloon):
    """The driver is unbound while it inflates the balloon, and while it deflates it."""
    with balloon() as guest:
        for _ in range(3):
            guest.unbind_during(0, TAKEN)
            guest.bind()
            guest.check(TAKEN)
            guest.unbind_during(TAKEN, 0)
            guest.bind()
        guest.set(TAKEN)
        guest.check(TAKEN)


@pytest.mark.only_debug
def test_balloon_without_memory(balloon):
    """The driver waits while allocations fail, can be unbound meanwhile, and then continues."""
    with balloon() as guest:
        text = text_of(guest.machine, "rust_driver_virtio_balloon")
        # Without ignore-gfp-wait: the driver can be bound meanwhile.
        prepare(guest.machine, "fail_page_alloc", text,
                {"times": -1, "ignore-gfp-highmem": "N", "min-order": 0})
        set_probability(guest.machine, ["fail_page_alloc"], 100)
        guest.set(TAKEN)
        guest.machine.until("dmesg | grep -q 'no memory: '")
        assert guest.actual() == guest.most
        guest.unbind()
        guest.bind()
        set_probability(guest.machine, ["fail_page_alloc"], 0)
        guest.check(TAKEN)


def test_balloon_in_a_suspend(balloon):
    """The guest has all its memory in a suspend, and the balloon its size afterwards."""
    with balloon(uart=True) as guest:
        guest.machine.prepare_sleep("devices")
        for taken in TAKEN, TAKEN // 2, 0, TAKEN:
            guest.set(taken)
            guest.check(taken)
            guest.machine.sh("echo mem >/sys/power/state")
            guest.check(taken)
        guest.set(0)
        guest.check(0)
