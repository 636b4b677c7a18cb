# SPDX-License-Identifier: GPL-2.0
"""At each moment of each workload, what was made durable before a power failure is there after it."""

import os
import random
import time

import pytest
from crash_points import Checker, raw_parse, record, trouble
from targets import FILE_SYSTEMS, RAW
from workloads import sequences

import settings

SEED = int(os.environ["SEED"])
LONG = settings.flag("LONG")


def selection(name, length, count, raw=False):
    """Return workloads: all, or a number of them by seed."""
    found = sequences(length, raw)
    return found if count is None else random.Random(f"{SEED} {name}").sample(found, count)


def check(boot, run, share):
    """Check a run's images."""
    rng = random.Random(f"{SEED} {run.target}")
    start = time.monotonic()
    if run.target.fs is None:
        wrong, count = trouble(run, lambda images, numbers: raw_parse(images[0], numbers), rng,
                               share)
    else:
        with boot("check", run.target.sizes) as machine:
            wrong, count = trouble(run, Checker(machine, run.target, run.disks).found, rng, share)
    print(f"{run.target}: {len(run.workloads)} workloads, {count} images, "
          f"{time.monotonic() - start:.0f} s")
    assert not wrong, "\n".join(text for _, text in wrong)


@pytest.mark.parametrize("busy", (False, True), ids=("alone", "busy"))
@pytest.mark.parametrize("seed", [SEED])
def test_raw(boot, seed, busy):
    """Writes to a disk: each image is that of acknowledged writes."""
    check(boot, record(boot, RAW, sequences(1, raw=True), busy), 1)


@pytest.mark.parametrize("target", FILE_SYSTEMS, ids=str)
@pytest.mark.parametrize("seed", [SEED])
def test_one_operation(boot, target, seed):
    """Each workload of one operation on a file system."""
    run = record(boot, target, selection(target, 1, None if LONG else 12))
    check(boot, run, 1 if LONG else 0.25)
