# SPDX-License-Identifier: GPL-2.0
"""What the host does when a guest flushes: see host_fsync.c."""

import time
from pathlib import Path

import steps

SOURCE = Path(__file__).with_name("host_fsync.c")


def build(target):
    """Compile the library that is preloaded into QEMU."""
    steps.run(["gcc", "-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o", target, SOURCE],
              steps.log_path("host-fsync"))
    return target


class Host:
    """The host under one guest. Its plan holds until the next: pass, fail, delay N, hang."""

    def __init__(self, library, folder):
        self.library = library
        self.plan_file = Path(folder) / "fsync-plan"
        self.record_file = Path(folder) / "fsync-record"
        self.record_file.touch()
        self.plan("pass")

    def wrapper(self):
        """Return the command that runs QEMU under the plan."""
        return ["env", f"LD_PRELOAD={self.library}", f"FSYNC_PLAN={self.plan_file}",
                f"FSYNC_RECORD={self.record_file}"]

    def plan(self, plan):
        """Decide what becomes of flushes from now on, also of those that hang."""
        new = self.plan_file.with_suffix(".new")
        new.write_text(plan, encoding="ascii")
        new.replace(self.plan_file)

    def count(self, word, disk=None):
        """Count the records that begin with a word, of one disk or of all."""
        inode = str(Path(disk.path).stat().st_ino) if disk else None
        records = [line.split() for line in self.record_file.read_text("ascii").splitlines()]
        return sum(record[0] == word and inode in (None, record[1]) for record in records)

    def begun(self, disk=None):
        """Count the flushes that have reached the host."""
        return self.count("begin", disk)

    def ended(self, disk=None):
        """Count the flushes that the host has answered, in whatever way."""
        return self.count("end", disk)

    def wait_begun(self, count, timeout=30):
        """Wait until so many flushes have reached the host."""
        self.wait(self.begun, count, timeout)

    def wait_ended(self, count, timeout=30):
        """Wait until so many flushes were answered."""
        self.wait(self.ended, count, timeout)

    def wait(self, counter, count, timeout):
        """Wait until a counter has reached a number."""
        limit = time.monotonic() + timeout
        while counter() < count:
            assert time.monotonic() < limit, f"{self.begun()} flushes begun, {self.ended()} ended"
            time.sleep(0.02)
