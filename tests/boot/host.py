# SPDX-License-Identifier: GPL-2.0
"""A guest's host: it delays, fails or journals flushes (host_fsync.c, host_journal.c)."""

import functools
import shutil
import struct
import subprocess
import time
from pathlib import Path

import steps

# Seconds after which a wait fails. It measures nothing: a busy machine may need minutes where an
# idle one needs a second.
LIMIT = 300

SOURCES = [Path(__file__).with_name(name) for name in ("host_fsync.c", "host_journal.c")]

PAGE = 4096
COMMIT = 2 ** 64 - 1


def build(target):
    """Compile the library that is preloaded into QEMU; return its path."""
    steps.run(["gcc", "-shared", "-fPIC", "-O1", "-pthread", "-Wall", "-Werror", "-o", target,
               *SOURCES], steps.log_path("host-fsync"))
    return target


def records(path):
    """Yield each record of a journal: its number, the content's position, the content."""
    with open(path, "rb") as journal:
        while len(head := journal.read(8)) == 8:
            (number,) = struct.unpack("=Q", head)
            size = 24 if number == COMMIT else PAGE
            start = journal.tell()
            content = journal.read(size)
            if len(content) < size:
                return
            yield number, start, content


def copy(source, target):
    """Copy a file; holes stay holes."""
    subprocess.run(["cp", "--sparse=always", source, target], check=True)


def commit(content):
    """Return what a COMMIT has: the journal's guaranteed length, its order, and the steps done."""
    return struct.unpack("=3Q", content)


def replay(journal, image):
    """Write to an image the pages that a journal guarantees."""
    guaranteed = max((commit(content)[0]
                      for number, _, content in records(journal) if number == COMMIT), default=0)
    with open(image, "r+b") as file:
        for number, start, content in records(journal):
            if number != COMMIT and start + PAGE <= guaranteed:
                file.seek(number * PAGE)
                file.write(content)


class Host:
    """The host under one guest. Its plan holds until the next: pass, fail, delay N, hang,
    hang N, which holds all flushes except the first N of this guest, or lose N, which holds
    only its flush number N."""

    def __init__(self, library, folder):
        self.library = library
        self.plan_file = Path(folder) / "fsync-plan"
        self.record_file = Path(folder) / "fsync-record"
        self.record_file.touch()
        self.slowness = 1  # the factor of timeouts for a slow guest
        self.journals = Path(folder) / "journals"
        self.counters = Path(folder) / "counters"  # of a guest that counts: see counters.py
        self.plan("pass")

    def wrapper(self):
        """Return the command that runs QEMU under the plan."""
        return ["env", f"LD_PRELOAD={self.library}", f"FSYNC_PLAN={self.plan_file}",
                f"FSYNC_RECORD={self.record_file}", f"FSYNC_JOURNAL={self.journals}",
                f"FSYNC_COUNTERS={self.counters}"]

    def plan(self, plan, disk=None):
        """Set the plan for flushes from now on, also for those that hang.

        With a disk the plan is for its flushes alone, and those of others pass.
        """
        if disk:
            plan = f"{plan}@{Path(disk.path).stat().st_ino}"
        new = self.plan_file.with_suffix(".new")
        new.write_text(plan, encoding="ascii")
        new.replace(self.plan_file)

    def keep_journal(self, disks):
        """Before the guest's start, begin to record the guaranteed content of these disks."""
        shutil.rmtree(self.journals, ignore_errors=True)
        self.journals.mkdir()
        for disk in disks:
            disk.create()
            copy(disk.path, self.base(disk))

    def journal(self, disk):
        """Return the path of a disk's journal."""
        return self.journals / str(Path(disk.path).stat().st_ino)

    def base(self, disk):
        """Return the path of a disk's content when its journal began."""
        return self.journal(disk).with_suffix(".base")

    def lose_power(self, disks):
        """Remove from these disks all that is not guaranteed. The guest was killed before."""
        for disk in disks:
            journal = self.journal(disk)
            if journal.exists():
                replay(journal, self.base(disk))
            copy(self.base(disk), disk.path)

    def count(self, word, disk=None):
        """Return how many records of one disk, or of all, begin with a word."""
        inode = str(Path(disk.path).stat().st_ino) if disk else None
        records = [line.split() for line in self.record_file.read_text("ascii").splitlines()]
        return sum(record[0] == word and inode in (None, record[1]) for record in records)

    def results(self):
        """List the results of the answered flushes: 0, or -1 if it failed."""
        records = [line.split() for line in self.record_file.read_text("ascii").splitlines()]
        return [int(record[2]) for record in records if record[0] == "end"]

    def begun(self, disk=None):
        """Return how many flushes have reached the host."""
        return self.count("begin", disk)

    def ended(self, disk=None):
        """Return how many flushes the host has answered, successfully or not."""
        return self.count("end", disk)

    def hang(self):
        """Hold all flushes from now on; wait until one is held. The guest goes on flushing.

        A driver that sends one flush at a time gets no answer from then on.
        """
        goal = self.count("held") + 1
        self.plan("hang")
        self.wait(functools.partial(self.count, "held"), goal, LIMIT)

    def wait_begun(self, count, timeout=LIMIT):
        """Wait until this number of flushes has reached the host."""
        self.wait(self.begun, count, timeout)

    def wait_ended(self, count, timeout=LIMIT):
        """Wait until this number of flushes was answered."""
        self.wait(self.ended, count, timeout)

    def wait(self, counter, count, timeout):
        """Wait until a counter has reached a number."""
        limit = time.monotonic() + timeout * self.slowness
        while counter() < count:
            assert time.monotonic() < limit, (f"{counter()} of {count} expected flushes; "
                                              f"{self.begun()} begun, {self.ended()} ended")
            time.sleep(0.02)
