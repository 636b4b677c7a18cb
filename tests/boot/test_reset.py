# SPDX-License-Identifier: GPL-2.0
"""Resets of the device under the driver's feet: callers wait, and their flushes are sent again."""

import pytest
from machine import MIB, PATIENT, aio, dsync
from poke import Poke

MACHINE = {"append": PATIENT}

NEEDS_RESET = 0x40

# What the driver says of each recovery.
RECOVERS = "needs a reset, recovering"


def start_writers(machine, disk):
    """Let both kinds of callers work until finish_writers()."""
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
    """End the writers; none may have failed, and they must have gone on."""
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
    """A reset waits for the flush that is with the host, so that no answer is taken for another's.

    The flush that comes after the reset waits for an fsync of its own.
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
    """Resets that meet an unbind delay it, but neither stops the other or fails a flush.

    (A bind that meets a reset is another matter: the virtio core does not tell a driver of resets
    that have begun before it came.)
    """
    device = machine.device()
    for turn in range(10):
        disk = machine.disk(device)
        machine.sh("rm -f /tmp/stop")
        machine.later("resets", f"""
            until [ -e /tmp/stop ]; do echo 1 >/sys/bus/pci/devices/{device.pci}/reset; done
        """)
        machine.sh(f"xfs_io -c fsync /dev/{disk}; usleep {turn * 10000}")
        # It is not the driver's time limit that ends it.
        machine.unbind(device)
        machine.sh("touch /tmp/stop")
        status, output = machine.join("resets")
        assert status == 0, output
        machine.bind(device)
    machine.write(machine.disk(device), 4)
    machine.check_errors()


def needs_reset(machine, device):
    """Tell whether a device waits for a reset."""
    return int(machine.sh(f"cat {device.path}/status"), 16) & NEEDS_RESET != 0


def test_needs_reset(boot, folder):
    """A device that asks for a reset gets exactly one."""
    poke = Poke(folder)
    with boot(sizes=(256 * MIB,), args=poke.args) as machine:
        device = machine.device()
        disk = machine.disk(device)
        for turn in range(1, 6):
            poke.ask_for_reset(machine, device)
            machine.until(f"[ $(dmesg | grep -c '{RECOVERS}') = {turn} ]")
            machine.write(disk, 4)
            assert not needs_reset(machine, device)
            assert machine.stats(device)["recoveries"] == turn
        machine.sh("sleep 1")
        assert machine.stats(device)["recoveries"] == 5
        machine.check_errors()


@pytest.mark.on_debug
def test_needs_reset_under_load(boot, folder):
    """A device that asks for a reset under load, again and again, fails no caller.

    A flush that the reset has lost may cost one recovery more, when its answer comes too late.
    """
    poke, times = Poke(folder), 5
    with boot(sizes=(256 * MIB,), args=poke.args) as machine:
        device = machine.device()
        disk = machine.disk(device)
        start_writers(machine, disk)
        for _ in range(times):
            # With time for success in between: what does not help is not tried again.
            machine.host.wait_begun(machine.host.begun() + 20)
            recoveries = machine.console().count(RECOVERS)
            poke.ask_for_reset(machine, device)
            # The console is looked at from outside: a command would slow down the recovery.
            machine.wait_console(rf"(?s)({RECOVERS}.*){{{recoveries + 1}}}")
        finish_writers(machine)
        assert not needs_reset(machine, device)
        assert times <= machine.stats(device)["recoveries"] <= 2 * times
        machine.check_errors()
