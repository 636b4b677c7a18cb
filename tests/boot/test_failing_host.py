# SPDX-License-Identifier: GPL-2.0
"""Hosts that fail some flushes: exactly the callers of those flushes fail."""

import pytest
from machine import shared_by_both, shared_by_rust


@shared_by_both
def test_each_failure_is_its_callers(machine):
    """A single caller fails with its own flush and with no other, in any order."""
    disk = machine.disk(machine.device())
    before = len(machine.host.results())
    machine.host.plan("fail 3")
    returned = machine.sh(f"""
        for turn in $(seq 12); do
            xfs_io -c fsync /dev/{disk} >/dev/null 2>&1 && echo 0 || echo -1
        done
    """).split()
    machine.host.plan("pass")
    results = machine.host.results()[before:]
    assert results.count(-1) == 4
    assert [int(result) for result in returned] == results


@pytest.mark.on_debug
@shared_by_rust
def test_failures_are_shared(machine):
    """Of many callers, as many fail as were in the batches of the failed flushes."""
    device = machine.device()
    disk = machine.disk(device)
    events = "/sys/kernel/tracing/events/virtio_pmem/virtio_pmem_complete"
    machine.sh(f"echo 1 >{events}/enable; echo >/sys/kernel/tracing/trace")
    failures = machine.host.results().count(-1)
    before = machine.stats(device)
    machine.host.plan("fail 4")
    for index in range(8):
        machine.later(f"caller{index}", f"""
            for turn in $(seq 10); do
                xfs_io -c fsync /dev/{disk} >/dev/null 2>&1 && echo 0 || echo -1
            done
        """)
    returned = []
    for index in range(8):
        status, output = machine.join(f"caller{index}")
        assert status == 0, output
        returned += output.split()
    machine.host.plan("pass")
    machine.sh(f"echo 0 >{events}/enable")
    after = machine.stats(device)
    failures = machine.host.results().count(-1) - failures
    assert failures > 0
    assert after["errors"] - before["errors"] == failures
    assert len(returned) == after["callers"] - before["callers"] == 80
    failed = machine.sh("grep 'virtio_pmem_complete:.*error=-5' /sys/kernel/tracing/trace")
    sizes = [int(line.split("callers=")[1].split()[0]) for line in failed.splitlines()]
    assert len(sizes) == failures
    assert returned.count("-1") == sum(sizes)
    machine.sh(f"xfs_io -c fsync /dev/{disk}")
