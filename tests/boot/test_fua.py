# SPDX-License-Identifier: GPL-2.0
"""FUA is advertised: O_DSYNC through a file system is one bio, not a write and a flush."""

import re

import pytest
from machine import MIB, shared_by_both

from file_systems import MAKE

# The minimum of mkfs.xfs.
MACHINE = {"sizes": (320 * MIB,)}

# Without periodic work: ext4 commits its log, XFS covers its own.
QUIET = {"ext4": "mount -t ext4 -o commit=3600",
         "xfs": "modprobe -q xfs || :; echo 720000 >/proc/sys/fs/xfs/xfssyncd_centisecs; mount"}

# A bio's flags in the block layer's trace events.
FUA, FLUSH = "WFS", "FWS"


def write(count, more=""):
    """Return the command that writes blocks of the file with O_DIRECT and O_DSYNC, one by one."""
    return (f"fio --name=write --filename=/mnt/file --ioengine=psync --direct=1 --sync=dsync "
            f"--rw=write --bs=4k --size={4 * count}k --create_on_open=1 --thread {more}")


def prepare(machine, disk, kind):
    """Mount a new file system with a file whose blocks are allocated and written."""
    machine.sh(f"""
        {MAKE[kind]} /dev/{disk}
        {QUIET[kind]} /dev/{disk} /mnt
        dd if=/dev/zero of=/mnt/file bs=1M count=4 conv=fsync 2>/dev/null
        sync
    """)


def traced(machine, disk, script):
    """Run a script; return how many bios of each kind with FUA or a flush the disk got."""
    machine.sh(f"""
        cd /sys/kernel/tracing
        number=$(cat /sys/block/{disk}/dev)
        number=$(((${{number%:*}} << 20) | ${{number#*:}}))
        echo "dev == $number" >events/block/block_bio_queue/filter
        echo >trace
        echo 1 >events/block/block_bio_queue/enable
    """)
    machine.sh(script)
    text = machine.sh("""
        cd /sys/kernel/tracing
        echo 0 >events/block/block_bio_queue/enable
        echo 0 >events/block/block_bio_queue/filter
        cat trace
        echo >trace
    """)
    kinds = re.findall(r"block_bio_queue: \S+ (\S+) ", text)
    return {kind: kinds.count(kind) for kind in set(kinds) if "F" in kind}


def statistics(machine, device):
    """Return the driver's counters; the C driver has none."""
    text = machine.sh(f"cat {machine.debugfs(device, 'stats')} || true")
    return {name: int(value) for name, value in re.findall(r"^(\w+): (\d+)$", text, re.M)}


@shared_by_both
def test_advertised(machine):
    """The disk advertises FUA, its region has deep_flush, and no message warns of lost writes."""
    device = machine.device()
    machine.disk(device)
    machine.unbind(device)
    machine.clear_messages()
    disk = machine.bind(device)
    assert "unable to guarantee persistence" not in machine.sh("dmesg")
    assert machine.sh(f"cat /sys/block/{disk}/queue/fua") == "1"
    assert machine.sh(f"cat /sys/block/{disk}/queue/write_cache") == "write back"

    attribute = f"{device.path}/ndbus*/region*/deep_flush"
    assert machine.sh(f"cat {attribute}") == "1"
    before = machine.host.ended()
    machine.sh(f"echo 1 >{machine.sh(f'echo {attribute}')}")
    assert machine.host.ended() == before + 1


@shared_by_both
@pytest.mark.parametrize("kind", MAKE)
def test_one_bio(machine, kind):
    """An overwrite with O_DIRECT and O_DSYNC is exactly one bio with FUA and one host flush."""
    device = machine.device()
    disk = machine.disk(device)
    idle_flushes, idle_stats = machine.host.ended(), statistics(machine, device)
    prepare(machine, disk, kind)
    before, stats = machine.host.ended(), statistics(machine, device)
    count = 32
    kinds = traced(machine, disk, write(count))
    flushes, after = machine.host.ended() - before, statistics(machine, device)
    machine.sh("umount /mnt")

    # The file system may commit its log once or twice meanwhile.
    assert kinds.get(FUA, 0) >= count
    assert kinds.get(FLUSH, 0) <= 4
    assert count <= flushes <= count + 8
    if stats:
        assert count <= after["callers"] - stats["callers"] <= count + 8
        # Only an idle disk lets the two be compared: a mounted file system flushes on its own.
        sent = statistics(machine, device)["host_flushes"] - idle_stats["host_flushes"]
        assert sent == machine.host.ended() - idle_flushes
    machine.check_errors()


@shared_by_both
@pytest.mark.parametrize("kind", MAKE)
def test_allocating_writes(machine, kind):
    """A write that allocates blocks needs more than FUA for its data: the log is flushed, too."""
    device = machine.device()
    disk = machine.disk(device)
    prepare(machine, disk, kind)
    machine.sh("rm /mnt/file")
    count = 4
    kinds = traced(machine, disk, write(count, "--fallocate=none"))
    machine.sh("umount /mnt")
    assert sum(kinds[kind] for kind in kinds if kind.startswith("F")) >= count
    machine.check_errors()
