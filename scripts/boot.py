# SPDX-License-Identifier: GPL-2.0
"""Show that files outlive a power cut: written in one guest, which is killed, read in another."""

import re
import tempfile
from pathlib import Path

import kernel as kernels
import settings
import steps
from file_systems import MAKE, check
from guest import DRIVERS, Disk, Guest, GuestError

CASES = [(fs, dax) for fs in ("ext4", "xfs") for dax in (False, True)]

# Find the driver of the disk's device by the symbolic links in sysfs.
BOUND = """
set -e
device=$(readlink -f /sys/block/pmem0/device)
while [ ! -e "$device/driver" ] || [ "$(basename "$(readlink -f "$device/subsystem")")" != virtio ]
do
    [ "$device" != / ] || { echo "/dev/pmem0 belongs to no virtio device"; exit 1; }
    device=$(dirname "$device")
done
echo "/dev/pmem0 is on $(basename "$device"), driver $(basename "$(readlink "$device/driver")")"
"""

WRITE = """
{make} /dev/pmem0
mount {options} /dev/pmem0 /mnt
grep ' /mnt ' /proc/mounts
cd /mnt
# Data and metadata through the page cache, then fsync.
dd if=/dev/urandom of=fsync bs=64k count=64 conv=fsync 2>/dev/null
# Overwriting allocated blocks with O_DIRECT and O_DSYNC: forced unit access.
dd if=/dev/urandom of=dsync bs=64k count=16 conv=fsync 2>/dev/null
xfs_io -d -s -c 'pwrite -q -S 0x5a -b 4k 256k 256k' dsync
# A directory that only its own fsync makes durable.
mkdir -p deep/er && cp fsync deep/er/copy && xfs_io -c fsync deep/er/copy && xfs_io -c fsync deep/er
sha256sum fsync dsync deep/er/copy
# The kill hits a guest that goes on writing.
: >/tmp/load
while dd if=/dev/urandom of=load bs=4k count=8 conv=fsync; do echo; done >>/tmp/load 2>/dev/null &
until [ "$(wc -l </tmp/load)" -ge 20 ]; do
    kill -0 $!
    usleep 10000
done
"""

READ = """
mount {options} /dev/pmem0 /mnt
grep ' /mnt ' /proc/mounts
cd /mnt
sha256sum fsync dsync deep/er/copy
cd / && umount /mnt
{check}
echo 'the file system is consistent'
! dmesg -r | grep -E '^<[0-3]>.*(virtio|pmem|nd_|region|namespace|EXT4|XFS|I/O error)'
"""


def show(source, text):
    """Print a guest's output."""
    for line in text.splitlines():
        print(f"  {source}: {line}", flush=True)


def sums(text):
    """Return the checksums in a guest's output."""
    return re.findall(r"^[0-9a-f]{64}  \S+$", text, re.M)


def session(kernel, disk, case, turn, script, options):
    """Run a script in a guest of its own, then kill it; return the output."""
    fs, dax = case
    name = f"boot-{options['driver']}-{fs}{'-dax' if dax else ''}-{turn}"
    with Guest(kernel, name=name, pmem=[disk], **options) as guest:
        result = guest.run(BOUND + script)
        show(f"guest {turn}", result.output)
        if result.status:
            raise guest.error(f"exit status {result.status}")
        driver = DRIVERS[options["driver"]]
        if not re.search(rf", driver {driver}$", result.output, re.M):
            raise guest.error(f"the device is not served by {driver}")
        if dax != bool(re.search(r" /mnt \w+ \S*\bdax", result.output)):
            raise guest.error(f"mounted {'without' if dax else 'with'} dax")
        complaints = guest.complaints()
        if complaints:
            raise guest.error(f"the kernel reports a bug: {complaints[0]}")
        guest.kill()
    print(f"  host: guest {turn} killed", flush=True)
    return result.output


def power_cycle(kernel, case, size, options):
    """Write in a first guest, compare in a second."""
    fs, dax = case
    words = {"options": "-o dax" if dax else "", "make": MAKE[fs], "check": check(fs, "pmem0")}
    with tempfile.TemporaryDirectory(dir=settings.BUILD, prefix="boot-") as folder:
        disk = Disk(Path(folder) / "pmem0", size)
        first = session(kernel, disk, case, 1, WRITE.format(**words), options)
        second = session(kernel, disk, case, 2, READ.format(**words), options)
    if len(sums(first)) != 3 or sums(first) != sums(second):
        raise GuestError("the second guest did not read the data that the first had written")


def run():
    """Run all cases; return how many passed and how many failed."""
    options = {
        "driver": settings.choice("DRIVER", tuple(DRIVERS)),
        "memory": settings.size("MEM"),
        "smp": settings.number("SMP"),
        "timeout": settings.number("TIMEOUT"),
    }
    size = settings.size("PMEM_SIZE")
    built = kernels.ready(settings.choice("KERNEL"))
    passed = failed = 0
    for case in CASES:
        name = f"{case[0]}, {'DAX' if case[1] else 'plain'}"
        print(f"{name}: write, fsync, kill, boot again, compare", flush=True)
        try:
            with steps.step(f"power cycle, {name}"):
                power_cycle(built, case, size, options)
            print(f"{name}: ok, every byte is there", flush=True)
            passed += 1
        except GuestError as error:
            steps.say(f"error: {error}")
            print(f"{name}: FAILED", flush=True)
            failed += 1
    return passed, failed


def main():
    """Report by exit status."""
    passed, failed = run()
    print(f"power cycles: {passed} passed, {failed} failed", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    steps.main(main)
