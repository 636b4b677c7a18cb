# SPDX-License-Identifier: GPL-2.0
"""Both drivers under Firecracker's rate limiter."""

import re

import pytest
from subject import combinations

import settings

# The limiter's operations in a second, each a flush.
OPERATIONS = 10

SECONDS = 60 if settings.flag("LONG") else 10


def rate(machine):
    """Return the fsyncs per second of 64 jobs."""
    text = machine.sh(f"""
        fio --name=jobs --filename=/dev/pmem0 --numjobs=64 --thread --size=64k \\
            --offset_increment=64k --bs=4k --rw=write --ioengine=psync --fsync=1 --time_based \\
            --ramp_time=2 --runtime={SECONDS} --group_reporting --allow_file_create=0
    """, timeout=SECONDS + 300)
    done = int(re.search(r"issued rwts: total=\d+,(\d+)", text)[1])
    return done / SECONDS


@pytest.mark.parametrize("combination", combinations(["firecracker"]))
def test_limiter(make, folder, combination, record_property):
    """64 jobs of the Rust driver are not slower than those of the driver in C."""
    rates = {}
    for driver in ("rust", "c"):
        with make(*combination, folder, {"ops": OPERATIONS}, driver=driver,
                  name=f"limiter-{driver}-{combination[1]}") as machine:
            rates[driver] = rate(machine)
            machine.check_errors()
        record_property(f"fsyncs_per_second_{driver}", round(rates[driver]))
    assert rates["rust"] > 0.9 * rates["c"]
