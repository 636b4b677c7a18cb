# SPDX-License-Identifier: GPL-2.0
"""At each moment of each workload, what was made durable before a power failure is there after."""

import os
import random
import time

import pytest
from crash_points import Checker, raw_parse, record, trouble
from targets import FILE_SYSTEMS, RAW
from workloads import sequences

import mutant
import settings

SEED = int(os.environ["SEED"])
LONG = settings.flag("LONG")


# Those of the quick selection; the others are long.
QUICK = ("ext4", "xfs-dax")


def selection(target, length, count):
    """Return a number of workloads by seed, or all."""
    found = sequences(length, raw=target.fs is None)
    return found if count is None else random.Random(f"{SEED} {target}").sample(found, count)


def check(boot, run, share):
    """Check a run's images, a share of them also with dirty pages; return what is wrong."""
    rng = random.Random(f"{SEED} {run.target}")
    start = time.monotonic()
    if run.target.fs is None:
        wrong, count = trouble(run, lambda images, numbers: raw_parse(images[0], numbers), rng,
                               share)
    else:
        with boot("check", run.target.sizes) as machine:
            wrong, count = trouble(run, Checker(machine, run.target, run.disks).found, rng, share)
    print(f"crash: {run.target}: {len(run.workloads)} workloads, {count} images, "
          f"{time.monotonic() - start:.0f} s")
    # The end of each workload makes a change durable, unless a fault of the driver prevents it.
    assert wrong or count > len(run.workloads)
    return wrong


def texts(wrong):
    """Return a failure's text."""
    return "\n".join(text for _, text in wrong)


targets = pytest.mark.parametrize("target", [
    pytest.param(target, id=str(target),
                 marks=() if str(target) in QUICK else pytest.mark.long)
    for target in FILE_SYSTEMS])
seeded = pytest.mark.parametrize("seed", [SEED])


@pytest.mark.parametrize("busy", (False, True), ids=("alone", "busy"))
@seeded
def test_raw(boot, busy, seed):
    """Each workload of one operation on a disk without a file system."""
    wrong = check(boot, record(boot, RAW, sequences(1, raw=True), busy), 1)
    assert not wrong, texts(wrong)


@targets
@seeded
def test_one_operation(boot, target, seed):
    """Each workload of one operation on a file system; without LONG=1 a few of them."""
    run = record(boot, target, selection(target, 1, None if LONG else 12))
    wrong = check(boot, run, 1 if LONG else 0.25)
    assert not wrong, texts(wrong)


@pytest.mark.long
@targets
@seeded
def test_two_operations(boot, target, seed):
    """Some workloads of two operations, while another task flushes."""
    run = record(boot, target, selection(target, 2, 25), busy=True)
    wrong = check(boot, run, 0.25)
    assert not wrong, texts(wrong)


@pytest.mark.long
@seeded
def test_raw_two_operations(boot, seed):
    """Some workloads of two operations on a disk without a file system."""
    wrong = check(boot, record(boot, RAW, selection(RAW, 2, 100), busy=True), 0.25)
    assert not wrong, texts(wrong)


# Faults of the driver: by how many workloads of one operation each is found at most, and whether
# another task flushes meanwhile.
MUTANTS = {
    "early": (1, False),
    "plain-fua": (13, False),
    "remote": (8, True),
}


@pytest.mark.long
@pytest.mark.parametrize("name", list(MUTANTS))
def test_mutant(boot, kernel, name):
    """A driver with a fault is found by the first workloads."""
    limit, busy = MUTANTS[name]
    files = mutant.files(mutant.build(name, kernel.out), kernel.out)
    run = record(boot, RAW, sequences(1, raw=True), busy, files)
    wrong = check(boot, run, 0)
    assert wrong
    print(f"crash: {name}: found by workload {wrong[0][0] + 1}: {wrong[0][1]}")
    assert wrong[0][0] < limit
