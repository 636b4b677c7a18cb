# SPDX-License-Identifier: GPL-2.0
"""Both drivers side by side with 64 jobs: on each host, and under Firecracker's rate limiter."""

import re

import pytest
from subject import MIB, OPTIONS, WORKING, combinations

import settings

# What the limiter allows in a second: so many flushes, each of the whole file.
OPERATIONS = 10
LIMITS = {
    "operations": {"ops": OPERATIONS},
    "bytes": {"ops": 1000, "bytes": OPERATIONS * 64 * MIB},
}

SECONDS = 60 if settings.flag("LONG") else 10


def rate(machine):
    """Return the fsyncs a second of 64 jobs."""
    text = machine.sh(f"""
        fio --name=jobs --filename=/dev/pmem0 --numjobs=64 --thread --size=64k \
            --offset_increment=64k --bs=4k --rw=write --ioengine=psync --fsync=1 --time_based \
            --ramp_time=2 --runtime={SECONDS} --group_reporting --allow_file_create=0
    """, timeout=SECONDS + 300)
    done = int(re.search(r"issued rwts: total=\d+,(\d+)", text)[1])
    return done / SECONDS


def compare(make, combination, folder, options, name):
    """Measure both drivers; return the figures, and the times of each one's flushes."""
    rates, times = {}, {}
    for driver in ("rust", "c"):
        with make(*combination, folder, options, driver=driver,
                  name=f"{name}-{driver}-{'-'.join(combination)}") as machine:
            rates[driver] = rate(machine)
            times[driver] = machine.served.times("flush")
            machine.check_errors()
    assert rates["rust"] > 0.9 * rates["c"]
    return f"{rates['rust']:.0f} (C: {rates['c']:.0f})", times


@pytest.mark.parametrize("limit", list(LIMITS))
@pytest.mark.parametrize("combination", combinations(["firecracker"]))
def test_limiter(make, folder, combination, record_property, limit):
    """64 jobs of the Rust driver are not slower than those of the driver in C.

    The limiter holds: no driver gets more flushes than it allows, and the bucket's first content.
    """
    figures, times = compare(make, combination, folder, LIMITS[limit], f"limited-{limit}")
    for flushes in times.values():
        assert len(flushes) <= OPERATIONS * (flushes[-1] + 1) + 1
    record_property(f"fsyncs/s limited by {limit}", figures)


@pytest.mark.long
@pytest.mark.parametrize("combination", combinations(
    [name for name in WORKING if name != "openvmm"]))  # the driver in C does not find its range
def test_beside_c(make, folder, combination, record_property):
    """The same on each host, without a limiter."""
    figures, _ = compare(make, combination, folder, OPTIONS.get(combination[0], {}), "beside-c")
    record_property("fsyncs/s", figures)
