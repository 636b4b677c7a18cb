# SPDX-License-Identifier: GPL-2.0
"""Answers that outlive a reset of the device acknowledge nobody's flush.

QEMU has no reset for a flush that it has begun. Its answer arrives in the queue that came after the
reset, under the id of the flush that is there now. Here the host holds a flush, the queue is
replaced, the host holds the next flush, too, and then answers the first alone.
"""

import pytest
from poke import Poke

# Seconds that a caller who must wait is watched.
PATIENCE = 2

pytestmark = pytest.mark.on_debug


def fsync(disk):
    """Return the command that flushes a disk and nothing else."""
    return f"xfs_io -c fsync /dev/{disk}"


def answer_first(machine, begun, waiting):
    """Let the host answer the flush before the one with this number; nobody may take that answer.

    Then it answers all, and who has waited must have been served by a flush that came after that.
    """
    machine.host.plan(f"hang {begun - 1}")
    machine.host.wait_ended(begun - 1)
    machine.sh(f"sleep {PATIENCE}")
    for name in waiting:
        assert not machine.done(name), f"{name} took the answer to another flush"
    assert machine.host.ended() == begun - 1
    machine.host.plan("pass")
    for name in waiting:
        status, output = machine.join(name)
        assert status == 0, output
    assert machine.host.ended() >= begun


def test_unbind_and_bind(boot):
    """A flush of before an unbind, which gave the host up, is answered after the next bind."""
    with boot(append="virtio_pmem_rust.timeout=2") as machine:
        device = machine.device()
        disk = machine.disk(device)
        begun = machine.host.begun()
        machine.host.plan("hang")
        machine.later("first", fsync(disk))
        machine.host.wait_begun(begun + 1)
        machine.unbind(device)
        # Nobody knows whether it is durable.
        assert machine.join("first")[0] != 0
        disk = machine.bind(device)
        callers = machine.stats(device)["callers"]
        machine.later("second", fsync(disk))
        machine.host.wait_begun(begun + 2)
        machine.later("third", fsync(disk))
        machine.wait_stat(device, "callers", callers + 2)
        answer_first(machine, begun + 2, ("second", "third"))
        machine.write(disk, 4)


def test_recovery(boot, folder):
    """A flush that a recovery has lost is answered afterwards; it is sent again nevertheless."""
    poke = Poke(folder)
    with boot(args=poke.args) as machine:
        device = machine.device()
        disk = machine.disk(device)
        begun, callers = machine.host.begun(), machine.stats(device)["callers"]
        machine.host.plan("hang")
        machine.later("first", fsync(disk))
        machine.host.wait_begun(begun + 1)
        poke.ask_for_reset(machine, device)
        machine.host.wait_begun(begun + 2)
        machine.later("second", fsync(disk))
        machine.wait_stat(device, "callers", callers + 2)
        answer_first(machine, begun + 2, ("first", "second"))
        machine.write(disk, 4)
        # One that the device has asked for, and one because the queue was out of step with it.
        assert machine.stats(device)["recoveries"] == 2
        machine.check_errors()
