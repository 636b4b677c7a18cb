# SPDX-License-Identifier: GPL-2.0
"""The driver's trace events, and its statistics in debugfs."""

import collections
import dataclasses
import re

from machine import MIB, aio, shared_by_rust

import steps

MACHINE = {"sizes": (256 * MIB,)}

EVENTS = "/sys/kernel/tracing/events/virtio_pmem"
NAMES = ("arrive", "gather", "send", "answer", "complete")

# The processors' own clocks may disagree about the order of events, above all emulated ones.
CLOCK = "echo counter >trace_clock"


@dataclasses.dataclass
class Batch:
    """The events of one batch."""
    arrived: int = 0
    gathered: int = 0
    sent: list = dataclasses.field(default_factory=list)
    answered: list = dataclasses.field(default_factory=list)
    completed: list = dataclasses.field(default_factory=list)


def load(disk):
    """Return commands that make both kinds of callers, concurrent ones and single ones."""
    return f"""
        {aio(disk, "128k", depth=8)} >/dev/null
        echo 1 >$(readlink -f /sys/block/{disk}/device)/../deep_flush
        xfs_io -c fsync /dev/{disk}
        fio --name=sync --filename=/dev/{disk} --numjobs=8 --size=64k --offset_increment=64k \\
            --bs=4k --rw=write --ioengine=psync --fsync=1 --allow_file_create=0 >/dev/null
        fio --name=fua --filename=/dev/{disk} --numjobs=4 --size=64k --offset_increment=64k \\
            --bs=4k --rw=write --direct=1 --ioengine=psync --sync=1 --allow_file_create=0 >/dev/null
    """


def run_shared(machine, device, script):
    """Run a script that begins with the load; its first callers share a flush; return its output.

    Without the hang, the host's speed would decide how many share.
    """
    callers = machine.stats(device)["callers"]
    machine.host.plan("hang")
    machine.later("traced", f"set -e\n{script}")
    machine.wait_stat(device, "callers", callers + 3)
    machine.host.plan("pass")
    status, output = machine.join("traced")
    assert status == 0, output
    return output


def batches(text, device):
    """Return a device's events by batch, and check their order in each batch."""
    found = collections.defaultdict(Batch)
    line = re.compile(rf"virtio_pmem_(\w+): +{device.virtio} batch=(\d+) ?(.*)")
    for name, number, rest in line.findall(text):
        batch = found[int(number)]
        fields = dict(re.findall(r"(\w+)=(\S+)", rest))
        if name == "arrive":
            assert rest.strip() in ("sync", "bio")
            assert not batch.sent, f"batch {number} was joined after it was sent"
            batch.arrived += 1
        elif name == "gather":
            assert not batch.sent, f"batch {number} was sent, and then held back"
            assert int(fields["callers"]) == batch.arrived
            batch.gathered += 1
        elif name == "send":
            batch.sent.append(int(fields["callers"]))
        elif name == "answer":
            assert batch.sent, f"batch {number} was answered before it was sent"
            batch.answered.append((int(fields["len"]), int(fields["status"], 0)))
        else:
            assert name == "complete"
            assert batch.answered, f"batch {number} was completed before it was answered"
            batch.completed.append((int(fields["callers"]), int(fields["error"])))
    return found


def check(text, device, before, after):
    """Compare the events with each other and with the statistics."""
    found = batches(text, device)
    assert found
    for batch in found.values():
        assert batch.arrived >= 1
        assert batch.sent == [batch.arrived]
        assert batch.answered == [(4, 0)]
        assert batch.completed == [(batch.arrived, 0)]
    callers = sum(batch.arrived for batch in found.values())
    assert callers == after["callers"] - before["callers"]
    assert len(found) == after["host_flushes"] - before["host_flushes"]
    assert sorted(found) == list(range(before["host_flushes"] + 1, after["host_flushes"] + 1))
    assert max(batch.arrived for batch in found.values()) <= after["largest_batch"]
    assert sum(batch.gathered for batch in found.values()) == after["gathered"] - before["gathered"]
    # Some callers do share.
    assert callers > len(found)
    assert text.count(" sync\n") and text.count(" bio\n")


@shared_by_rust
def test_statistics(machine):
    """The statistics agree with the host's counts, and each answer is in the histogram."""
    device = machine.device()
    disk = machine.disk(device)
    before, begun = machine.stats(device), machine.host.begun()
    run_shared(machine, device, load(disk))
    after = machine.stats(device)
    assert after["host_flushes"] - before["host_flushes"] == machine.host.begun() - begun
    # 1 and 32 and 8 times 16 and 4 times 16: no caller is missing (fio adds a few flushes).
    assert after["callers"] - before["callers"] >= 1 + 32 + 8 * 16 + 4 * 16
    answers = sum(value for key, value in after.items() if key.startswith("latency_us_"))
    assert answers == after["host_flushes"]
    assert 1 < after["largest_batch"] <= after["callers"]
    assert (after["errors"], after["recoveries"]) == (before["errors"], before["recoveries"])

    machine.host.plan("fail")
    for count in range(1, 4):
        machine.fails(f"xfs_io -c fsync /dev/{disk}")
        assert machine.stats(device)["errors"] == before["errors"] + count
    machine.host.plan("pass")


@shared_by_rust
def test_tracefs(machine):
    """The events show every caller and every flush, and agree with the statistics."""
    device = machine.device()
    disk = machine.disk(device)
    assert machine.sh(f"ls -d {EVENTS}/*/ | wc -l") == str(len(NAMES))
    before = machine.stats(device)
    text = run_shared(machine, device, f"""
        cd {EVENTS}/../..
        {CLOCK}
        echo >trace
        echo 1 >{EVENTS}/enable
        {load(disk)}
        echo 0 >{EVENTS}/enable
        cat trace
    """) + "\n"
    check(text, device, before, machine.stats(device))
    # An event that is off is not recorded.
    machine.sh(f"echo >{EVENTS}/../../trace; xfs_io -c fsync /dev/{disk}")
    assert "virtio_pmem_" not in machine.sh(f"cat {EVENTS}/../../trace")


@shared_by_rust
def test_trace_cmd(machine):
    """trace-cmd records the events and prints them like the kernel."""
    device = machine.device()
    disk = machine.disk(device)
    machine.sh(f"cat >/tmp/load.sh <<'EOF'\n{load(disk)}\nEOF")
    before = machine.stats(device)
    text = run_shared(machine, device, """
        cd /tmp
        trace-cmd record -q -C counter -e virtio_pmem sh /tmp/load.sh >/tmp/record 2>&1 || {
            cat /tmp/record; exit 1
        }
        trace-cmd report 2>/dev/null
    """) + "\n"
    check(text, device, before, machine.stats(device))


@shared_by_rust
def test_errors_are_traced(machine):
    """A flush that the host fails is traced with its status and with the callers' error."""
    device = machine.device()
    disk = machine.disk(device)
    machine.host.plan("fail")
    text = machine.sh(f"""
        cd {EVENTS}/../..
        echo >trace
        echo 1 >{EVENTS}/enable
        ! xfs_io -c fsync /dev/{disk} >/dev/null 2>&1
        echo 0 >{EVENTS}/enable
        cat trace
    """)
    machine.host.plan("pass")
    (batch,) = batches(text, device).values()
    assert batch.sent == [1]
    assert batch.answered == [(4, 1)]
    assert batch.completed == [(1, -5)]


def jumps(module):
    """Return, by tracepoint, the instructions at the places of its static key."""
    def readelf(*options):
        return steps.output(["readelf", "-W", *options, module])

    sections = {name: int(offset, 16) for name, offset in
                re.findall(r"\] (\S+) +\S+ +[0-9a-f]+ ([0-9a-f]+) ", readelf("-S"))}
    table = readelf("-r").split("'.rela__jump_table'")[1].split("\n\n")[0]
    # An entry names three places: the code, the target of its jump, the key.
    places = re.findall(r"R_X86_64_\S+ +[0-9a-f]+ (\S+) \+ ([0-9a-f]+)$", table, re.M)
    found, data = collections.defaultdict(list), module.read_bytes()
    for (section, offset), _, (key, _) in zip(*[iter(places)] * 3, strict=True):
        start = sections[section] + int(offset, 16)
        found[key].append(data[start:start + 5])
    return found


def test_free_when_off(kernel):
    """An event that is off costs a no-op, at the place of its static key."""
    (module,) = kernel.out.glob("modules/lib/modules/*/kernel/drivers/nvdimm/*/virtio_pmem_rust.ko")
    found = jumps(module)
    for name in NAMES:
        places = found[f"__tracepoint_virtio_pmem_{name}"]
        assert places
        for code in places:
            assert code == bytes.fromhex("0f1f440000") or code[:2] == bytes.fromhex("6690"), code
