# SPDX-License-Identifier: GPL-2.0
"""Run workloads in a guest, and check each image that a power failure could have left."""

import itertools
import mmap
import shutil
import struct
from dataclasses import dataclass

import host
import images
import oracle
import workloads
from counters import GUEST_SIDE

# By how many milliseconds a flush takes longer, so that the guest goes on if it does not wait.
DELAY = 5


@dataclass
class Run:
    """Workloads that a guest has run on a target, and what its host has recorded."""
    target: object
    workloads: list
    disks: list
    bases: list
    flushes: list
    done: int

    def __post_init__(self):
        self.starts = [0, *itertools.accumulate(map(len, self.workloads))]
        raw = self.target.fs is None
        self.histories = [oracle.History(steps, raw) for steps in self.workloads]

    def moments(self):
        """Yield each moment, and by number the workloads that ran then, with their steps done."""
        for moment in images.moments(self.bases, self.flushes, self.done):
            running = {}
            for number, (start, end) in enumerate(itertools.pairwise(self.starts)):
                if moment.first <= end and start <= moment.last:
                    running[number] = min(moment.last, end) - start
            yield moment, running


def record(boot, target, steps, busy=False, files=None):
    """Run workloads in a guest and kill it."""
    raw = target.fs is None
    with boot("record", target.sizes, files) as machine:
        disk = target.make(machine)
        if not raw:
            before = "".join(
                f"{workloads.Step('mkdir', workloads.folder(number))}\n"
                + workloads.script([workloads.before()], disk, base=number)
                for number in range(len(steps)))
            run(machine, disk, before + f"{workloads.Step('sync')}\n")
        machine.host.keep_journal(machine.pmem)
        machine.host.plan(f"delay {DELAY}")
        run(machine, disk, workloads.script(steps, disk, raw), busy)
        machine.host.plan("pass")
        machine.check()
        machine.kill()
    done = struct.unpack("=Q", machine.host.counters.read_bytes()[:8])[0]
    assert done == sum(map(len, steps))
    bases = [machine.host.base(disk).read_bytes() for disk in machine.pmem]
    flushes = images.commits([machine.host.journal(disk) for disk in machine.pmem])
    shutil.rmtree(machine.host.journals)  # the next guest shall begin none
    return Run(target, steps, machine.pmem, bases, flushes, done)


def run(machine, disk, script, busy=False):
    """Have the guest's runner execute steps."""
    machine.sh(f"{GUEST_SIDE}\nmkdir -p /mnt\ncd /mnt\n"
               f"runner run /dev/{disk} {'busy' if busy else ''} <<'STEPS'\n{script}STEPS")


def parse(text, numbers):
    """Return by number what the runner has found of workloads."""
    found = {number: oracle.State() for number in numbers}
    for line in text.splitlines():
        path, identity, kind, size, *words = line.split()
        top, _, name = path.partition("/")
        number = int(top[1:])
        found[number].names[name or "."] = oracle.File(
            int(identity), int(size), tuple(own(word, number) for word in words), kind)
    return found


def own(word, number):
    """Return a page's word without the workload's part; None for a page with several words."""
    if word == "mixed":
        return None
    return int(word) & 0xff if int(word) >> 8 == number + 1 else int(word)


def raw_parse(image, numbers):
    """Return the same for parts of a raw disk."""
    found = {}
    for number in numbers:
        words = []
        for page in range(number * workloads.PART, (number + 1) * workloads.PART):
            content = image[page * host.PAGE:(page + 1) * host.PAGE]
            (word,) = struct.unpack("=Q", content[:8])
            words.append(own("mixed" if content != content[:8] * (host.PAGE // 8) else word,
                             number))
        found[number] = oracle.State(
            {"a": oracle.File(1, len(words) * host.PAGE, tuple(words))})
    return found


class Checker:
    """A guest that mounts one image after the other; the host replaces what is on its disks."""

    def __init__(self, machine, target, disks):
        self.machine, self.target = machine, target
        self.disk = target.assemble(machine)
        machine.sh(target.detach())
        self.memory = []
        for disk in disks:
            with open(disk.path, "r+b") as file:
                self.memory.append(mmap.mmap(file.fileno(), 0))

    def found(self, contents, numbers):
        """Return what is found in an image, by workload; a failure as text."""
        for memory, content in zip(self.memory, contents, strict=True):
            memory[:] = content
        look = self.target.look(self.disk, [workloads.folder(number) for number in numbers])
        result = self.machine.run(f"(set -e\n{look})\nstatus=$?\n{self.target.detach()}\n"
                                  "exit $status")
        return result.output or "no output" if result.status else parse(result.output, numbers)


def trouble(run_, find, rng, share):
    """Check the images of all moments, and of a share of them with random dirty pages, too.

    Return a list of what is wrong, and the number of images.
    """
    found, count = [], 0
    for moment, running in run_.moments():
        if not running or rng.random() >= run_.target.share:
            continue
        choices = [()]
        if moment.dirty and rng.random() < share:
            choices.append([page for page in moment.dirty if rng.random() < 0.5])
        for chosen in choices:
            count += 1
            states = find(moment.written(chosen) if chosen else moment.images, list(running))
            for number, acknowledged in running.items():
                wrong = states if isinstance(states, str) else \
                    run_.histories[number].trouble(states[number], acknowledged)
                if wrong:
                    names = ", ".join(map(str, run_.workloads[number]))
                    found.append((number, f"workload {number} ({names}) after {acknowledged} "
                                          f"steps, {len(chosen)} dirty pages: {wrong}"))
    return found, count
