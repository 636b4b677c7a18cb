# SPDX-License-Identifier: GPL-2.0
"""A guest that is short of memory, and reclaims it by writes to its pmem disks."""

import re

from machine import MIB, aio

import settings

# The guest's memory; kernel, initramfs and bounce buffers use half of it.
MEMORY = 384 * MIB

# The test keeps KEPT MiB in memory, and then more pieces until SWAPPED MiB are swapped out.
KEPT = 256 if settings.flag("LONG") else 176
PIECE = 16
SWAPPED = 16


def keep(number, size, more):
    """Return the command that writes a file in memory; --verify_only reads it."""
    return (f"fio --name=kept{number} --filename=/dev/shm/kept{number} --rw=write --bs=64k "
            f"--size={size}m --ioengine=psync --fallocate=none --verify=crc32c --verify_fatal=1 "
            f"{more}")


def fill(machine):
    """Keep files until enough is swapped out; return their sizes."""
    sizes = [KEPT]
    while True:
        machine.sh(keep(len(sizes) - 1, sizes[-1], "--do_verify=0"))
        swapped = int(machine.sh("awk 'END { print $4 }' /proc/swaps"))
        if swapped >= SWAPPED << 10:
            return sizes
        # More than this cannot be in the guest's memory, however it reclaims.
        assert sum(sizes) < MEMORY // MIB + SWAPPED, \
            f"of {sum(sizes)} MiB only {swapped} KiB are swapped out"
        sizes.append(PIECE)


def failed_for_driver(console):
    """List the kernel's reports of failed allocations with the driver's code on the stack.

    Allocations of the core do fail: reclaim has no reserve to find a place in the swap disk.
    """
    reports = re.findall(r"page allocation failure:.*?</TASK>", console, re.S)
    return [report for report in reports if "virtio_pmem" in report]


def test_swap(boot):
    """Memory that is swapped out to a pmem disk, while another disk is flushed, stays intact.

    Reclaim writes to two disks: swap on one, dirty pages of a file system on the other. Meanwhile
    writers cause both kinds of flushes there.
    """
    with boot(sizes=(384 * MIB, 128 * MIB), memory=MEMORY) as machine:
        swap, files = (machine.disk(device) for device in machine.devices_found())
        machine.sh(f"""
            mkswap /dev/{swap} >/dev/null
            swapon /dev/{swap}
            mkfs.ext4 -q -b 4096 /dev/{files} 96m
            mount /dev/{files} /mnt
            mount -o remount,size={2 * MEMORY} /dev/shm
        """)
        machine.later("writers", """
            while [ ! -e /tmp/stop ]; do
                fio --name=writer --directory=/mnt --numjobs=2 --thread --size=256k --bs=4k \\
                    --rw=randwrite --ioengine=psync --fsync=4 --verify=crc32c --verify_fatal=1 \\
                    --group_reporting >/tmp/writer 2>&1 || { cat /tmp/writer; exit 1; }
            done
        """)
        # After the end of the file system.
        machine.later("bios", f"""
            while [ ! -e /tmp/stop ]; do
                {aio(files, "256k", more="--offset=100m --verify=crc32c --verify_fatal=1")} \\
                    >/tmp/bio 2>&1 || {{ cat /tmp/bio; exit 1; }}
            done
        """)
        machine.later("dirt", """
            while [ ! -e /tmp/stop ]; do
                dd if=/dev/zero of=/mnt/dirt bs=64k count=256 2>/dev/null || exit 1
            done
        """)
        sizes = fill(machine)
        machine.sh("touch /tmp/stop")
        for name in ("writers", "bios", "dirt"):
            status, output = machine.join(name)
            assert status == 0, output
        for number, size in enumerate(sizes):
            machine.sh(keep(number, size, "--verify_only"))
        machine.sh(f"""
            rm /dev/shm/kept*
            swapoff /dev/{swap}
            umount /mnt
            e2fsck -fn /dev/{files} >/dev/null 2>&1
        """)
        machine.check_errors()
        # No process was killed, and no allocation of the driver failed.
        assert not re.search(r"Out of memory|oom-kill", machine.console())
        assert failed_for_driver(machine.console()) == []
