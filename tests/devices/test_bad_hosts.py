# SPDX-License-Identifier: GPL-2.0
"""The driver on hosts that lose or repeat answers, or break the rules."""

import os

import pytest
from subject import combinations, wait

import settings

DSYNC = 'xfs_io -d -s -c "pwrite -q -S {pattern} -b 4k {at}k 4k" /dev/{disk}'

# How many hostile hosts a guest meets.
SEEDS = 10 if settings.flag("LONG") else 2


def write(machine, disk, number):
    """Write a page with O_SYNC."""
    machine.sh(DSYNC.format(pattern=number + 1, at=4 * number, disk=disk))


def fsync(disk, number):
    """Return the guest's command that writes such a page with one flush; O_SYNC needs two."""
    return f'xfs_io -c "pwrite -q -S {number + 1} -b 4k {4 * number}k 4k" -c fsync /dev/{disk}'


def check_page(machine, number):
    """Check that what write() or fsync() wrote is in the image."""
    image = machine.served.image.read_bytes()
    assert image[4096 * number:4096 * (number + 1)] == bytes([number + 1]) * 4096


def write_pages(machine, disk):
    """Write pages with O_SYNC; each is in the image when its writer has returned."""
    for number in range(20):
        write(machine, disk, number)
        check_page(machine, number)


@pytest.mark.parametrize("combination", combinations(["snapshot"]))
def test_answer_twice(make, folder, combination):
    """A flush that is answered twice harms neither its own caller nor the next ones.

    All that was acknowledged is in the image: the second answer acknowledges nothing.
    """
    with make(*combination, folder, {"twice": 6}, name=f"twice-{combination[1]}") as machine:
        device = machine.device()
        disk = machine.disk(device)
        write_pages(machine, disk)
        assert machine.served.notes("twice")
        machine.unbind(device)
        write(machine, machine.bind(device), 30)


@pytest.mark.parametrize("combination", combinations(["snapshot"]))
def test_answer_lost(make, folder, combination):
    """The caller of a lost answer waits; unbinding ends it with an error, and binding works."""
    with make(*combination, folder, {"lost": 6}, name=f"lost-{combination[1]}",
              append="virtio_pmem_rust.timeout=8") as machine:
        device = machine.device()
        disk = machine.disk(device)
        machine.later("writers", "\n".join(
            DSYNC.format(pattern=7, at=4 * number, disk=disk) + " || exit 1"
            for number in range(20)))
        wait(lambda: len(machine.served.notes("lost")), 1)
        machine.sh("sleep 2")
        assert not machine.done("writers")
        machine.unbind(device)
        assert machine.join("writers")[0] != 0
        write(machine, machine.bind(device), 30)


@pytest.mark.parametrize("combination", combinations(["snapshot"]))
def test_lost_flush_is_sent_again(make, folder, combination):
    """With resend_after no caller fails; all that was acknowledged is in the image."""
    with make(*combination, folder, {"lost": 6}, name=f"resent-{combination[1]}",
              append="virtio_pmem_rust.resend_after=1") as machine:
        device = machine.device()
        write_pages(machine, machine.disk(device))
        assert machine.served.notes("lost")
        assert machine.stats(device)["recoveries"] > 0


@pytest.mark.parametrize("combination", combinations(["snapshot"]))
def test_late_answer(make, folder, combination):
    """The answer to a flush that was sent again acknowledges nothing.

    The host answers the lost flush before it begins the one that is in the ring.
    """
    with make(*combination, folder, {"late": 6}, name=f"late-{combination[1]}",
              append="virtio_pmem_rust.resend_after=2") as machine:
        device = machine.device()
        disk = machine.disk(device)
        for number in range(5):
            machine.sh(fsync(disk, number))
        with machine.served.holding():
            machine.later("writer", fsync(disk, 5))
            # The second flush is lost because of the surplus answer.
            wait(lambda: machine.done("writer") or machine.stats(device)["lost"] == 2, True)
            assert not machine.done("writer")
        assert machine.join("writer")[0] == 0
        check_page(machine, 5)
        write_pages(machine, disk)
        assert machine.served.notes("late")
        # One for want of an answer, and one because of the surplus answer.
        assert machine.stats(device)["recoveries"] == 2


@pytest.mark.parametrize("index", range(SEEDS))
@pytest.mark.parametrize("seed", [int(os.environ["SEED"])])
@pytest.mark.parametrize("combination", combinations(["hostile"]))
def test_hostile(make, folder, combination, seed, index):
    """No offence crashes the guest or keeps the device from being unbound."""
    options = {"seed": seed + index}
    with make(*combination, folder, options, name=f"hostile-{combination[1]}-{index}",
              append="virtio_pmem_rust.timeout=8") as machine:
        device = machine.device()
        disk = machine.disk(device)
        # A task whose flush is never answered cannot be killed, and ends with the device.
        machine.later("writers", "\n".join(
            DSYNC.format(pattern=7, at=4 * number, disk=disk) for number in range(60)))
        machine.sh("sleep 10")
        if machine.bound(device) != "none":
            machine.unbind(device)
        machine.join("writers")
        assert machine.served.notes("offence")
        # The configuration is read again, and lies.
        bind = f"echo {device.virtio} >/sys/bus/virtio/drivers/virtio_pmem_rust"
        for _ in range(5):
            machine.run(f"{bind}/bind")
            if machine.bound(device) != "none":
                machine.unbind(device)
