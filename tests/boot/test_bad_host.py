# SPDX-License-Identifier: GPL-2.0
"""Hosts that fail flushes, and hosts that do not answer them."""

import pytest
from machine import aio, both_drivers, dsync

TIMEOUT = 3
GIVES_UP = f"virtio_pmem_rust.timeout={TIMEOUT}"


@both_drivers
def test_failed_flush(boot, driver):
    """A flush that the host fails is an I/O error for its callers; the next flush succeeds."""
    with boot(driver=driver) as machine:
        disk = machine.disk(machine.device())
        commands = (f"xfs_io -c fsync /dev/{disk}", dsync(disk, 1), aio(disk, "64k"))
        for _ in range(3):
            for command in commands:
                machine.host.plan("fail")
                before = machine.host.begun()
                assert "Input/output error" in machine.fails(command)
                assert machine.host.begun() > before
                machine.host.plan("pass")
                machine.sh(command)


def test_failed_flush_for_many(boot):
    """Writers that share a failed flush all fail, and the next ones succeed."""
    with boot() as machine:
        device = machine.device()
        disk = machine.disk(device)
        callers = machine.stats(device)["callers"]
        machine.host.plan("hang")
        for index in range(8):
            machine.later(f"writer{index}", dsync(disk, 1, index))
        machine.wait_stat(device, "callers", callers + 8)
        machine.host.plan("fail")
        for index in range(8):
            status, output = machine.join(f"writer{index}")
            assert status != 0
            assert "Input/output error" in output
        machine.host.plan("pass")
        machine.write(disk, 8)


def test_file_system_survives_failure(boot):
    """A failed flush fails an fsync in a file system; after a repair, the file system works."""
    with boot() as machine:
        disk = machine.disk(machine.device())
        machine.sh(f"""
            mkfs.ext4 -q -b 4096 /dev/{disk}
            mount /dev/{disk} /mnt
            dd if=/dev/urandom of=/mnt/file bs=4k count=16 conv=fsync 2>/dev/null
            sha256sum /mnt/file >/tmp/sum
        """)
        machine.host.plan("fail")
        machine.fails("dd if=/dev/zero of=/mnt/other bs=4k count=1 conv=fsync 2>&1")
        machine.host.plan("pass")
        machine.run("umount /mnt")
        # e2fsck returns 1 when it has corrected something.
        machine.sh(f"""
            e2fsck -fy /dev/{disk} >/dev/null 2>&1 || [ $? = 1 ]
            mount /dev/{disk} /mnt
            sha256sum -c /tmp/sum
            umount /mnt
        """)


@pytest.mark.on_debug
def test_hung_host_at_unbind(boot):
    """A host that never answers delays an unbind for a bounded time, and callers fail."""
    with boot(append=GIVES_UP) as machine:
        device = machine.device()
        disk = machine.disk(device)
        before = machine.host.begun()
        machine.host.plan("hang")
        machine.later("sleeper", f"xfs_io -c fsync /dev/{disk}")
        machine.later("writer", aio(disk, "64k"))
        machine.host.wait_begun(before + 1)
        # Seconds become minutes on a busy machine; the driver's default is longer.
        assert machine.unbind(device) < 100 * TIMEOUT
        for name in ("sleeper", "writer"):
            status, output = machine.join(name)
            assert status != 0, output
        machine.wait_console("virtio_pmem_rust .*the host does not answer")
        machine.host.plan("pass")
        # QEMU raises its interrupt line for the old request's answer, but no driver handles it: the
        # IO-APIC loses it, and no interrupt follows until the function is reset.
        machine.host.wait_ended(before + 1)
        machine.sh(f"echo 1 >/sys/bus/pci/devices/{device.pci}/reset")
        disk = machine.bind(device)
        machine.write(disk, 4)


def test_limit_changes_while_waiting(boot):
    """An unbind that waits for a hung host reports it, and ends when the limit is lowered."""
    with boot(append="virtio_pmem_rust.timeout=100000") as machine:
        device = machine.device()
        disk = machine.disk(device)
        before = machine.host.begun()
        machine.host.plan("hang")
        machine.later("sleeper", f"xfs_io -c fsync /dev/{disk}")
        machine.host.wait_begun(before + 1)
        machine.later("unbind", f"echo {device.virtio} >{device.path}/driver/unbind")
        machine.sh(f"echo 8 >{machine.debugfs(device, 'timeout')}")
        machine.wait_console("removal: waiting for the host's answer to a flush, "
                             "for [0-9]+ s so far, the limit is 8 s")
        status, output = machine.join("sleeper")
        assert status != 0, output
        assert machine.join("unbind")[0] == 0
        machine.host.plan("pass")


def lose(machine, disk):
    """Start a caller whose flush the host loses."""
    begun = machine.host.begun()
    machine.host.plan(f"lose {begun + 1}")
    machine.later("caller", f"xfs_io -c fsync /dev/{disk}")
    machine.host.wait_begun(begun + 1)


@both_drivers
def test_lost_answer(boot, driver):
    """A flush that the host has lost is sent again, and its late answer is no other's.

    With the driver in C the caller waits for the late answer.
    """
    with boot(driver=driver, append=f"virtio_pmem_rust.resend_after={TIMEOUT}") as machine:
        device = machine.device()
        disk = machine.disk(device)
        for turn in range(1, 4):
            before = machine.host.ended()
            lose(machine, disk)
            if driver == "c":
                machine.sh(f"sleep {3 * TIMEOUT}")
                assert not machine.done("caller")
                machine.host.plan("pass")
                assert machine.join("caller")[0] == 0
                continue
            machine.wait_console(rf"(?s)(sending it again after a reset.*){{{turn}}}")
            status, output = machine.join("caller")
            assert status == 0, output
            # The host still holds the first of the two.
            assert machine.host.ended() >= before + 1
            assert machine.host.begun() > machine.host.ended()
            machine.write(disk, 4)
            machine.host.plan("pass")
            machine.host.wait_ended(machine.host.begun())
            machine.write(disk, 4)
            assert machine.stats(device)["lost"] >= turn
        machine.check_errors()


def test_lost_answer_is_reported(boot):
    """Without the parameter a message says what to do, and that helps at once."""
    with boot() as machine:
        device = machine.device()
        disk = machine.disk(device)
        lose(machine, disk)
        machine.wait_console("no answer to a flush for 60 s, callers wait; if the host has lost "
                             "it, write .*resend_after")
        assert not machine.done("caller")
        machine.sh(f"echo 1 >{machine.debugfs(device, 'resend_after')}")
        status, output = machine.join("caller")
        assert status == 0, output
        assert machine.stats(device)["recoveries"] == 1
        machine.host.plan("pass")


@both_drivers
def test_slow_host(boot, driver):
    """Many callers write and verify data on a host that needs a tenth of a second per flush."""
    with boot(driver=driver) as machine:
        disk = machine.disk(machine.device())
        machine.host.plan("delay 100")
        machine.sh(f"""
            fio --name=slow --filename=/dev/{disk} --numjobs=8 --size=16k \\
                --offset_increment=16k --bs=4k --rw=write --direct=1 --ioengine=psync --sync=1 \\
                --verify=crc32c --verify_fatal=1
        """)
        machine.check_errors()
