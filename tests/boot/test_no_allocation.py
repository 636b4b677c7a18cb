# SPDX-License-Identifier: GPL-2.0
"""Nothing is allocated from the flush callback to the completion: every allocation there fails.

The kernel's fault injection makes every slab and every page allocation fail that has the driver's
code on its stack: below the flush callback, the virtqueue's callback, and the work item. It counts
the failures, also of callers that have a reserve or ignore them. So the proof is not that no flush
fails, but that the driver requests no memory. (Nor do the end_io handlers of the bios that the work
item completes.)

Trace events of the allocators record the stacks of the failures, and two kinds do not count. An
interrupt that hits the driver's code has that code on its stack, too; then the interrupt's entry
stands between the allocation and the driver. And an end_io handler that frees its bio may make the
slab allocator request a sheaf for freed objects; nothing depends on its success.
"""

import functools
import re

import pytest
from host import LIMIT
from injection import prepare, set_probability, text_of
from machine import MIB, aio, dsync

pytestmark = pytest.mark.only_debug

# More than ever needed; the injections count down from it.
TIMES = 1000000

ALWAYS = {"ignore-gfp-wait": "N", "space": 0, "interval": 1, "times": TIMES}
INJECTIONS = {"failslab": ALWAYS,
              "fail_page_alloc": {**ALWAYS, "ignore-gfp-highmem": "N", "min-order": 0}}

WRITERS, PAGES = 4, 200

TRACING = "/sys/kernel/tracing"

# An allocation that failed, by the allocators' events.
FAILED = {"kmalloc": "ptr == 0", "kmem_cache_alloc": "ptr == 0",
          "mm_page_alloc": "pfn == 0xffffffffffffffff"}

# They are on from the start. Switching them on patches code that other processors execute, and
# emulated ones sometimes fail at the temporary breakpoint.
APPEND = f"trace_event={','.join(f'kmem:{event}' for event in FAILED)}"

NOT_DRIVERS = re.compile(r"asm_(sysvec|common_interrupt)|kmem_cache_free|kfree|mempool_free")
DRIVER = re.compile(r"virtio_pmem|async_pmem_flush")


def arm(machine, text):
    """Fail all allocations below a module's code from now on."""
    for name, settings in INJECTIONS.items():
        prepare(machine, name, text, settings)
    machine.sh(f"""
        cd {TRACING}
        echo 0 >tracing_on
        echo >trace
        echo 4096 >buffer_size_kb
        echo 1 >options/stacktrace
        {"; ".join(f"echo '{rule}' >events/kmem/{event}/filter" for event, rule in FAILED.items())}
        echo 1 >tracing_on
    """)
    set_probability(machine, INJECTIONS, 100)


def disarm(machine):
    """Let allocations succeed again; return the number of failures, and their stacks."""
    set_probability(machine, INJECTIONS, 0)
    machine.sh(f"echo 0 >{TRACING}/tracing_on")
    left = [int(machine.sh(f"cat /sys/kernel/debug/{name}/times")) for name in INJECTIONS]
    trace = machine.sh(f"cat {TRACING}/trace")
    return (sum(TIMES - times for times in left),
            re.findall(r"<stack trace>\n((?: => .*\n?)+)", trace))


def is_drivers(stack):
    """Return whether the driver requested the memory."""
    for frame in stack.splitlines():
        if DRIVER.search(frame):
            return True
        if NOT_DRIVERS.search(frame):
            return False
    return True


def start_load(machine, raw, mounted=None):
    """Start callers of all kinds: AIO with FUA, O_SYNC to the disk, O_SYNC in a file system.

    They run until there is a file /tmp/stop, or until they fail. Each program runs long, because
    the injections slow down the start of programs. Return the names for join().
    """
    scripts = {"aio": aio(raw, "1m", 16, "--offset=32m --time_based --runtime=20")}
    for index in range(WRITERS):
        scripts[f"raw{index}"] = dsync(raw, PAGES, index * PAGES, index + 1)
        if mounted:
            scripts[f"file{index}"] = (f"xfs_io -f -s -c 'pwrite -q -S {index + 1} -b 4k 0 "
                                       f"{4 * PAGES}k' {mounted}/file{index}")
    before = machine.host.begun()
    for name, script in scripts.items():
        machine.later(name, f"until [ -e /tmp/stop ]; do {script} || exit 1; done")
    machine.host.wait_begun(before + 50)
    return list(scripts)


def wait_served(machine, disk, count=100):
    """Wait until this number of further flushes of a disk was answered."""
    goal = machine.host.ended(disk) + count
    machine.host.wait(functools.partial(machine.host.ended, disk), goal, LIMIT)


def check_written(machine, path, index, skip=0):
    """Fail unless all pages of a writer hold its pattern."""
    others = machine.sh(f"dd if={path} bs=4k skip={skip} count={PAGES} 2>/dev/null | "
                        f"tr -d '\\{index + 1:03o}' | wc -c")
    assert others == "0", f"{path}: {others} bytes differ from the written ones"


def test_rust(boot):
    """The driver requests no memory while it serves all kinds of callers; the data is verified."""
    with boot(sizes=(64 * MIB, 128 * MIB), append=APPEND) as machine:
        text = text_of(machine, "virtio_pmem_rust")
        machine.sh("mkfs.ext4 -q -b 4096 /dev/pmem1; mount /dev/pmem1 /mnt")
        names = start_load(machine, "pmem0", "/mnt")
        arm(machine, text)
        for disk in machine.pmem:
            wait_served(machine, disk)
        failed, stacks = disarm(machine)
        machine.sh("touch /tmp/stop")
        for name in names:
            status, output = machine.join(name)
            assert status == 0, output
        assert [stack for stack in stacks if is_drivers(stack)] == []
        assert failed <= len(stacks), "a failure has no stack"
        for index in range(WRITERS):
            check_written(machine, "/dev/pmem0", index, index * PAGES)
            check_written(machine, f"/mnt/file{index}", index)
        machine.sh("umount /mnt; e2fsck -fn /dev/pmem1 >/dev/null 2>&1")
        machine.check_errors()


def test_probe_fails(boot):
    """The same injections reach the driver: its probe, which allocates, fails."""
    with boot(append=APPEND) as machine:
        device = machine.device()
        machine.disk(device)
        text = text_of(machine, "virtio_pmem_rust")
        machine.unbind(device)
        arm(machine, text)
        machine.fails(f"echo {device.virtio} >/sys/bus/virtio/drivers/virtio_pmem_rust/bind")
        failed, stacks = disarm(machine)
        assert failed > 0
        assert any(is_drivers(stack) for stack in stacks)
        machine.write(machine.bind(device), 4)


def test_c(boot):
    """The C driver allocates for each FUA write, so its callers fail: the test can fail."""
    with boot(driver="c", append=APPEND) as machine:
        text = text_of(machine, "nd_virtio")
        names = start_load(machine, "pmem0")
        arm(machine, text)
        assert all(machine.join(name)[0] != 0 for name in names)
        failed, stacks = disarm(machine)
        assert failed > 0
        assert any("pmem_flush" in stack and is_drivers(stack) for stack in stacks)
