# SPDX-License-Identifier: GPL-2.0
"""Measure both drivers and virtio-blk beside each other in one guest, alternately.

Each host speed has a guest of its own. In it, each round binds the C driver, then the Rust driver
to the same virtio-pmem device, and ends with virtio-blk; fio's threads write 4 KiB blocks at random
places of the raw device, each made durable before the next. Writes are direct (O_DIRECT): with the
page cache, threads would wait for each other's pages.

The devices' backing files are on the same file system of the host. Their used part is written
beforehand, so that a flush allocates nothing. It is written block by block: the host caches a file
that was written in large pieces in large folios, and one byte that the guest stores through the
mapping makes a whole folio dirty, up to a mebibyte that the host then writes for each block.

virtio-blk has QEMU's default cache=writeback, under which it promises what virtio-pmem does: a
write may stay in the host's page cache until a flush. (With cache=none, each write would go to the
host's disk at once, and the comparison would be of writes.) A flush is an fsync of the host for
virtio-pmem, an fdatasync for virtio-blk. strace slows down both, and counts them.
"""

import json
import mmap
import os
import random
import re
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import accel
import initramfs
import kernel as kernels
import python_env
import settings
import steps
from bench_report import (
    DEVICES,
    MANY,
    MODES,
    Count,
    Point,
    Results,
    document,
    host_title,
    table,
    targets,
)
from guest import DRIVERS, Disk, Guest, GuestError, boots

NODES = {"c": "/dev/pmem0", "rust": "/dev/pmem0", "blk": "/dev/vda"}
SIZE = 256 << 20
USED = 32 << 20  # of each device; small, so that the host's cache keeps all of it
FOLDER = settings.BUILD / "bench"

# The device is found by its ID. A module that is loaded for the first time binds by itself.
BIND = """
set -e
for path in /sys/bus/virtio/devices/*; do
    [ "$(cat "$path/device")" != 0x001b ] || break
done
device=$(basename "$path")
[ ! -e "$path/driver" ] || echo "$device" >"$path/driver/unbind"
modprobe {driver}
[ -e "$path/driver" ] || echo "$device" >/sys/bus/virtio/drivers/{driver}/bind
[ "$(basename "$(readlink "$path/driver")")" = {driver} ]
tries=0
until [ -b /dev/pmem0 ]; do
    tries=$((tries + 1))
    [ $tries -lt 100 ] || {{ echo 'no /dev/pmem0 has appeared'; exit 1; }}
    usleep 50000
done
"""

CALLERS = "sed -n 's/^callers: //p' /sys/kernel/debug/virtio_pmem_rust-*/stats"

FIO = """
cat >/tmp/fio.ini <<'END'
{text}
END
fio --output-format=json --output=/tmp/fio.json /tmp/fio.ini >/tmp/fio.txt 2>&1 || {{
    cat /tmp/fio.txt
    exit 1
}}
cat /tmp/fio.json
"""


@dataclass(frozen=True)
class Plan:
    """How much is measured."""
    delays: tuple
    jobs: tuple
    rounds: int
    seconds: float  # of each rate
    warm_up: float

    def estimate(self):
        """Return about how many seconds it takes, without building and a slow machine."""
        rates = len(self.delays) * len(MODES) * len(DEVICES) * self.rounds * len(self.jobs)
        return (rates + 8 * len(self.delays)) * (self.seconds + 0.2) + 20 * len(self.delays)


def numbers(name, default="", least=1):
    """Return a variable that is a list of whole numbers."""
    words = (settings.get(name) or default).split()
    if not words or not all(word.isdecimal() and int(word) >= least for word in words):
        raise settings.BadSetting(f"{name}={settings.get(name)}: use numbers, like "
                                  f"{settings.VARIABLES[name].form}")
    return tuple(sorted({int(word) for word in words}))


def plan():
    """Return the plan that the variables of make describe."""
    quick = settings.flag("QUICK")
    return Plan(
        delays=numbers("DELAYS", least=0),
        jobs=numbers("JOBS", "1 64" if quick else "1 2 4 8 16 32 64"),
        rounds=settings.number("ROUNDS"),
        seconds=0.5 if quick else 1.0,
        warm_up=0.5,
    )


def fio_text(node, mode, jobs, seconds):
    """Return a job file that measures several numbers of jobs, one after the other."""
    lines = ["[global]", f"filename={node}", "ioengine=psync", "thread", "direct=1",
             "rw=randwrite", "bs=4k", f"size={USED}", "norandommap", "randrepeat=0", MODES[mode],
             "time_based", f"runtime={round(1000 * seconds)}ms", "group_reporting",
             # Latencies are not reported, and reading the clock for them costs time.
             "disable_lat=1", "disable_slat=1", "disable_clat=1", "disable_bw_measurement=1"]
    for count in jobs:
        lines += [f"[{count}]", f"numjobs={count}", "stonewall"]
    return "\n".join(lines)


def fio_writes(text):
    """Return what fio reports in JSON as {jobs: (writes per second, writes)}."""
    try:
        report = json.loads(text[text.index("{"):])
        found = {}
        for group in report["jobs"]:
            writes = group["write"]
            if group["error"] or not writes["total_ios"]:
                raise steps.Trouble(f"fio wrote nothing with {group['jobname']} jobs")
            found[int(group["jobname"])] = (writes["iops"], writes["total_ios"])
        return found
    except (KeyError, ValueError) as error:
        raise steps.Trouble(f"fio's report is not understood ({error}):\n{text[:500]}") from error


class Host:
    """The host's side of one guest: its backing files, and strace, which delays and counts."""

    def __init__(self, folder, delay, counting):
        self.folder = folder
        self.delay = delay
        self.log = folder / "fsyncs" if delay or counting else None

    def disk(self, name):
        """Return a new backing file; what is used of it is written block by block."""
        path = self.folder / name
        path.unlink(missing_ok=True)
        block = os.urandom(4096)
        with open(path, "wb", buffering=0) as file:
            for _ in range(USED // len(block)):
                file.write(block)
            file.truncate(SIZE)
            os.fsync(file.fileno())
        return Disk(path, SIZE)

    def alone(self, seconds=0.5):
        """Return the host's own rate of flushes of one block, done as for pmem and as for blk."""
        block, found = os.urandom(4096), {}
        with open(self.disk("pmem").path, "r+b", buffering=0) as file, \
                mmap.mmap(file.fileno(), USED) as memory:
            def store(offset):
                memory[offset:offset + len(block)] = block
                os.fsync(file.fileno())

            def write(offset):
                os.pwrite(file.fileno(), block, offset)
                os.fdatasync(file.fileno())

            for name, work in {"store, fsync": store, "write, fdatasync": write}.items():
                count, start = 0, time.monotonic()
                while time.monotonic() < start + seconds:
                    work(random.randrange(0, USED, len(block)))
                    count += 1
                found[name] = round(count / (time.monotonic() - start))
        return found

    def wrapper(self):
        """Return the command that runs QEMU."""
        if not self.log:
            return []
        words = ["strace", "-f", "--seccomp-bpf", "-qq", "-o", self.log,
                 "-e", "trace=fsync,fdatasync", "-e", "signal=none"]
        if self.delay:
            words += ["-e", f"inject=fsync,fdatasync:delay_enter={self.delay}ms"]
        return words

    def fsyncs(self):
        """Count the host's flushes so far; the log may have one in two lines."""
        text = self.log.read_text(errors="replace")
        return len(re.findall(r"^\d+ +f(?:data)?sync\(", text, re.M))


class Bench:
    """One guest, its host, and what is measured there."""

    def __init__(self, guest, host, results):
        self.guest = guest
        self.host = host
        self.results = results

    def prepare(self, device):
        """Bind the device to its driver."""
        if device in DRIVERS:
            self.guest.run(BIND.format(driver=DRIVERS[device]), check=True)

    def fio(self, device, mode, jobs, seconds):
        """Run fio; return {jobs: (writes per second, writes)}."""
        text = fio_text(NODES[device], mode, jobs, seconds)
        return fio_writes(self.guest.run(FIO.format(text=text), check=True).output)

    def warm_up(self, seconds):
        """Run everything once: the first time, TCG translates and caches are cold."""
        for device in DEVICES:
            self.prepare(device)
            for mode in MODES:
                self.fio(device, mode, (MANY,), seconds)

    def round(self, jobs, seconds):
        """Measure each device once."""
        for device in DEVICES:
            self.prepare(device)
            for mode in MODES:
                rates = self.fio(device, mode, jobs, seconds)
                for count, (rate, _) in rates.items():
                    self.results.add(Point(self.host.delay, mode, count), device, rate)
                show = ", ".join(f"{count}: {rate:.0f}" for count, (rate, _) in rates.items())
                steps.say(f"  {device:4} {mode:5} writes/s by jobs {show}")

    def callers(self, device):
        """Return how many callers the driver has had, if it counts them."""
        if device != "rust":
            return None
        return int(self.guest.run(CALLERS, check=True).output)

    def count(self, seconds):
        """Count the host flushes of both drivers at many jobs."""
        for device in DRIVERS:
            self.prepare(device)
            for mode in MODES:
                flushes, callers = self.host.fsyncs(), self.callers(device)
                (_, writes), = self.fio(device, mode, (MANY,), seconds).values()
                count = Count(self.host.fsyncs() - flushes, writes,
                              None if callers is None else self.callers(device) - callers)
                self.results.add_count(self.host.delay, mode, device, count)
                steps.say(f"  {device:4} {mode:5} {count.flushes} host flushes for {writes} "
                          "writes")


def machine():
    """Return the guest's memory and processors."""
    return {"memory": settings.size("MEM"), "smp": settings.number("SMP")}


def run_guest(kernel, folder, wanted, delay, results, *, rounds, counting):
    """Measure at one host speed; return the kernel's complaints."""
    host = Host(folder, delay, counting)
    disks = [host.disk("pmem"), host.disk("blk")]
    name = f"bench-{delay}ms{'-count' if counting and not delay else ''}"
    limit = round(10 * wanted.estimate()) + 120
    with Guest(kernel, name=name, pmem=disks[:1], blk=disks[1:], driver="none",
               wrapper=host.wrapper(), timeout=limit, **machine()) as guest:
        bench = Bench(guest, host, results)
        if rounds:
            with steps.step(f"{host_title(delay)}: warm up"):
                bench.warm_up(wanted.warm_up)
        for number in range(1, rounds + 1):
            with steps.step(f"{host_title(delay)}: round {number} of {rounds}"):
                bench.round(wanted.jobs, wanted.seconds)
        if host.log:
            with steps.step(f"{host_title(delay)}: count host flushes at {MANY} jobs"):
                bench.count(wanted.seconds)
        return guest.complaints()


def measure(kernel, folder, wanted, results):
    """Measure at all host speeds; return the kernel's complaints."""
    complaints = []
    for delay in wanted.delays:
        complaints += run_guest(kernel, folder, wanted, delay, results, rounds=wanted.rounds,
                                counting=bool(delay))
        if not delay:
            # Under strace even an fsync that is not delayed takes longer: not for the rates.
            complaints += run_guest(kernel, folder, wanted, delay, results, rounds=0,
                                    counting=True)
    return complaints


def draw(python, source, target):
    """Draw the results in a JSON file as SVG."""
    steps.run([python, settings.ROOT / "scripts/plot.py", source, target],
              steps.log_path("bench-plot"))


def about(kernel, folder, wanted):
    """Return the circumstances of the measurement."""
    qemu = steps.output([settings.qemu(), "--version"]) or ""
    return {
        "time": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "qemu": qemu.split("\n", maxsplit=1)[0],
        "accelerator": accel.choose(kernel, boots),
        "guest": "{memory} bytes, {smp} processors".format(**machine()),
        "host_kernel": os.uname().release,
        "host_processors": os.cpu_count(),
        "host_file_system": steps.output(["findmnt", "-n", "-o", "FSTYPE,OPTIONS", "-T", folder]),
        "host_alone": Host(folder, 0, counting=False).alone(),
        "jobs": wanted.jobs,
        "rounds": wanted.rounds,
        "seconds_per_rate": wanted.seconds,
    }


def build():
    """Return the kernel: the project's own, or the one that --built names."""
    if sys.argv[1:2] != ["--built"]:
        return kernels.ready("release")
    found = kernels.Kernel("release", Path(sys.argv[2]).resolve())
    initramfs.build(found)
    return found


def main():
    """Measure, report, and compare with the targets."""
    wanted, check = plan(), settings.flag("CHECK")
    kernel, python = build(), python_env.python()
    load = os.getloadavg()[0]
    if load > os.cpu_count() + 0.5:
        steps.say(f"the machine is busy (load {load:.1f}): figures will be low, and ratios "
                  "uncertain")
    steps.say(f"this takes about {wanted.estimate() / 60:.0f} minutes")
    results = Results()
    FOLDER.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=FOLDER, prefix="disks-") as folder:
        circumstances = about(kernel, Path(folder), wanted)
        complaints = measure(kernel, Path(folder), wanted, results)
    circumstances["load"] = [load, os.getloadavg()[0]]
    for name, value in circumstances.items():
        print(f"{name.replace('_', ' ')}: {value}")
    print()
    (FOLDER / "bench.json").write_text(json.dumps(document(results, circumstances), indent=1))
    draw(python, FOLDER / "bench.json", FOLDER / "bench.svg")
    print(table(results))
    found = targets(results)
    for target in found:
        print(target)
    print(f"written: {FOLDER / 'bench.json'}, {FOLDER / 'bench.svg'}", flush=True)
    if complaints:
        raise GuestError(f"the guest's kernel complained: {complaints[0]}")
    return 1 if check and any(target.verdict == "not met" for target in found) else 0


if __name__ == "__main__":
    steps.main(main)
