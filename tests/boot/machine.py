# SPDX-License-Identifier: GPL-2.0
"""A guest of the boot tests: its devices, its host, the kernel's reports of bugs."""

import contextlib
import dataclasses
import re
import time

import pytest
from host import LIMIT

from guest import DRIVERS, Disk, Guest

MIB = 1 << 20

# Virtio's number for pmem devices.
PMEM = "0x001b"

# Seconds after which a guest is killed. Like LIMIT, it measures nothing.
LIFE = 6 * LIMIT

# A timeout of the driver's that is longer than any wait here, so that it ends nothing.
LONG_TIMEOUT = "virtio_pmem_rust.timeout=3600"


def dsync(disk, pages, first=0, pattern=0x5a):
    """Return the command that writes pages to a disk with O_DIRECT and O_SYNC, one by one."""
    return (f'xfs_io -d -s -c "pwrite -q -S {pattern} -b 4k {4 * first}k {4 * pages}k" '
            f"/dev/{disk}")


def aio(disk, size, depth=4, more=""):
    """Return the command that writes to a disk by AIO, with O_DIRECT and O_DSYNC.

    Each write is one bio with FUA. A task that sleeps in a flush cannot be frozen; a task whose
    bios wait for the host can.
    """
    return (f"fio --name=aio --filename=/dev/{disk} --ioengine=libaio --direct=1 --sync=dsync "
            f"--rw=write --bs=4k --size={size} --iodepth={depth} --thread --allow_file_create=0 "
            f"{more}")


@dataclasses.dataclass(frozen=True)
class Device:
    """A virtio-pmem device, by its names in the guest."""
    virtio: str
    pci: str

    @property
    def path(self):
        """The device's directory in sysfs."""
        return f"/sys/bus/virtio/devices/{self.virtio}"


def slowness(kernel):
    """Return the factor by which timeouts are longer for a kernel."""
    return 4 if kernel.name == "debug" else 1


def watchdogs(kernel):
    """Return words for the command line that make watchdogs tolerate a busy host."""
    return ("rcupdate.rcu_cpu_stall_timeout=120 watchdog_thresh=60 workqueue.watchdog_thresh=120 "
            f"sysctl.kernel.hung_task_timeout_secs={LIMIT * slowness(kernel)}")


class Machine(Guest):
    """A guest under a host whose fsync the test plans. Leaving its context checks its console.

    All timeouts, also those of its host, are for the release kernel.

    sizes    of pmem devices in bytes; each is on its own file in folder
    options  of these devices
    ready    the console's message when the guest accepts commands, if it does not start its agent
    """

    def __init__(self, kernel, host, folder, *, sizes=(128 * MIB,), options="", ready=None,
                 append="", timeout=LIFE, **more):
        self.host = host
        self.ready = ready
        self.slowness = host.slowness = slowness(kernel)
        disks = [Disk(folder / f"pmem{index}", size, options) for index, size in enumerate(sizes)]
        super().__init__(kernel, pmem=disks, wrapper=host.wrapper(),
                         append=f"{watchdogs(kernel)} printk.devkmsg=on {append}",
                         timeout=timeout * self.slowness, **more)

    def wait_ready(self, timeout=None):
        """Wait until the guest accepts commands."""
        if self.ready:
            self.wait_console(self.ready)
            self.run("true", timeout)
        else:
            super().wait_ready(timeout)

    def __exit__(self, kind, *rest):
        with contextlib.ExitStack() as stack:
            stack.callback(super().__exit__, kind, *rest)
            if kind is None:
                self.check()

    def check(self, before=0):
        """Fail if the kernel has reported a bug, or has switched lockdep off."""
        if self.alive():
            # A thread of the kernel prints, and may lag behind the messages.
            word = f"checked {time.monotonic_ns()}"
            self.sh(f"echo '<5>{word}' >/dev/kmsg")
            self.wait_console(word)
        # An error of the guest names known faults of QEMU: see guest.py.
        trouble = self.trouble()[before:]
        if trouble:
            raise self.error("\n".join(["the kernel reports:", *trouble]))

    def trouble(self):
        """List the kernel's reports of bugs; a lockdep that is off counts as one."""
        off = []
        if self.kernel.name == "debug" and self.alive():
            state = self.sh("grep debug_locks: /proc/lockdep_stats")
            if state.split() != ["debug_locks:", "1"]:
                off = [f"lockdep is off: {state}"]
        return self.complaints() + off

    def wait(self, timeout=LIMIT):
        """Wait until QEMU has ended by itself; return its exit status."""
        return super().wait(timeout * self.slowness)

    def wait_console(self, pattern, timeout=LIMIT):
        """Wait for a regular expression on the console; return its match."""
        return super().wait_console(pattern, timeout * self.slowness)

    # Commands

    def run(self, script, timeout=None, **more):
        """Run a script like Guest.run(); the timeout is for the release kernel."""
        return super().run(script, timeout and timeout * self.slowness, **more)

    def sh(self, script, timeout=None):
        """Run a script whose steps must all succeed; return its output, stripped."""
        return self.run(f"set -e\n{script}", timeout, check=True).output.strip()

    def fails(self, script, timeout=None):
        """Run a script that must fail; return its output."""
        result = self.run(script, timeout)
        assert result.status != 0, f"succeeded: {script}\n{result.output}"
        return result.output.strip()

    def later(self, name, script):
        """Start a script in the background, for join()."""
        self.sh(f"""
            rm -f /tmp/{name}.status
            cat >/tmp/{name}.sh <<'SCRIPT'
{script}
SCRIPT
            (status=0
             sh /tmp/{name}.sh >/tmp/{name}.out 2>&1 </dev/null || status=$?
             echo $status >/tmp/{name}.new
             mv /tmp/{name}.new /tmp/{name}.status) >/dev/null 2>&1 &
        """)

    def join(self, name, timeout=LIMIT):
        """Wait for a script in the background; return its exit status and output."""
        self.until(f"[ -e /tmp/{name}.status ]", timeout)
        return int(self.sh(f"cat /tmp/{name}.status")), self.sh(f"cat /tmp/{name}.out")

    def done(self, name):
        """Return whether a script in the background has ended."""
        return self.run(f"[ -e /tmp/{name}.status ]").status == 0

    def until(self, condition, timeout=LIMIT):
        """Wait until a command of the guest succeeds."""
        # By the host's clock: an emulated guest's may be wrong (see guest.py).
        limit = time.monotonic() + timeout * self.slowness
        while (result := self.run(condition, timeout)).status:
            if time.monotonic() > limit:
                # The console gets the stacks of sleeping tasks, and the timers.
                self.run("""
                    ls /sys/bus/nd/devices /dev/pmem* >/dev/kmsg 2>&1
                    grep -i virtio /proc/interrupts >/dev/kmsg
                    cat /sys/kernel/debug/virtio_pmem_rust-*/stats >/dev/kmsg 2>&1
                    echo w >/proc/sysrq-trigger
                    echo q >/proc/sysrq-trigger
                    sleep 3
                """)
                raise self.error(f"not true within {timeout * self.slowness} s: {condition}\n"
                                 f"{result.output}")
            time.sleep(0.1)

    def until_within(self, function):
        """Wait until a process of the guest sleeps within a function of the kernel."""
        self.until(f"grep -qs ' {function}+' /proc/[0-9]*/stack")

    def let_freeze(self):
        """Set a timeout for freezing tasks that a busy machine can keep."""
        self.sh(f"echo {1000 * LIMIT} >/sys/power/pm_freeze_timeout")

    def prepare_sleep(self, level):
        """Limit the next sleep to a level of pm_test, and to a second."""
        self.let_freeze()
        self.sh(f"""
            echo 1 >/sys/module/suspend/parameters/pm_test_delay
            echo 1 >/sys/module/hibernate/parameters/pm_test_delay
            echo {level} >/sys/power/pm_test
        """)

    # Devices

    def devices_found(self):
        """List the guest's virtio-pmem devices in the order of their ports."""
        found = []
        for line in self.sh(f"""
            for device in /sys/bus/virtio/devices/virtio*; do
                [ "$(cat $device/device)" != {PMEM} ] || readlink -f $device
            done
        """).splitlines():
            *_, pci, virtio = line.split("/")
            found.append(Device(virtio, pci))
        return sorted(found, key=lambda device: device.pci)

    def device(self):
        """Return the guest's only virtio-pmem device."""
        (device,) = self.devices_found()
        return device

    def bound(self, device):
        """Return the driver to which a device is bound."""
        return self.sh(f"basename $(readlink {device.path}/driver || echo none)")

    def disk(self, device, timeout=LIMIT):
        """Wait until a device has its disk; return the name."""
        # The region is registered asynchronously.
        block = f"{device.path}/ndbus*/region*/namespace*/block/"
        self.until(f"name=$(ls {block} 2>/dev/null) && [ -b /dev/$name ]", timeout)
        return self.sh(f"ls {block}")

    def write(self, disk, pages, first=0, pattern=0x5a):
        """Write pages to a disk, each with its own flush."""
        self.sh(dsync(disk, pages, first, pattern))

    def unbind(self, device):
        """Unbind a device from its driver; return the seconds it took."""
        start = time.monotonic()
        self.sh(f"echo {device.virtio} >{device.path}/driver/unbind", LIMIT)
        return time.monotonic() - start

    def bind(self, device, driver=None):
        """Bind a device to a driver, by default the guest's; return the disk's name."""
        name = DRIVERS[driver or self.driver]
        self.sh(f"echo {device.virtio} >/sys/bus/virtio/drivers/{name}/bind")
        return self.disk(device)

    def remove(self, device):
        """Remove a device's PCI function."""
        self.sh(f"echo 1 >/sys/bus/pci/devices/{device.pci}/remove", LIMIT)

    def rescan(self):
        """Rescan the PCI bus for the only device; return the disk's name."""
        self.sh("echo 1 >/sys/bus/pci/rescan")
        return self.disk(self.device())

    @staticmethod
    def debugfs(device, name):
        """Return the path of one of the driver's files of a device."""
        return f"/sys/kernel/debug/{DRIVERS['rust']}-{device.virtio}/{name}"

    def stats(self, device):
        """Return the driver's statistics of a device."""
        lines = self.sh(f"cat {self.debugfs(device, 'stats')}").splitlines()
        return {key: float(value) if "." in value else int(value)
                for key, value in (line.split(": ") for line in lines)}

    def wait_stat(self, device, key, value):
        """Wait until one of the driver's statistics has reached a value."""
        file = self.debugfs(device, "stats")
        self.until(f"[ $(sed -n 's/^{key}: //p' {file}) -ge {value} ]")

    # Messages

    def errors(self):
        """List the messages of level error and above about devices, disks and file systems."""
        words = r"virtio|pmem|nd_|ndbus|region|namespace|EXT4|XFS|I/O error"
        text = self.sh("dmesg -r")
        return [line for line in text.splitlines()
                if re.match(rf"<[0-3]>.*({words})", line)]

    def check_errors(self):
        """Fail if there is such a message."""
        # The C driver reports each unbind as an error.
        known = "virtio_pmem virtio[0-9]+: virtqueue is broken"
        assert [line for line in self.errors() if not re.search(known, line)] == []

    def clear_messages(self):
        """Clear the kernel's messages."""
        self.sh("dmesg -c >/dev/null")


@contextlib.contextmanager
def lent(shared, session):
    """Lend a shared guest to a test, running, with messages of this test alone.

    A failed test ends it, and the next one boots it again.
    """
    if not shared.alive():
        shared.start()
        shared.wait_ready()
    shared.clear_messages()
    before, failed = len(shared.trouble()), session.testsfailed
    yield shared
    good = False
    try:
        shared.check(before)
        good = session.testsfailed == failed
    finally:
        if not good:
            shared.close()


# A test of both drivers: one that the driver in C passes asks for nothing new.
both_drivers = pytest.mark.parametrize("driver", list(DRIVERS))

# The same for tests that share a guest, and for promises of the Rust driver alone.
shared_by_both = pytest.mark.parametrize("shared", list(DRIVERS), indirect=True)
shared_by_rust = pytest.mark.parametrize("shared", ["rust"], indirect=True)
