# SPDX-License-Identifier: GPL-2.0
"""Run cases of xfstests on both drivers, and report where the one in Rust is worse.

Guests run a few cases each. A case that does not end takes its guest with it; the next guest goes
on with the next case. With GROUP= verdicts are kept, and a later run does the rest.
"""

import concurrent.futures
import dataclasses
import fnmatch
import itertools
import multiprocessing
import os
import re
import shlex
import tempfile
import time
import xml.etree.ElementTree as tree
from pathlib import Path

import accel
import kernel as kernels
import long_run
import settings
import steps
import xfstests_root
from guest import Disk, Guest, GuestError, boots

# Type, options of mkfs and of mount.
SECTIONS = {
    "ext4": ("ext4", "-b 4096", ""),
    "xfs": ("xfs", "", ""),
    "ext4-dax": ("ext4", "-b 4096", "-o dax=always"),
    "xfs-dax": ("xfs", "", "-o dax=always"),
}
DRIVERS = ("c", "rust")

LISTS = settings.TESTS / "xfstests"
SIZES = {"test": 1 << 30, "scratch": 2 << 30, "log": 1 << 30}
LIMIT = 900  # seconds for a case
SHARE = 8  # cases for a guest
TRIES = 3  # of a case that a fault of QEMU's emulation has hit

# From the best to the worst. "no end": the time was over, or the kernel has panicked.
VERDICTS = ("pass", "not run", "fail", "no end")

SETUP = """
set -e
hostname guest
mkdir /root/suite
mount /dev/vda /root/suite
cd /root/suite
for part in dev proc sys; do
    mount -o rbind /$part $part
done
mount -t tmpfs tmp tmp
mount -t tmpfs run run
mount -o bind /lib/modules lib/modules
mount -o bind /share results
# udev's link, which a shell's <(COMMAND) needs.
ln -s /proc/self/fd dev/fd
mkdir -p usr/local/sbin
cat >usr/local/sbin/dmsetup <<'END'
#!/bin/sh
# With the links that udev would make: XFS has directories in sysfs by their target's name.
/usr/sbin/dmsetup "$@" || exit
/usr/sbin/dmsetup info -c --noheadings --separator ' ' -o name,blkdevname |
    while read -r name disk; do
        [ ! -b "/dev/$disk" ] || ln -sfn "../$disk" "/dev/mapper/$name"
    done
find /dev/mapper -xtype l -delete
END
chmod +x usr/local/sbin/dmsetup
chroot . mkfs.{fs} -q {make} /dev/pmem0
"""

# The suite runs no dm-flakey on a disk that supports DAX, so one that passes all through hides it.
HIDE_DAX = """
modprobe dm-flakey
chroot . /usr/local/sbin/dmsetup create scratch --table \\
    "0 $(blockdev --getsz /dev/pmem1) flakey /dev/pmem1 0 86400 0"
"""

RUN = "chroot /root/suite env -i {variables} sh -c 'cd /xfstests && exec ./check {case}'"


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of a case: one of VERDICTS, why, and after how many seconds."""
    verdict: str
    reason: str = ""
    seconds: int = 0


def entries(path):
    """Return {name: text} of a file's lines of the form NAME: TEXT."""
    if not path.exists():
        return {}
    lines = [line for line in path.read_text(encoding="utf-8").splitlines()
             if line and not line.startswith("#")]
    found = dict(line.split(": ", 1) for line in lines if ": " in line)
    if len(found) != len(lines):
        raise steps.Trouble(f"{path}: each line has the form NAME: REASON, and a name once")
    return found


def split(pair):
    """Return the section and the case of SECTION:CASE."""
    section, _, case = pair.rpartition(":")
    return section, case


def names(pair):
    """Return the names of a pair of section and case in ONLY=."""
    return pair[1], ":".join(pair)


def fits(section, case):
    """Return whether a case is for a section's file system."""
    return case.split("/")[0] in ("generic", SECTIONS[section][0])


def choose(groups, listed, expunged, group="", only=""):
    """List the pairs of section and case that run.

    groups    {case: its groups} of the whole suite
    listed    pairs that run by default
    expunged  pairs that run only if they are named in full
    group     run all cases of this group instead
    only      patterns for cases or SECTION:CASE; a full name needs not be on the list
    """
    pairs = [(section, case) for section in SECTIONS for case in groups if fits(section, case)]
    chosen = [pair for pair in pairs if group in groups[pair[1]].split()] if group else listed
    chosen = [pair for pair in chosen if pair not in expunged]
    if group and not chosen:
        raise settings.BadSetting(f"GROUP={group}: xfstests has no such group")
    if not only:
        return chosen
    found = []
    for word in only.split():
        matches = [pair for pair in pairs if word in names(pair)] or \
            [pair for pair in chosen if fnmatch.filter(names(pair), word)]
        if not matches:
            raise settings.BadSetting(f"ONLY={word}: no case of the list matches, nor is it the "
                                      "name of a case, like generic/321 or xfs-dax:generic/321")
        found += [pair for pair in matches if pair not in found]
    return found


def read(text):
    """Return the outcome in the output of the suite's check."""
    skipped = re.search(r"\[not run\] (.*)", text)
    failed = re.search(r"^Failures: ", text, re.M)
    if skipped:
        return Outcome("not run", skipped[1].strip())
    if re.search(r"^Passed all 1 tests", text, re.M) and not failed:
        return Outcome("pass")
    lines = re.findall(r"^(?:\w+/\d+ +.*|_check_.*|    \+(?!\+).*)$", text, re.M)
    shown = lines if failed else text.strip().splitlines()[-3:]
    return Outcome("fail", "; ".join(" ".join(line.split()) for line in shown)[:300])


def worse(rust, c):
    """Return whether the driver in Rust has the worse verdict."""
    return VERDICTS.index(rust.verdict) > VERDICTS.index(c.verdict)


def variables(section):
    """Return the suite's settings for a section, as words of a shell."""
    fs, make, mount = SECTIONS[section]
    values = {
        "PATH": "/usr/local/sbin:/usr/sbin:/usr/bin", "HOME": "/root", "LC_ALL": "C", "FSTYP": fs,
        "TEST_DEV": "/dev/pmem0", "TEST_DIR": "/mnt/test", "TEST_FS_MOUNT_OPTS": mount,
        "SCRATCH_DEV": "/dev/pmem1" if mount else "/dev/mapper/scratch",
        "SCRATCH_MNT": "/mnt/scratch", "LOGWRITES_DEV": "/dev/vdb",
        "MKFS_OPTIONS": make, "MOUNT_OPTIONS": mount, "RESULT_BASE": "/results",
        # Cases of a length of their own are short.
        "SOAK_DURATION": "10s", "LOAD_FACTOR": "1", "TIME_FACTOR": "1", "DIFF_LENGTH": "60",
    }
    return " ".join(f"{name}={shlex.quote(value)}" for name, value in values.items())


@dataclasses.dataclass(frozen=True)
class Work:
    """Cases of a section on one driver."""
    section: str
    cases: tuple
    driver: str
    limit: int

    def log(self, case):
        """Return the name of a case's logs; a guest has that of its first case."""
        return f"xfstests-{self.section}-{self.driver}-{case.replace('/', '-')}"


def guest(work, case, kernel, root, folder):
    """Return a guest with two new disks of the driver's, which begins with a case."""
    results = settings.out("xfstests") / f"results/{work.section}-{work.driver}"
    results.mkdir(parents=True, exist_ok=True)
    return Guest(kernel, name=work.log(case), driver=work.driver, share=results,
                 pmem=[Disk(folder / name, SIZES[name]) for name in ("test", "scratch")],
                 blk=[Disk(root / "root.ext4", snapshot=True), Disk(folder / "log", SIZES["log"])],
                 memory=settings.size("MEM"), smp=settings.number("SMP"),
                 timeout=work.limit * (len(work.cases) + 1))


def run_case(machine, work, case):
    """Run a case in a guest; return its outcome."""
    start = time.monotonic()
    fs, make, mount = SECTIONS[work.section]
    if "/root/suite" not in machine.run("cat /proc/mounts").output:
        result = machine.run(SETUP.format(fs=fs, make=make) + ("" if mount else HIDE_DAX))
        if result.status:
            raise steps.Trouble(f"the suite's root cannot be set up: {result.output}")
    words = RUN.format(variables=variables(work.section), case=case)
    text = machine.run(words, work.limit).output
    steps.log_path(work.log(case)).write_text(text, encoding="utf-8")
    return dataclasses.replace(read(text), seconds=round(time.monotonic() - start))


def run(work, kernel, root):
    """Run cases, in as many guests as it needs; return {case: outcome}."""
    outcomes, left, tries = {}, list(work.cases), 1
    while left:
        case, start = left[0], time.monotonic()
        with tempfile.TemporaryDirectory(dir=settings.BUILD, prefix="xfstests-") as folder:
            try:
                with guest(work, case, kernel, root, Path(folder)) as machine:
                    while left:
                        case, start = left[0], time.monotonic()
                        outcomes[case] = one = run_case(machine, work, case)
                        steps.say(f"{work.section} {case}: {work.driver}: {one.verdict}, "
                                  f"{one.seconds} s {one.reason}")
                        left.pop(0)
                        tries = 1
                continue
            except GuestError as error:
                if "a fault of QEMU's emulation" in str(error) and tries < TRIES:
                    tries += 1
                    continue
                reason = str(error).split("\n", maxsplit=1)[0]
                outcomes[case] = Outcome("no end", reason, round(time.monotonic() - start))
                steps.say(f"{work.section} {case}: {work.driver}: {error}")
        left.pop(0)
        tries = 1
    return outcomes


def cell(text):
    """Return a text for a cell of a Markdown table."""
    return text.replace("|", "\\|")


def on_both(outcomes):
    """Return the outcomes of the pairs that have run on both drivers."""
    return {pair: both for pair, both in outcomes.items() if len(both) == len(DRIVERS)}


def report(outcomes, expunged):
    """Return the report as Markdown; outcomes are {(section, case): {driver: outcome}}."""
    whole = on_both(outcomes)
    differ = [pair for pair, both in whole.items() if both["c"].verdict != both["rust"].verdict]
    bad = [pair for pair in differ if worse(whole[pair]["rust"], whole[pair]["c"])]
    lines = ["# xfstests on both drivers", "",
             f"{len(whole)} cases, {len(differ)} with different verdicts, {len(bad)} worse on "
             f"Rust. {len(expunged)} are expunged (`tests/xfstests/`).", ""]
    same = [pair for pair in whole if pair not in differ]
    for title, pairs in ("Different", differ), ("Same", same):
        lines += [f"## {title}", "", "| section | case | C | Rust | seconds | reason |",
                  "| --- | --- | --- | --- | --- | --- |"]
        for pair in pairs:
            c, rust = whole[pair]["c"], whole[pair]["rust"]
            mark = "**" if pair in bad else ""
            lines.append(f"| {pair[0]} | {pair[1]} | {c.verdict} | {mark}{rust.verdict}{mark} | "
                         f"{c.seconds}, {rust.seconds} | {cell(rust.reason or c.reason)} |")
        lines.append("")
    return "\n".join(lines)


def junit(outcomes):
    """Return the report for machines: a case has failed if it is worse on Rust."""
    whole = on_both(outcomes)
    suite = tree.Element("testsuite", name="xfstests", tests=str(len(whole)))
    for (section, case), both in whole.items():
        c, rust = both["c"], both["rust"]
        element = tree.SubElement(suite, "testcase", classname=section, name=case,
                                  time=str(rust.seconds))
        if worse(rust, c):
            tree.SubElement(element, "failure", message=f"C: {c.verdict}, Rust: {rust.verdict}: "
                            f"{rust.reason}")
        elif rust.verdict != "pass":
            tree.SubElement(element, "skipped", message=f"both: {rust.verdict}: {rust.reason}"
                            if rust.verdict == c.verdict else f"C: {c.verdict}: {c.reason}")
    return tree.tostring(suite, encoding="unicode")


class Verdicts:
    """The outcomes of pairs of section and case on both drivers; they outlive the run if KEEP."""

    def __init__(self, pairs, expunged, inputs, keep):
        self.expunged, self.inputs, self.keep = expunged, inputs, keep
        self.out = settings.out("xfstests")
        self.out.mkdir(parents=True, exist_ok=True)
        self.results = long_run.Results(self.out / "verdicts")
        self.outcomes = {pair: {} for pair in pairs}
        for pair, both in self.outcomes.items() if keep else ():
            for driver in DRIVERS:
                kept = self.results.get(self.key(*pair, driver))
                if kept:
                    both[driver] = Outcome(*kept)

    def key(self, section, case, driver):
        """Return the key of an outcome: all that it depends on."""
        return long_run.digest(self.inputs, variables(section), section, case, driver)

    def left(self, limit):
        """Return the work for guests, the two drivers' next to each other."""
        found = []
        for section in SECTIONS:
            shares = []
            for driver in DRIVERS:
                cases = [case for (one, case), both in self.outcomes.items()
                         if one == section and driver not in both]
                shares.append([Work(section, tuple(cases[first:first + SHARE]), driver, limit)
                               for first in range(0, len(cases), SHARE)])
            found += [work for both in itertools.zip_longest(*shares) for work in both if work]
        return found

    def add(self, work, outcomes):
        """Add the outcomes of a guest's work."""
        for case, outcome in outcomes.items():
            self.outcomes[work.section, case][work.driver] = outcome
            if self.keep:
                self.results.put(self.key(work.section, case, work.driver),
                                 *dataclasses.astuple(outcome))
        self.write()

    def write(self):
        """Write the reports."""
        for name, text in (("report.md", report(self.outcomes, self.expunged)),
                           ("junit.xml", junit(self.outcomes))):
            (self.out / name).write_text(text, encoding="utf-8")

    def count(self):
        """Return on how many pairs the driver in Rust passes, and on how many it is worse."""
        whole = on_both(self.outcomes).values()
        bad = [both for both in whole if worse(both["rust"], both["c"])]
        good = [both for both in whole if both["rust"].verdict == "pass"]
        steps.say(f"{len(whole) - len(good) - len(bad)} cases pass with neither driver, "
                  f"{len(self.outcomes) - len(whole)} are left\nreport: {self.out / 'report.md'}")
        return len(good), len(bad)


def in_time(work, end, kernel, root):
    """Run cases, unless the time is over."""
    return run(work, kernel, root) if time.monotonic() < end else {}


def compare(verdicts, kernel, root):
    """Run what is left, on both drivers."""
    verdicts.write()  # all may be kept ones
    accel.choose(kernel, boots)  # once, not in each process
    workers = max(os.cpu_count() // settings.number("SMP"), 1)
    with concurrent.futures.ProcessPoolExecutor(workers) as pool:
        end = long_run.deadline()
        todo = {pool.submit(in_time, work, end, kernel, root): work
                for work in verdicts.left(settings.number("TIMEOUT") or LIMIT)}
        try:
            for future in concurrent.futures.as_completed(todo):
                verdicts.add(todo[future], future.result())
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for child in multiprocessing.active_children():
                child.terminate()  # it ends its guest
            raise


def compare_selected():
    """Run what the variables of make select; return how many passed, and how many are worse."""
    root = xfstests_root.ready()
    text = (root / "groups").read_text(encoding="utf-8")
    groups = {case: rest for case, _, rest in (line.partition(" ") for line in text.splitlines())}
    expunged = {(section, case): reason for section in SECTIONS
                for case, reason in entries(LISTS / f"expunge.{section}").items()}
    listed = [split(name) for name in entries(LISTS / "list")]
    group = settings.get("GROUP")
    pairs = choose(groups, listed, expunged, group, settings.get("ONLY"))
    kernel = kernels.ready(settings.choice("KERNEL"))
    # The drivers are modules, in the initramfs.
    inputs = long_run.digest(kernel.image.read_bytes(), kernel.initramfs.read_bytes(),
                             xfstests_root.key(xfstests_root.given()))
    verdicts = Verdicts(long_run.sample(pairs), expunged, inputs, bool(group))
    with steps.step(f"xfstests, {len(verdicts.outcomes)} cases on both drivers"):
        compare(verdicts, kernel, root)
    return verdicts.count()


def optional():
    """Run the list if the suite is given, as a part of all tests."""
    if not settings.get("XFSTESTS"):
        steps.say(f"xfstests: skipped: {xfstests_root.REMEDY}")
        return 0, 0
    return compare_selected()


def main():
    """Report by exit status."""
    good, bad = compare_selected()
    print(f"xfstests: {good} passed, {bad} worse than with the driver in C", flush=True)
    return 1 if bad or not good else 0


if __name__ == "__main__":
    steps.main(main)
