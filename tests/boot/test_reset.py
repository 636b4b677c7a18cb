# SPDX-License-Identifier: GPL-2.0
"""Resets of a bound device: callers wait, and their flushes are sent again."""

import pytest
from machine import LONG_TIMEOUT, MIB, aio, dsync
from qtest import Qtest

MACHINE = {"append": LONG_TIMEOUT}

NEEDS_RESET = 0x40

# The driver's message for each recovery.
RECOVERS = "needs a reset, recovering"


def start_writers(machine, disk):
    """Start callers of both kinds, which run until finish_writers()."""
    machine.sh("rm -f /tmp/stop")
    for index in range(4):
        machine.later(f"writer{index}", f"""
            until [ -e /tmp/stop ]; do {dsync(disk, 16, 1024 + 16 * index)} || exit 1; done
        """)
    machine.later("bios", f"""
        until [ -e /tmp/stop ]; do
            {aio(disk, "1m", more="--verify=crc32c --verify_fatal=1")} || exit 1
        done
    """)
    machine.host.wait_begun(machine.host.begun() + 20)


def finish_writers(machine):
    """Check that the writers continue, and end them; none may have failed."""
    machine.host.wait_begun(machine.host.begun() + 20)
    machine.sh("touch /tmp/stop")
    for name in ("bios", *(f"writer{index}" for index in range(4))):
        status, output = machine.join(name)
        assert status == 0, output


def reset(machine, device):
    """Reset the PCI function."""
    machine.sh(f"echo 1 >/sys/bus/pci/devices/{device.pci}/reset")


@pytest.mark.on_debug
def test_function_reset_under_load(machine):
    """A reset of the PCI function fails no caller."""
    device = machine.device()
    start_writers(machine, machine.disk(device))
    for _ in range(5):
        reset(machine, device)
        machine.host.wait_begun(machine.host.begun() + 5)
    finish_writers(machine)
    machine.check_errors()


def test_function_reset_waits(machine):
    """A reset waits for the flush that is with the host, so that its answer cannot be mistaken.

    A flush after the reset waits for an fsync of its own.
    """
    device = machine.device()
    disk = machine.disk(device)
    for _ in range(3):
        before, callers = machine.host.begun(), machine.stats(device)["callers"]
        machine.host.plan("hang")
        machine.later("first", f"xfs_io -c fsync /dev/{disk}")
        machine.host.wait_begun(before + 1)
        machine.later("reset", f"echo 1 >/sys/bus/pci/devices/{device.pci}/reset")
        machine.until_within("reset_store")
        machine.later("second", f"xfs_io -c fsync /dev/{disk}")
        machine.wait_stat(device, "callers", callers + 2)
        machine.sh("sleep 1")
        assert not machine.done("reset")
        assert machine.host.begun() == before + 1
        machine.host.plan("pass")
        for name in ("first", "reset", "second"):
            status, output = machine.join(name)
            assert status == 0, output
        assert machine.host.ended() >= before + 2
    machine.check_errors()


@pytest.mark.on_debug
def test_function_reset_against_unbind(machine):
    """Resets delay an unbind and a bind, but neither stops the other or fails a flush."""
    device = machine.device()
    disk = machine.disk(device)
    machine.later("resets", f"""
        until [ -e /tmp/stop ]; do echo 1 >/sys/bus/pci/devices/{device.pci}/reset; done
    """)
    for turn in range(10):
        machine.sh(f"xfs_io -c fsync /dev/{disk}; usleep {turn * 10000}")
        # The driver's timeout is too long to end it.
        machine.unbind(device)
        disk = machine.bind(device)
    machine.sh("touch /tmp/stop")
    assert machine.join("resets") == (0, "")
    machine.write(disk, 4)
    machine.check_errors()


def needs_reset(machine, device):
    """Return whether a device needs a reset."""
    return int(machine.sh(f"cat {device.path}/status"), 16) & NEEDS_RESET != 0


def test_needs_reset(boot, folder):
    """A device that needs a reset gets exactly one."""
    qtest = Qtest(folder)
    with boot(sizes=(256 * MIB,), args=qtest.args) as machine:
        device = machine.device()
        disk = machine.disk(device)
        for turn in range(1, 6):
            qtest.break_device(machine, device)
            machine.until(f"[ $(dmesg | grep -c '{RECOVERS}') = {turn} ]")
            machine.write(disk, 4)
            assert not needs_reset(machine, device)
            assert machine.stats(device)["recoveries"] == turn
        machine.sh("sleep 1")
        assert machine.stats(device)["recoveries"] == 5
        machine.check_errors()


@pytest.mark.on_debug
def test_needs_reset_under_load(boot, folder):
    """A device that repeatedly needs a reset under load fails no caller.

    The late answer to a flush that a reset has lost may cause one more recovery.
    """
    qtest, times = Qtest(folder), 5
    with boot(sizes=(256 * MIB,), args=qtest.args) as machine:
        device = machine.device()
        disk = machine.disk(device)
        start_writers(machine, disk)
        for _ in range(times):
            # Flushes succeed in between: the driver does not repeat a recovery that did not help.
            machine.host.wait_begun(machine.host.begun() + 20)
            recoveries = machine.console().count(RECOVERS)
            qtest.break_device(machine, device)
            # The host reads the console: a command would slow down the recovery.
            machine.wait_console(rf"(?s)({RECOVERS}.*){{{recoveries + 1}}}")
        finish_writers(machine)
        assert not needs_reset(machine, device)
        assert times <= machine.stats(device)["recoveries"] <= 2 * times
        machine.check_errors()
