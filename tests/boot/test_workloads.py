# SPDX-License-Identifier: GPL-2.0
"""Common uses of a disk: file systems with and without DAX, fio, mapped memory."""

import os

import fsx as exerciser
import pytest
from machine import MIB, shared_by_rust

import settings
from file_systems import MAKE, check

# Large enough for XFS.
MACHINE = {"sizes": (400 * MIB,)}

ENGINES = ("psync --fsync=8", "libaio --iodepth=8 --direct=1 --sync=dsync",
           "io_uring --iodepth=8 --fsync=8", "mmap --fsync=8")

# The size of each of fio's jobs. Its duration depends on the host's disk.
SIZE = "4m" if settings.flag("LONG") else "256k"

every_file_system = pytest.mark.parametrize("fs", MAKE)
with_and_without_dax = pytest.mark.parametrize("dax", [False, True], ids=["plain", "dax"])


def mount(machine, disk, fs, dax):
    """Make a file system and mount it; check that it has DAX, or not."""
    machine.sh(f"{MAKE[fs]} /dev/{disk}; mount {'-o dax' if dax else ''} /dev/{disk} /mnt")
    options = machine.sh("grep ' /mnt ' /proc/mounts").split()[3].split(",")
    assert any(option.startswith("dax") for option in options) == dax


def unmount(machine, disk, fs):
    """Unmount a file system, and check that it is consistent."""
    machine.sh(f"""
        umount /mnt
        {check(fs, disk)}
    """)


def fio(number, where, more):
    """Return the command that writes 4 files or parts of a disk at random, in blocks of 4 KiB."""
    return (f"fio --name=job{number} --{where} --rw=randwrite --bs=4k --size={SIZE} "
            f"--numjobs=4 --thread --ioengine={ENGINES[number]} --verify=crc32c "
            f"--verify_fatal=1 --group_reporting {more}")


@shared_by_rust
@every_file_system
@with_and_without_dax
def test_fio(machine, fs, dax):
    """After the next mount, fio verifies the data that each of its engines has written."""
    disk = machine.disk(machine.device())
    mount(machine, disk, fs, dax)
    for number in range(len(ENGINES)):
        machine.sh(fio(number, "directory=/mnt", "--do_verify=0"))
    machine.sh(f"umount /mnt; mount {'-o dax' if dax else ''} /dev/{disk} /mnt")
    for number in range(len(ENGINES)):
        machine.sh(fio(number, "directory=/mnt", "--verify_only"))
    unmount(machine, disk, fs)
    machine.check_errors()


@shared_by_rust
def test_fio_raw(machine):
    """The same on the disk itself. (There fio's mmap engine ignores a job's offset.)"""
    disk = machine.disk(machine.device())
    for number, engine in enumerate(ENGINES):
        if engine.startswith("mmap"):
            continue
        where = f"filename=/dev/{disk} --allow_file_create=0 --offset_increment={SIZE}"
        machine.sh(fio(number, where, "--do_verify=0"))
        machine.sh("echo 3 >/proc/sys/vm/drop_caches")
        machine.sh(fio(number, where, "--verify_only"))
    machine.check_errors()


@shared_by_rust
@every_file_system
@with_and_without_dax
def test_msync(machine, fs, dax):
    """An msync of mapped memory is a flush, and returns only after the host has answered."""
    disk = machine.disk(machine.device())
    mount(machine, disk, fs, dax)
    machine.sh("dd if=/dev/zero of=/mnt/file bs=64k count=1 conv=fsync 2>/dev/null; sync")
    before = machine.host.begun()
    machine.host.plan("hang")
    machine.later("msync", """
        xfs_io -c 'mmap -rw 0 64k' -c 'mwrite -S 0x5a 0 4k' -c 'msync -s 0 4k' /mnt/file
    """)
    machine.host.wait_begun(before + 1)
    machine.sh("sleep 2")
    assert not machine.done("msync")
    machine.host.plan("pass")
    status, output = machine.join("msync")
    assert status == 0, output
    assert machine.sh("hexdump -n 1 -e '\"%d\"' /mnt/file") == str(0x5a)
    unmount(machine, disk, fs)
    machine.check_errors()


@pytest.mark.long
@pytest.mark.parametrize("seed", [int(os.environ["SEED"])])
def test_fsx(boot, fsx, seed):
    """The file system exerciser reads back what it has written, mapped or not."""
    with boot(files={"/bin/fsx": fsx}, **MACHINE) as machine:
        machine.sh(f"cat >/tmp/fsx.toml <<'END'\n{exerciser.CONFIG}\nEND")
        for fs in MAKE:
            for dax in (False, True):
                mount(machine, "pmem0", fs, dax)
                machine.sh(f"fsx -q -f /tmp/fsx.toml -P /tmp -S {seed} -N 10000 /mnt/file")
                unmount(machine, "pmem0", fs)
        machine.check_errors()
