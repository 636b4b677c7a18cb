# SPDX-License-Identifier: GPL-2.0
"""Power failures under load, on a host that loses everything that no fsync guarantees.

The guest is killed at a random moment, and its disks are set back to the content that the host had
guaranteed by then (see host_journal.c). The next guest checks all that was acknowledged before the
kill, and goes on writing until it is killed.

LONG=1 kills more often. SEED=number repeats a run's decisions, though not its timing.
"""

import dataclasses
import os
import random
import subprocess
import time

import pytest
from counters import GUEST_SIDE, Counters
from host import LIMIT
from machine import MIB

import settings
from file_systems import MAKE, check

# How often the guest is killed; the debug kernel is slow.
KILLS = {"release": 50, "debian": 5, "debug": 5} if settings.flag("LONG") \
    else {"release": 3, "debian": 1, "debug": 1}

SIZES = {"raw": 64 * MIB, "ext4": 128 * MIB, "xfs": 320 * MIB}

# Delays of the host's fsync in milliseconds, so that the kill hits each of its phases.
DELAYS = (0, 0, 3, 10, 30)


@dataclasses.dataclass(frozen=True)
class Writers:
    """Some writers of one kind."""
    method: str
    disk: str
    count: int
    first: int

    def where(self, turn):
        """Return the path to which they write."""
        return "/dev/$raw" if self.disk == "raw" else f"/mnt/{self.disk}/{turn}/{self.method}"

    def numbers(self):
        """Return their numbers among all writers."""
        return range(self.first, self.first + self.count)


WRITERS = (
    Writers("dsync", "raw", 4, 0),
    Writers("fsync", "raw", 4, 4),
    Writers("buffered", "ext4", 2, 8),
    Writers("dsync", "ext4", 1, 10),
    Writers("msync", "ext4", 1, 11),
    Writers("buffered", "xfs", 2, 12),
    Writers("dsync", "xfs", 1, 14),
    Writers("msync", "xfs", 1, 15),
)

# The number of the writer of the database.
SQLITE = 16

MAKE_DATABASE = """
sqlite3 /mnt/ext4/db >/dev/null <<'SQL'
PRAGMA journal_mode=WAL;
CREATE TABLE rows (number INTEGER PRIMARY KEY, text TEXT);
SQL
"""


def text(number):
    """Return the SQL expression of a row's text, which only an intact page has."""
    return f"printf('%0300d', {number} * 7919)"


def write_database(first):
    """Return the command that adds rows, and counts each after the end of its transaction."""
    row = f"INSERT OR REPLACE INTO rows VALUES (&, {text('&')}); SELECT &;"
    # SQLite's shell flushes its output before it reads its next line.
    return f"""
        (echo '.output /dev/null'
         echo 'PRAGMA synchronous=FULL; PRAGMA wal_autocheckpoint=50;'
         echo '.output'
         seq {first} 1000000 | sed "s/.*/{row}/"
        ) | sqlite3 -bail /mnt/ext4/db | records count {SQLITE} &
    """


def check_database(last):
    """Return the command that fails unless all rows up to the last one are intact."""
    return f"""
        found=$(echo $(sqlite3 /mnt/ext4/db "
            PRAGMA integrity_check;
            SELECT count(*) FROM rows WHERE number <= {last} AND text = {text('number')};
        "))
        echo "{last} transactions acknowledged, found: $found"
        [ "$found" = "ok {last}" ]
    """


class Crashes:
    """A guest's disks across several crashes."""

    def __init__(self, boot, folder, records, seed):
        self.boot, self.records = boot, records
        self.counters = Counters(folder)
        self.random = random.Random(seed)
        self.turn = 0

    def machine(self):
        """Return the next guest, not started yet."""
        machine = self.boot(sizes=SIZES.values(), args=self.counters.args,
                            files={"/bin/records": self.records})
        if not self.turn:
            for name, disk in zip(SIZES, machine.pmem, strict=True):
                disk.path.unlink(missing_ok=True)
                disk.create()
                if name in MAKE:
                    subprocess.run([*MAKE[name].split(), disk.path], check=True)
        machine.host.keep_journal(machine.pmem)
        return machine

    @staticmethod
    def run(machine, script):
        """Run a script with the disks' names and the counters in its environment."""
        return machine.run(f". /tmp/names\nset -e\n{script}")

    def losses(self, machine):
        """Prepare the disks for writers; return reports of acknowledged data that is lost."""
        disks = map(machine.disk, machine.devices_found())
        names = "\n".join(f"{name}={disk}" for name, disk in zip(SIZES, disks, strict=True))
        machine.sh(f"cat >/tmp/names <<'END'\n{names}\n{GUEST_SIDE}\nEND")
        # After the log's replay there must be nothing to repair.
        results = [self.run(machine, f"""
            mkdir -p /mnt/{fs}
            mount /dev/${fs} /mnt/{fs}
            umount /mnt/{fs}
            {check(fs, f'${fs}')}
            mount {self.random.choice(("", "-o dax"))} /dev/${fs} /mnt/{fs}
        """) for fs in MAKE]
        if not self.turn:
            results.append(self.run(machine, MAKE_DATABASE))
        else:
            results += [self.run(machine, f"records check {writers.where(self.turn)} "
                                          f"{writers.count} {writers.first}")
                        for writers in WRITERS]
            results.append(self.run(machine, check_database(self.counters.done(SQLITE))))
        return [result.output for result in results if result.status]

    def crash(self, machine):
        """Start all writers, and kill the guest at a random moment."""
        machine.sh(f"rm -rf /mnt/*/{self.turn}")
        self.turn += 1
        machine.host.plan(f"delay {self.random.choice(DELAYS)}")
        goals = {SQLITE: self.counters.done(SQLITE) + 1}
        folders, commands = [], [write_database(goals[SQLITE])]
        for writers in WRITERS:
            goals |= {number: self.counters.done(number) + 1 for number in writers.numbers()}
            where = writers.where(self.turn)
            folders += [where] if writers.disk != "raw" else []
            commands.append(f"records write {writers.method} {where} {writers.count} "
                            f"{writers.first} &")
        machine.sh(f"mkdir -p {' '.join(folders)}; sync")
        machine.later("load", "\n".join([". /tmp/names", *commands, "wait"]))
        self.counters.wait(goals, timeout=LIMIT * machine.slowness)
        time.sleep(self.random.uniform(0, 2))
        # Writers print only errors.
        assert machine.sh("cat /tmp/load.out") == ""
        machine.check()
        machine.kill()
        machine.host.lose_power(machine.pmem)


@pytest.mark.on_debug
@pytest.mark.parametrize("seed", [int(os.environ["SEED"])])
def test_crash(kernel, boot, folder, records, seed):
    """All data that was acknowledged before a power failure is intact after it, repeatedly.

    Records by O_DSYNC and by fsync on a raw disk; files by fsync, O_DSYNC and msync in ext4 and
    XFS, with and without DAX; transactions of SQLite in WAL mode.
    """
    crashes = Crashes(boot, folder, records, seed)
    for _ in range(KILLS[kernel.name]):
        with crashes.machine() as machine:
            assert crashes.losses(machine) == []
            crashes.crash(machine)
    with crashes.machine() as machine:
        assert crashes.losses(machine) == []


@pytest.mark.only_debug
@pytest.mark.parametrize("seed", [int(os.environ["SEED"])])
def test_early_acknowledgement(boot, folder, records, seed):
    """The test detects a driver that acknowledges a caller by the flush already in flight.

    A switch in debugfs puts this mistake into the driver.
    """
    for turn in range(20):
        crashes = Crashes(boot, folder, records, seed + turn)
        with crashes.machine() as machine:
            assert crashes.losses(machine) == []
            machine.sh("""
                for fault in /sys/kernel/debug/virtio_pmem_rust-*/early_ack; do
                    echo 1 >$fault
                done
            """)
            crashes.crash(machine)
        with crashes.machine() as machine:
            if any("acknowledged" in text for text in crashes.losses(machine)):
                return
    pytest.fail("no acknowledged data was lost")
