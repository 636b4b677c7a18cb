# SPDX-License-Identifier: GPL-2.0
"""Power cuts at a random flush: what was acknowledged before is intact after it."""

import os
import random
import re

import pytest
from subject import OPTIONS, WORKING, combinations, wait

import settings
from file_systems import MAKE, check

# How often the power fails for each personality, transport and file system.
CUTS = 5 if settings.flag("LONG") else 1

# The range of flushes within which it fails.
FLUSHES = (15, 60)

# A file for each record: its number gives its content. The console has the acknowledgement after
# the record is durable. Its size is that of three pages, so that a page may be missing.
WRITERS = {
    "fsync": 'xfs_io -f -c "pwrite -q -S $value 0 12k" -c fsync $file',
    "dsync": 'xfs_io -f -d -s -c "pwrite -q -S $value -b 12k 0 12k" $file',
    "msync": 'xfs_io -f -c "truncate 12k" -c "mmap 0 12k" -c "mwrite -S $value 0 12k" '
             '-c "msync -s" $file',
}

WRITE = """
mkdir -p /mnt/{method}
xfs_io -c fsync /mnt/{method} /mnt
n=0
while :; do
    n=$((n + 1)) value=$((n % 250 + 1)) file=/mnt/{method}/$n
    {command} || break
    echo "durable {method} $n" >/dev/console
done
"""

# What a record must be, against what it is.
READ = """
n=0
while [ $n -lt {last} ]; do
    n=$((n + 1))
    head -c 12288 /dev/zero | tr '\\0' "\\\\$(printf %o $((n % 250 + 1)))" >/tmp/right
    cmp /tmp/right /mnt/{method}/$n || exit 1
done
"""


def acknowledged(machine, method):
    """Return the number of the last record that the guest has reported as durable."""
    found = re.findall(rf"^durable {method} (\d+)$", machine.console(), re.M)
    return max(map(int, found), default=0)


@pytest.mark.parametrize("fs", list(MAKE))
@pytest.mark.parametrize("seed", [int(os.environ["SEED"])])
@pytest.mark.parametrize("combination", combinations(
    [name for name in WORKING if settings.flag("LONG") or name in ("firecracker", "openvmm")]))
def test_power_cut(make, folder, combination, seed, fs):
    """At the flush that the power failure hits, a random part of the changed pages is written."""
    personality, transport = combination
    rng = random.Random(f"{seed} {combination} {fs}")
    options = OPTIONS.get(personality, {})
    name = f"power-cut-{personality}-{transport}-{fs}"
    with make(personality, transport, folder, options, name=f"{name}-0") as machine:
        machine.sh(f"{MAKE[fs]} /dev/{machine.disk(machine.device())}; sync")
    for turn in range(1, CUTS + 1):
        cut = {"cut": rng.randint(*FLUSHES), "seed": rng.randrange(1 << 32)}
        dax = rng.choice(("", "-o dax"))
        with make(personality, transport, folder, options | cut, name=f"{name}-{turn}") as machine:
            machine.sh(f"mount {dax} /dev/{machine.disk(machine.device())} /mnt; rm -rf /mnt/*")
            for method, command in WRITERS.items():
                machine.later(method, WRITE.format(method=method, command=command))
            wait(lambda guest=machine: len(guest.served.notes("cut")), 1)
            machine.check_errors()
            machine.kill()
            last = {method: acknowledged(machine, method) for method in WRITERS}
        assert sum(last.values()) > 0
        with make(personality, transport, folder, options, name=f"{name}-{turn}-after") as machine:
            disk = machine.disk(machine.device())
            machine.sh(f"mount /dev/{disk} /mnt")
            for method, number in last.items():
                machine.sh(READ.format(method=method, last=number))
            machine.sh(f"""
                umount /mnt
                {check(fs, disk)}
            """)
            machine.check_errors()
