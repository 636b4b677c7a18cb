# SPDX-License-Identifier: GPL-2.0
"""Namespaces of all modes of ndctl: created, used, destroyed, created again."""

import json

import pytest
from machine import MIB, dsync

SIZE = 128 * MIB

# The namespace's device in each mode: a disk, or a character device.
DEVICES = {"fsdax": "pmem0", "devdax": "dax0.0", "sector": "pmem0s", "raw": "pmem0"}


def create(machine, mode):
    """Put the only namespace into a mode; return ndctl's description of it."""
    text = machine.sh(f"ndctl create-namespace -f -e namespace0.0 --mode={mode} 2>/tmp/error || "
                      "{ cat /tmp/error; exit 1; }")
    machine.until(f"[ -e /dev/{DEVICES[mode]} ]")
    others = set(DEVICES.values()) - {DEVICES[mode]}
    assert machine.sh("ls /dev").split().count(DEVICES[mode]) == 1
    assert not others & set(machine.sh("ls /dev").split())
    return json.loads(text)


def use_disk(machine, disk):
    """Use a disk with a flush for each write, and with a file system.

    The file system is small: in sector mode, each sector costs four flushes.
    """
    before = machine.host.ended()
    machine.sh(dsync(disk, 16))
    assert machine.host.ended() >= before + 16
    machine.sh(f"""
        mkfs.ext4 -q -F -b 4096 -O ^has_journal -N 64 /dev/{disk} 8m
        mount /dev/{disk} /mnt
        dd if=/dev/urandom of=/mnt/file bs=4k count=32 conv=fsync 2>/dev/null
        sum=$(sha256sum </mnt/file)
        umount /mnt
        mount /dev/{disk} /mnt
        [ "$(sha256sum </mnt/file)" = "$sum" ]
        umount /mnt
        e2fsck -fn /dev/{disk} >/dev/null 2>&1
    """)


def use_memory(machine, device, offset):
    """Store to mapped memory, and check the host's file at the right offset."""
    machine.sh(f"""
        xfs_io -c 'mmap -rw 0 2m' -c 'mwrite -S 0x5a 0 4k' /dev/{device}
        xfs_io -c 'mmap -r 0 2m' -c 'mread -v 0 16' /dev/{device} | grep -q '5a 5a 5a 5a'
    """)
    with open(machine.pmem[0].path, "rb") as file:
        file.seek(offset)
        assert file.read(4096) == b"\x5a" * 4096


def test_every_mode(boot):
    """A namespace works in each mode, twice; a destroyed one has no mode."""
    with boot(sizes=(SIZE,)) as machine:
        for mode in [*DEVICES, *DEVICES]:
            made = create(machine, mode)
            if mode == "devdax":
                use_memory(machine, DEVICES[mode], SIZE - made["size"])
            else:
                use_disk(machine, DEVICES[mode])
            machine.sh("ndctl destroy-namespace -f namespace0.0 2>/dev/null")
            (found,) = json.loads(machine.sh("ndctl list -Ni"))
            assert found["state"] == "disabled"
            assert "uuid" not in found
        machine.check_errors()


@pytest.mark.parametrize("mode", ["fsdax", "sector"])
def test_mode_outlives_power_cut(boot, mode):
    """A namespace's description and data survive a power cut after ndctl has returned."""
    disk = DEVICES[mode]
    read = f"dd if=/dev/{disk} bs=4k count=64 2>/dev/null | sha256sum"
    machine = boot(sizes=(SIZE,))
    machine.host.keep_journal(machine.pmem)
    with machine:
        made = create(machine, mode)
        machine.sh(f"dd if=/dev/urandom of=/dev/{disk} bs=4k count=64 conv=fsync 2>/dev/null")
        written = machine.sh(read)
        machine.check()
        machine.kill()
        machine.host.lose_power(machine.pmem)
    with boot(sizes=(SIZE,)) as machine:
        machine.until(f"[ -e /dev/{disk} ]")
        (found,) = json.loads(machine.sh("ndctl list -N"))
        assert {key: found[key] for key in ("mode", "uuid", "size")} == \
               {key: made[key] for key in ("mode", "uuid", "size")}
        assert machine.sh(read) == written
        machine.check_errors()
