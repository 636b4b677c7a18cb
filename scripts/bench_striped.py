# SPDX-License-Identifier: GPL-2.0
"""Measure fsync on a striped disk of two devices, under both drivers: each fsync flushes both.

Such a flush has no data. Without patches/0003 it sleeps in the driver, and the second device's
flush begins when the first one's has ended. Each round boots a guest for each driver.
"""

import statistics
import tempfile
from pathlib import Path

import bench
import steps
from bench_report import host_title
from guest import DRIVERS, Guest

SECTORS = bench.SIZE >> 9

# Makes the disk of the device mapper, and prints its name.
STRIPE = f"""
set -e
until [ -b /dev/pmem0 ] && [ -b /dev/pmem1 ]; do usleep 50000; done
[ "$(ls /sys/bus/virtio/drivers/{{driver}} | grep -c virtio)" = 2 ]
modprobe -q dm_mod
dmsetup create --noudevsync stripe --table \\
    '0 {2 * SECTORS} striped 2 128 /dev/pmem0 0 /dev/pmem1 0'
until [ -b /dev/dm-0 ]; do usleep 50000; done
"""


def rates(kernel, folder, driver, delay, wanted):
    """Return the writes per second by jobs in a guest."""
    host = bench.Host(folder, delay, counting=False)
    disks = [host.disk("pmem0"), host.disk("pmem1")]
    with Guest(kernel, name=f"bench-striped-{driver}", pmem=disks, driver=driver,
               wrapper=host.wrapper(), **bench.machine()) as guest:
        guest.run(STRIPE.format(driver=DRIVERS[driver]), check=True)
        for seconds in (wanted.warm_up, wanted.seconds):
            text = bench.fio_text("/dev/dm-0", "fsync", wanted.jobs, seconds)
            found = bench.fio_writes(guest.run(bench.FIO.format(text=text), check=True).output)
    return {jobs: rate for jobs, (rate, *_) in found.items()}


def main():
    """Print a table of medians."""
    wanted, kernel = bench.plan(), bench.build()
    bench.FOLDER.mkdir(parents=True, exist_ok=True)
    print(f"fsync of a striped disk, kernel {kernel.name}: writes per second\n"
          "host              jobs         c      rust    rust/c")
    for delay in wanted.delays:
        found = {driver: [] for driver in DRIVERS}
        for number in range(1, wanted.rounds + 1):
            with steps.step(f"{host_title(delay)}: round {number} of {wanted.rounds}"), \
                    tempfile.TemporaryDirectory(dir=bench.FOLDER, prefix="disks-") as folder:
                for driver, rounds in found.items():
                    rounds.append(rates(kernel, Path(folder), driver, delay, wanted))
        for jobs in wanted.jobs:
            c, rust = (statistics.median(one[jobs] for one in found[driver])
                       for driver in ("c", "rust"))
            print(f"{host_title(delay):16} {jobs:5} {c:9.0f} {rust:9.0f} {rust / c:9.1f}",
                  flush=True)


if __name__ == "__main__":
    steps.main(main)
