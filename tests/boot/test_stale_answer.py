# SPDX-License-Identifier: GPL-2.0
"""An answer to a flush from before a reset of the device acknowledges no later flush.

QEMU does not cancel a begun flush at a reset. Its answer arrives in the queue that was set up after
the reset, under the id of the flush that is there now. Here the host holds a flush, the queue is
replaced, the host holds the next flush, too, and then answers only the first.
"""

import pytest
from qtest import Qtest

# Seconds for which a caller is watched that must wait.
WATCHED = 2

pytestmark = pytest.mark.on_debug


def fsync(disk):
    """Return the command that only flushes a disk."""
    return f"xfs_io -c fsync /dev/{disk}"


def answer_first(machine, begun, waiting):
    """Let the host answer the flushes before number `begun`; no waiting caller may return.

    Then the host answers all, and a later flush must have served the waiting callers.
    """
    machine.host.plan(f"hang {begun - 1}")
    machine.host.wait_ended(begun - 1)
    machine.sh(f"sleep {WATCHED}")
    for name in waiting:
        assert not machine.done(name), f"the answer to another flush has ended {name}"
    assert machine.host.ended() == begun - 1
    machine.host.plan("pass")
    for name in waiting:
        status, output = machine.join(name)
        assert status == 0, output
    assert machine.host.ended() >= begun


def test_unbind_and_bind(boot):
    """A flush that an unbind has given up is answered after the next bind."""
    with boot(append="virtio_pmem_rust.timeout=2") as machine:
        device = machine.device()
        disk = machine.disk(device)
        begun = machine.host.begun()
        machine.host.plan("hang")
        machine.later("first", fsync(disk))
        machine.host.wait_begun(begun + 1)
        machine.unbind(device)
        # Its data may not be durable.
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
    """A flush that a recovery has lost is sent again, although its answer arrives later."""
    qtest = Qtest(folder)
    with boot(args=qtest.args) as machine:
        device = machine.device()
        disk = machine.disk(device)
        begun, callers = machine.host.begun(), machine.stats(device)["callers"]
        machine.host.plan("hang")
        machine.later("first", fsync(disk))
        machine.host.wait_begun(begun + 1)
        qtest.break_device(machine, device)
        machine.host.wait_begun(begun + 2)
        machine.later("second", fsync(disk))
        machine.wait_stat(device, "callers", callers + 2)
        answer_first(machine, begun + 2, ("first", "second"))
        machine.write(disk, 4)
        # One by the device's request, and one because of the unexpected answer.
        assert machine.stats(device)["recoveries"] == 2
        machine.check_errors()
