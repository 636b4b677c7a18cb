# SPDX-License-Identifier: GPL-2.0
"""Suspend, hibernation and shutdown."""

import functools
import time

import pytest
from machine import LONG_TIMEOUT, MIB, aio, both_drivers

from guest import GIB, Disk

TIMEOUT = 3
GIVES_UP = f"virtio_pmem_rust.timeout={TIMEOUT}"

VERIFY = "--verify=crc32c --verify_fatal=1"


@pytest.fixture
def boot(boot, kernel):
    """Guests that accept commands after a suspend, and have memory for a hibernation image."""
    return functools.partial(boot, uart=True, memory=GIB * (2 if kernel.name == "debug" else 1))


def test_a_lost_command_is_sent_again(boot, monkeypatch):
    """The agent ignores a part of a line, and executes a command once that it gets twice."""
    with boot() as machine:
        monkeypatch.setattr("guest.PATIENCE", 1)
        machine.agent.sendall(b"end-0123456789abcdef01234567 12 bHM")
        assert machine.sh("echo a >>/tmp/list; sleep 5; cat /tmp/list") == "a"
        assert machine.sh("cat /tmp/list") == "a"


def start_load(machine, disk):
    """Write and verify until stop_load()."""
    machine.sh("rm -f /tmp/stop")
    machine.later("load", f"""
        until [ -e /tmp/stop ]; do {aio(disk, "2m", more=VERIFY)} || exit 1; done
    """)
    machine.host.wait_begun(machine.host.begun() + 20)


def stop_load(machine):
    """End the load; fail if it had an I/O error or read wrong data."""
    machine.host.wait_begun(machine.host.begun() + 20)
    machine.sh("touch /tmp/stop")
    status, output = machine.join("load")
    assert status == 0, output


@pytest.mark.parametrize("state", [pytest.param("mem", marks=pytest.mark.on_debug), "disk"])
def test_suspend_under_load(boot, state):
    """Writers in flight continue after suspend and hibernation: no error, no lost write."""
    with boot() as machine:
        start_load(machine, machine.disk(machine.device()))
        for level in ("freezer", "devices", "devices", "platform"):
            machine.prepare_sleep(level)
            machine.sh(f"echo {state} >/sys/power/state")
            # The same load continues.
            machine.host.wait_begun(machine.host.begun() + 20)
            assert not machine.done("load")
        stop_load(machine)
        machine.check_errors()


@both_drivers
def test_suspend_mounted(boot, driver):
    """A mounted file system is intact and writable after each of five suspends."""
    with boot(driver=driver) as machine:
        machine.prepare_sleep("devices")
        machine.sh("mkfs.ext4 -q -b 4096 /dev/pmem0; mount /dev/pmem0 /mnt; mkdir /tmp/sums")
        for turn in range(5):
            machine.sh(f"""
                cd /mnt
                dd if=/dev/urandom of={turn} bs=64k count=4 conv=fsync 2>/dev/null
                sha256sum {turn} >/tmp/sums/{turn}
                echo mem >/sys/power/state
                cat /tmp/sums/* | sha256sum -c
            """)
        machine.sh("umount /mnt; e2fsck -fn /dev/pmem0 >/dev/null 2>&1")
        machine.check_errors()


def test_hibernation(boot, folder):
    """A guest that was saved to a disk and powered off continues in another QEMU.

    It has a mounted file system and, on a second device, writers in flight, none of which has an
    I/O error or reads wrong data.
    """
    devices = {"sizes": (128 * MIB, 128 * MIB), "blk": [Disk(folder / "swap", GIB)]}
    with boot(**devices) as machine:
        machine.sh("""
            mkfs.ext4 -q -b 4096 /dev/pmem0
            mount /dev/pmem0 /mnt
            dd if=/dev/urandom of=/mnt/before bs=64k count=16 conv=fsync 2>/dev/null
            dd if=/dev/urandom of=/mnt/dirty bs=64k count=16 2>/dev/null
            cd /mnt
            sha256sum before dirty >/tmp/sums
            mkswap /dev/vda >/dev/null
            swapon /dev/vda
            cat /sys/block/vda/dev >/sys/power/resume
            echo shutdown >/sys/power/disk
        """)
        machine.let_freeze()
        start_load(machine, "pmem1")
        machine.later("hibernate", "echo disk >/sys/power/state")
        assert machine.wait() == 0
    with boot(**devices, append="resume=/dev/vda", ready="hibernation exit") as machine:
        status, output = machine.join("hibernate")
        assert status == 0, output
        assert not machine.done("load")
        stop_load(machine)
        machine.sh("""
            cd /mnt
            sha256sum -c /tmp/sums
            dd if=/dev/urandom of=/mnt/after bs=64k count=16 conv=fsync 2>/dev/null
            cd /
            umount /mnt
            e2fsck -fn /dev/pmem0 >/dev/null 2>&1
        """)
        machine.check_errors()


def test_suspend_with_slow_host(boot):
    """Suspend waits for the flush that is with the host, and no caller fails."""
    with boot() as machine:
        machine.prepare_sleep("devices")
        before = machine.host.begun()
        machine.host.plan("delay 2000")
        machine.later("writer", aio("pmem0", "32k", more=VERIFY))
        machine.host.wait_begun(before + 1)
        machine.sh("echo mem >/sys/power/state")
        machine.host.plan("pass")
        status, output = machine.join("writer")
        assert status == 0, output
        machine.check_errors()


def test_suspend_with_hung_host(boot):
    """A host that does not answer aborts a suspend in bounded time, and no caller fails."""
    with boot(append=GIVES_UP) as machine:
        machine.prepare_sleep("devices")
        before = machine.host.begun()
        machine.host.plan("hang")
        machine.later("writer", aio("pmem0", "32k", more=VERIFY))
        machine.host.wait_begun(before + 1)
        start = time.monotonic()
        machine.fails("echo mem >/sys/power/state")
        # Seconds become minutes on a busy machine; the driver's default is longer.
        assert time.monotonic() - start < 100 * TIMEOUT
        machine.host.plan("pass")
        status, output = machine.join("writer")
        assert status == 0, output
        # Once the host answers, the next suspend succeeds.
        machine.sh("echo mem >/sys/power/state")
        machine.write("pmem0", 4)


@both_drivers
def test_poweroff_under_load(boot, driver):
    """A power-off with a mounted, dirty file system and busy writers ends soon."""
    # The driver's timeout must not be what ends it.
    with boot(driver=driver, append=LONG_TIMEOUT) as machine:
        machine.sh("""
            mkfs.ext4 -q -b 4096 /dev/pmem0
            mount /dev/pmem0 /mnt
            dd if=/dev/urandom of=/mnt/synced bs=64k count=16 conv=fsync 2>/dev/null
            dd if=/dev/zero of=/mnt/dirty bs=64k count=16 2>/dev/null
        """)
        sums = machine.sh("cd /mnt; sha256sum synced")
        for index in range(4):
            machine.later(f"load{index}", f"""
                while dd if=/dev/zero of=/mnt/load{index} bs=4k count=4 conv=fsync; do :; done
            """)
        machine.host.wait_begun(machine.host.begun() + 20)
        machine.send("poweroff -n -f")
        assert machine.wait() == 0
        assert "giving up" not in machine.console()
    with boot(driver=driver) as machine:
        assert machine.sh("mount /dev/pmem0 /mnt; cd /mnt; sha256sum synced") == sums
        # With the driver in C writers fail in a shutdown, and ext4 may record that as an error.
        if driver == "rust":
            machine.sh("umount /mnt; e2fsck -fn /dev/pmem0 >/dev/null 2>&1")


def test_poweroff_with_slow_host(boot):
    """A shutdown waits for a slow host, for a bounded time."""
    with boot(append=GIVES_UP) as machine:
        before = machine.host.begun()
        machine.host.plan("delay 2000")
        # These writes would take hours.
        machine.later("writer", aio("pmem0", "100m", more=VERIFY))
        machine.host.wait_begun(before + 1)
        machine.send("poweroff -n -f")
        assert machine.wait() == 0
