# SPDX-License-Identifier: GPL-2.0
"""The driver on hosts of each kind: what users do with the disk."""

import re

import pytest
from machine import lent
from subject import MIB, OPTIONS, combinations, page, wait
from suite import temporary

import settings
from file_systems import MAKE, check

# Feature bits that the driver or the virtio core understands, and INDIRECT_DESC, which the driver
# refuses because it allocates.
INDIRECT_DESC = 1 << 28
RING_PACKED = 1 << 34
UNDERSTOOD = 1 << 0 | 1 << 29 | 1 << 32 | 1 << 33 | RING_PACKED

# Seconds of the load of many jobs.
LOAD = 60 if settings.flag("LONG") else 5


def write(path):
    """Return the guest's command that writes a page with O_DIRECT and O_SYNC."""
    return f'xfs_io -f -d -s -c "pwrite -q -i /tmp/page -b 4k 0 4k" {path}'


def fsync(name, at, disk):
    """Return the guest's command that writes a page and makes it durable by a single flush."""
    return f'xfs_io -c "pwrite -q -i /tmp/{name} -b 4k {at}k 4k" -c fsync /dev/{disk}'


@pytest.fixture(scope="module", params=combinations(shared=True))
def shared(request, make):
    """The guest that the tests of a personality on a transport share."""
    personality, transport = request.param
    with temporary() as folder:
        guest = make(personality, transport, folder, OPTIONS.get(personality, {}) | {"seed": 1})
        yield guest
        guest.close()


@pytest.fixture
def machine(request, shared):
    """That guest, running; a failed test ends it, the next boots again."""
    with lent(shared, request.session) as guest:
        yield guest


def test_probe(machine):
    """The disk is there, and only features that the driver understands are negotiated.

    Among those it does not understand is crosvm's DISCARD, bit 63.
    """
    device = machine.device()
    assert machine.bound(device) == "virtio_pmem_rust"
    assert machine.sh(f"cat /sys/block/{machine.disk(device)}/size") == str(64 * MIB // 512)
    (acked,) = machine.served.notes("features")[-1]
    assert int(acked, 16) & ~UNDERSTOOD == 0
    assert bool(int(acked, 16) & RING_PACKED) == ("packed" in machine.served.options)
    bits = machine.sh(f"cat {device.path}/features")
    negotiated = sum(1 << number for number, bit in enumerate(bits) if bit == "1")
    assert negotiated & (1 << 63 | INDIRECT_DESC) == 0
    machine.check_errors()


@pytest.mark.parametrize("fs", list(MAKE))
def test_file_system(machine, fs):
    """What fsync, O_DSYNC and msync acknowledge is in the host's image; it changes by nothing else.
    """
    disk = machine.disk(machine.device())
    machine.sh(f"""
        {MAKE[fs]} /dev/{disk}
        mount -o dax /dev/{disk} /mnt
        grep -q ' /mnt .*dax' /proc/mounts
        {page(f"{fs}-fsync")} >/mnt/fsync
        xfs_io -c fsync /mnt/fsync
        xfs_io -f -c "truncate 4k" -c "mmap 0 4k" -c "mwrite -S 0x61 0 4k" -c "msync -s" /mnt/msync
        umount /mnt
        mount /dev/{disk} /mnt
        {page(f"{fs}-dsync")} >/tmp/page
        {write("/mnt/dsync")}
    """)
    assert machine.has(f"{fs}-fsync")
    assert machine.has(f"{fs}-dsync")
    assert b"a" * 4096 in machine.served.image.read_bytes()
    machine.sh(f"""
        umount /mnt
        {check(fs, disk)}
    """)
    machine.check_errors()


def test_nothing_without_a_flush(machine):
    """A store that nothing has made durable is not in the image: the image proves something."""
    disk = machine.disk(machine.device())
    # The file system does not flush by itself meanwhile.
    machine.sh(f"""
        {MAKE["ext4"]} /dev/{disk}
        mount -o dax,commit=3600,noinit_itable /dev/{disk} /mnt
        {page("unsynced")} >/mnt/file
    """)
    assert not machine.has("unsynced")
    machine.sh("xfs_io -c fsync /mnt/file; umount /mnt")
    assert machine.has("unsynced")


def test_rebind(machine):
    """Unbinding waits for what is in flight, and the device works when it is bound again."""
    device = machine.device()
    for turn in range(3):
        disk = machine.disk(device)
        machine.sh(f"{page(f'turn{turn}')} >/tmp/page")
        machine.later("writer", write(f"/dev/{disk}"))
        assert machine.join("writer")[0] == 0
        machine.unbind(device)
        assert machine.has(f"turn{turn}")
        disk = machine.bind(device)
        read = machine.sh(f"head -c 4096 /dev/{disk} | sha256sum; sha256sum </tmp/page")
        assert len(set(read.splitlines())) == 1
    machine.check_errors()


def start_load(machine, disk):
    """Write and verify until stop_load()."""
    machine.sh("rm -f /tmp/stop")
    machine.later("load", f"""
        until [ -e /tmp/stop ]; do
            fio --name=load --filename=/dev/{disk} --ioengine=libaio --direct=1 --sync=dsync \\
                --rw=write --bs=4k --size=64k --iodepth=4 --thread --allow_file_create=0 \\
                --verify=crc32c --verify_fatal=1 || exit 1
        done
    """)
    machine.wait_flushes(5)


def stop_load(machine):
    """End the load; it had no error."""
    machine.wait_flushes(5)
    machine.sh("touch /tmp/stop")
    status, output = machine.join("load")
    assert status == 0, output


def test_reset(machine):
    """Resets of the PCI function under load fail no caller."""
    if machine.served.transport != "pci":
        pytest.skip("MMIO has no reset of a function")
    device = machine.device()
    start_load(machine, machine.disk(device))
    for _ in range(3):
        machine.sh(f"echo 1 >/sys/bus/pci/devices/{device.pci}/reset")
        machine.wait_flushes(5)
    stop_load(machine)
    machine.check_errors()


def test_suspend(machine):
    """Writers continue after a suspend."""
    start_load(machine, machine.disk(machine.device()))
    for _ in range(2):
        machine.prepare_sleep("devices")
        machine.sh("echo freeze >/sys/power/state")
        machine.wait_flushes(5)
    stop_load(machine)
    machine.check_errors()


def test_many_jobs(machine, record_property):
    """64 jobs share flushes."""
    disk = machine.disk(machine.device())
    before = machine.flushes()
    text = machine.sh(f"""
        fio --name=jobs --filename=/dev/{disk} --numjobs=64 --thread --size=64k \\
            --offset_increment=64k --bs=4k --rw=write --ioengine=psync --fsync=1 --time_based \\
            --runtime={LOAD} --group_reporting --allow_file_create=0
    """, timeout=LOAD + 300)
    done = int(re.search(r"issued rwts: total=\d+,(\d+)", text)[1])
    flushes = machine.flushes() - before
    record_property("fsyncs_per_flush", round(done / flushes, 1))
    assert done > 2 * flushes
    machine.check_errors()


def test_arrival_in_flight(machine):
    """A caller that arrives after the write-back is not acknowledged by that flush's answer."""
    device = machine.device()
    disk = machine.disk(device)
    for turn in range(5):
        flushes, callers = machine.flushes(), machine.stats(device)["callers"]
        machine.sh(f"{page(f'first{turn}')} >/tmp/first; {page(f'second{turn}')} >/tmp/second")
        with machine.served.holding():
            machine.later("first", fsync("first", 0, disk))
            wait(machine.flushes, flushes + 1)
            machine.later("second", fsync("second", 4, disk))
            machine.wait_stat(device, "callers", callers + 2)
        for name in ("first", "second"):
            assert machine.join(name)[0] == 0
            assert machine.has(f"{name}{turn}")
    machine.check_errors()


def test_empty_kicks(machine):
    """The driver kicks for requests alone; QEMU's device would break otherwise."""
    disk = machine.disk(machine.device())
    machine.sh(f"{page('kick')} >/tmp/page")
    for _ in range(10):
        machine.later("writer", write(f"/dev/{disk}"))
        wait(lambda: bool(machine.served.notes("empty")) or machine.done("writer"), True)
        assert machine.served.notes("empty") == []
    assert machine.served.notes("malformed") == []
