# SPDX-License-Identifier: GPL-2.0
"""Measure both drivers and virtio-blk beside each other in one guest, alternately.

Each host speed has a guest of its own. In it, each round binds the C driver, then the Rust driver
to the same virtio-pmem device, with gathering and without, and continues with virtio-blk; fio's
threads write 4 KiB blocks at random places of the raw device, each made durable before the next.
Writes are direct (O_DIRECT): with the page cache, threads would wait for each other's pages.

On the host as it is, two emulated processors are busy with the guest's own work. What that allows
is the rate of pmem that needs no flush: a part of the guest's memory, which the BIOS reports as
persistent. Latencies come from runs of their own, because fio's clock costs time: a closed load,
and an open one, whose writes come at random times at half the rate that is possible without
gathering: 64 loops, each of which still waits for its own writes. Another guest has a host with one
thread for all requests, so that it serves one flush after the other. The last one counts
instructions, which the load of this machine does not change.

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
import kernel as kernels
import python_env
import qemu
import settings
import steps
from bench_report import (
    APPLICATION,
    DEVICES,
    MANY,
    MODES,
    PROCESSES,
    Count,
    Latency,
    Point,
    Results,
    document,
    table,
    targets,
)
from guest import DRIVERS, Disk, Guest, GuestError, boots

# The pmem of the guest's memory is there first.
NODES = {"c": "/dev/pmem1", "rust": "/dev/pmem1", "off": "/dev/pmem1", "blk": "/dev/vda",
         "none": "/dev/pmem0"}
BOUND = {"c": DRIVERS["c"], "rust": DRIVERS["rust"], "off": DRIVERS["rust"]}
SIZE = 256 << 20
WRITES = (20 * MANY, 60 * MANY)  # for which instructions are counted
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
until [ -b {node} ]; do
    tries=$((tries + 1))
    [ $tries -lt 100 ] || {{ echo 'no {node} has appeared'; exit 1; }}
    usleep 50000
done
"""

GATHERING = "echo {} >$(echo /sys/kernel/debug/virtio_pmem_rust-*/gathering)"

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

# Each process commits rows to a database of its own, one by one, until its time is over. Before,
# without any flush, the log grows to the size at which SQLite begins to overwrite it: while it
# grows, each commit waits for ext4's journal, where one task flushes for all.
SQLITE = """
set -e
mkfs.ext4 -qF -b 4096 {node}
mount {node} /mnt
for number in $(seq {processes}); do
    sqlite3 /mnt/$number.db 'PRAGMA journal_mode=WAL; CREATE TABLE rows(content);' >/dev/null
done
for number in $(seq {processes}); do
    {{
        echo 'PRAGMA wal_autocheckpoint=100; PRAGMA synchronous=OFF;'
        yes 'INSERT INTO rows VALUES(hex(randomblob(50)));' | head -n {rows}
        sleep {start}
        echo 'PRAGMA synchronous=FULL;'
        yes 'INSERT INTO rows VALUES(hex(randomblob(50)));'
    }} | timeout {limit} sqlite3 /mnt/$number.db >/dev/null 2>&1 &
done
wait
total=0
for number in $(seq {processes}); do
    total=$((total + $(sqlite3 /mnt/$number.db 'SELECT count(*) FROM rows') - {rows}))
done
umount /mnt
echo $total
"""


@dataclass(frozen=True)
class Plan:
    """How much is measured."""
    delays: tuple
    jobs: tuple
    rounds: int
    seconds: float  # of each rate
    application: int  # seconds
    warm_up: float

    def estimate(self):
        """Return about how many seconds it takes, without building and a slow machine."""
        rates = len(MODES) * len(self.jobs) * len(DEVICES) * self.rounds
        latencies = 2 * len(GATHERS) * self.rounds
        each = (rates + latencies + 10) * (self.seconds + 0.5)
        application = (len(BOUND) + 1) * self.rounds * (self.application + 6)
        return (len(self.delays) + 0.5) * (each + application + 20) + 30 + 25 * self.rounds


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
        application=1 if quick else 2,
        warm_up=0.5,
    )


# Reading the clock for latencies costs time.
NO_LATENCIES = ("disable_lat=1", "disable_slat=1", "disable_clat=1", "disable_bw_measurement=1")
# Whether the driver in Rust gathers.
GATHERS = {"rust": 1, "off": 0}


def latency(writes):
    """Return the latency in fio's report of a group's writes, if it was measured."""
    times = writes["clat_ns"]
    if not times["N"]:
        return None
    return Latency(times["mean"] / 1e6, *(times["percentile"][f"{part}.000000"] / 1e6
                                          for part in (50, 99)))


def fio_text(node, mode, jobs, seconds, more=NO_LATENCIES, writes=None):
    """Return a job file that measures several numbers of jobs, one after the other.

    Each lasts so many seconds, or for so many writes.
    """
    lines = ["[global]", f"filename={node}", "ioengine=psync", "thread", "direct=1",
             "rw=randwrite", "bs=4k", f"size={USED}", "norandommap", "randrepeat=0", MODES[mode],
             "group_reporting", *more]
    for count in jobs:
        lines += [f"[{count}]", f"numjobs={count}", "stonewall",
                  *([f"number_ios={writes // count}"] if writes else
                    ["time_based", f"runtime={round(1000 * seconds)}ms"])]
    return "\n".join(lines)


def fio_writes(text):
    """Return what fio reports in JSON as {jobs: (writes per second, writes, latency)}."""
    try:
        report = json.loads(text[text.index("{"):])
        found = {}
        for group in report["jobs"]:
            writes = group["write"]
            if group["error"] or not writes["total_ios"]:
                raise steps.Trouble(f"fio wrote nothing with {group['jobname']} jobs")
            found[int(group["jobname"])] = (writes["iops"], writes["total_ios"], latency(writes))
        return found
    except (KeyError, ValueError) as error:
        raise steps.Trouble(f"fio's report is not understood ({error}):\n{text[:500]}") from error


class Host:
    """The host's side of one guest: its backing files, and strace, which delays and counts."""

    def __init__(self, folder, delay, counting, serial=False):
        self.folder = folder
        self.delay = delay
        self.serial = serial
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

    def args(self):
        """Return QEMU's arguments: its threads are those that flush."""
        return ["-object", "main-loop,id=main-loop,thread-pool-max=1"] if self.serial else []

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
        if device in BOUND:
            bind = BIND.format(driver=BOUND[device], node=NODES[device])
            self.guest.run(bind, check=True)
        if device in GATHERS:
            self.guest.run(GATHERING.format(GATHERS[device]), check=True)

    def fio(self, device, mode, jobs, seconds, more=NO_LATENCIES, writes=None):
        """Run fio as fio_text() says; return {jobs: (writes per second, writes, latency)}."""
        text = fio_text(NODES[device], mode, jobs, seconds, more, writes)
        return fio_writes(self.guest.run(FIO.format(text=text), check=True).output)

    def warm_up(self, seconds):
        """Run everything once: the first time, TCG translates and caches are cold."""
        for device in self.devices():
            self.prepare(device)
            for mode in MODES:
                self.fio(device, mode, (MANY,), seconds)
        for device in ("rust", "blk"):
            # This fills the holes of the files.
            self.prepare(device)
            self.sqlite(device, 1)

    def devices(self):
        """List what is measured: the host's speed is the same to a disk that needs no flush."""
        return [device for device in DEVICES if device != "none" or not self.host.delay]

    def round(self, jobs, seconds):
        """Measure each device once."""
        for device in self.devices():
            self.prepare(device)
            for mode in MODES:
                rates = self.fio(device, mode, jobs, seconds)
                for count, (rate, *_) in rates.items():
                    self.results.add(Point(self.host.delay, mode, count), device, rate)
                show = ", ".join(f"{count}: {rate:.0f}" for count, (rate, *_) in rates.items())
                steps.say(f"  {device:4} {mode:5} writes/s by jobs {show}")

    def latencies(self, seconds):
        """Measure latencies of O_SYNC writes at many jobs, with gathering and without."""
        point = Point(self.host.delay, "sync", MANY)
        half = round(self.results.median(point, "off") / 2 / MANY)
        loads = {"closed": (), "open": (f"rate_iops={max(half, 1)}", "rate_process=poisson")}
        for load, more in loads.items():
            for device in GATHERS:
                self.prepare(device)
                (_, _, found), = self.fio(device, "sync", (MANY,), 2 * seconds, more).values()
                self.results.add_latency(self.host.delay, load, device, found)
                steps.say(f"  {device:4} {load} load, latency in ms: {found.mean:.2f}, "
                          f"median {found.p50:.2f}, p99 {found.p99:.2f}")

    def sqlite(self, device, seconds):
        """Commit to databases on a file system; return how often."""
        start = 4  # seconds
        script = SQLITE.format(node=NODES[device], processes=PROCESSES, rows=150, start=start,
                               limit=start + seconds)
        return int(self.guest.run(script, check=True).output)

    def application(self, seconds):
        """Measure commits to databases on a file system."""
        for device in (*BOUND, "blk"):
            self.prepare(device)
            rate = self.sqlite(device, seconds) / seconds
            self.results.add(Point(self.host.delay, APPLICATION, PROCESSES), device, rate)
            steps.say(f"  {device:4} SQLite, commits/s: {rate:.0f}")

    def callers(self, device):
        """Return how many callers the driver has had, if it counts them."""
        if device == "c":
            return None
        return int(self.guest.run(CALLERS, check=True).output)

    def count(self, seconds):
        """Count the host flushes of both drivers at many jobs."""
        for device in BOUND:
            self.prepare(device)
            for mode in MODES:
                flushes, callers = self.host.fsyncs(), self.callers(device)
                (_, writes, _), = self.fio(device, mode, (MANY,), seconds).values()
                count = Count(self.host.fsyncs() - flushes, writes,
                              None if callers is None else self.callers(device) - callers)
                self.results.add_count(self.host.delay, mode, device, count)
                steps.say(f"  {device:4} {mode:5} {count.flushes} host flushes for {writes} "
                          "writes")


    def instructions(self, jobs):
        """Count the guest's instructions for a write and its fsync."""
        for device in ("c", "rust", "off", "none"):
            self.prepare(device)
            for count in jobs:
                self.fio(device, "fsync", (count,), 0, writes=MANY)  # caches are cold
                counts = []
                for writes in WRITES:
                    before = self.guest.instructions()
                    self.fio(device, "fsync", (count,), 0, writes=writes)
                    counts.append(self.guest.instructions() - before)
                # The difference has nothing of the start of fio.
                per_write = (counts[1] - counts[0]) / (WRITES[1] - WRITES[0])
                self.results.add_instructions(count, device, per_write)
                steps.say(f"  {device:4} instructions for each write by {count} jobs: "
                          f"{per_write:.0f}")


def machine():
    """Return the guest's memory and processors."""
    return {"memory": settings.size("MEM"), "smp": settings.number("SMP")}


def legacy():
    """Return the words that make a part of the guest's memory persistent."""
    memory = machine()["memory"]
    if memory < 1 << 30:
        raise settings.BadSetting(f"MEM={settings.get('MEM')}: the benchmark needs 1G or more")
    # In the middle of the memory below the PCI hole, whose ends are used by the firmware.
    return f"memmap={SIZE >> 20}M!{min(memory, 2 << 30) >> 21}M"


def run_guest(kernel, folder, wanted, delay, results, *, rounds, counting=False):
    """Measure at one host speed; return the kernel's complaints."""
    host = Host(folder, delay, counting, results.serial)
    disks = [host.disk("pmem"), host.disk("blk")]
    name = f"bench-{delay}ms{'-count' if counting else ''}{'-serial' if results.serial else ''}"
    limit = round(10 * wanted.estimate()) + 120
    with Guest(kernel, name=name, pmem=disks[:1], blk=disks[1:], driver="none", args=host.args(),
               append=legacy(), wrapper=host.wrapper(), timeout=limit,
               **machine()) as guest:
        bench = Bench(guest, host, results)
        title = results.title(delay)
        if rounds:
            with steps.step(f"{title}: warm up"):
                bench.warm_up(wanted.warm_up)
        for number in range(1, rounds + 1):
            with steps.step(f"{title}: round {number} of {rounds}"):
                bench.round(wanted.jobs, wanted.seconds)
                if MANY in wanted.jobs and not results.serial:
                    bench.latencies(wanted.seconds)
                    bench.application(wanted.application)
        if host.log and not results.serial:
            with steps.step(f"{title}: count host flushes at {MANY} jobs"):
                bench.count(wanted.seconds)
        return guest.complaints()


def count_instructions(kernel, folder, rounds, results):
    """Count instructions on the host as it is; return the kernel's complaints."""
    host = Host(folder, 0, counting=False)
    with steps.step("count instructions"), Guest(
            kernel, name="bench-instructions", pmem=[host.disk("pmem")], driver="none",
            append=legacy(), accelerator="icount", timeout=1800, **machine()) as guest:
        bench = Bench(guest, host, results)
        for _ in range(rounds):
            bench.instructions((1, MANY))
        return guest.complaints()


def measure(kernel, folder, wanted, results, serial):
    """Measure at all host speeds; return the kernel's complaints."""
    complaints = []
    for delay in wanted.delays:
        complaints += run_guest(kernel, folder, wanted, delay, results, rounds=wanted.rounds)
        if not delay:
            # Under strace even an fsync that is not delayed takes longer: not for the rates.
            complaints += run_guest(kernel, folder, wanted, delay, results, rounds=0,
                                    counting=True)
    complaints += run_guest(kernel, folder, wanted, max(wanted.delays), serial,
                            rounds=wanted.rounds)
    return complaints + count_instructions(kernel, folder, wanted.rounds, results)


def draw(python, source, target):
    """Draw the results in a JSON file as SVG."""
    steps.run([python, settings.ROOT / "scripts/plot.py", source, target],
              steps.log_path("bench-plot"))


def about(kernel, folder, wanted):
    """Return the circumstances of the measurement."""
    version = steps.output([qemu.program(), "--version"]) or ""
    return {
        "time": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "qemu": version.split("\n", maxsplit=1)[0],
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
    """Return the kernel: that of KERNEL, or the project's own in the directory after --built."""
    if sys.argv[1:2] == ["--built"]:
        return kernels.bootable(Path(sys.argv[2]).resolve())
    return kernels.ready(settings.choice("KERNEL", ("release", "debian")))


def main():
    """Measure, report, and compare with the targets."""
    wanted, check = plan(), settings.flag("CHECK")
    kernel, python = build(), python_env.python()
    load = os.getloadavg()[0]
    if load > os.cpu_count() + 0.5:
        steps.say(f"the machine is busy (load {load:.1f}): figures will be low, and ratios "
                  "uncertain")
    steps.say(f"this takes about {wanted.estimate() / 60:.0f} minutes")
    results, serial = Results(), Results(serial=True)
    FOLDER.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=FOLDER, prefix="disks-") as folder:
        circumstances = about(kernel, Path(folder), wanted)
        complaints = measure(kernel, Path(folder), wanted, results, serial)
    circumstances["load"] = [load, os.getloadavg()[0]]
    for name, value in circumstances.items():
        print(f"{name.replace('_', ' ')}: {value}")
    print()
    text = document(results, circumstances) | {"serial": document(serial, {})["rates"]}
    (FOLDER / "bench.json").write_text(json.dumps(text, indent=1))
    draw(python, FOLDER / "bench.json", FOLDER / "bench.svg")
    print(table(results), table(serial), sep="\n")
    found = targets(results)
    for target in found:
        print(target)
    print(f"written: {FOLDER / 'bench.json'}, {FOLDER / 'bench.svg'}", flush=True)
    if complaints:
        raise GuestError(f"the guest's kernel complained: {complaints[0]}")
    return 1 if check and any(target.verdict == "not met" for target in found) else 0


if __name__ == "__main__":
    steps.main(main)
