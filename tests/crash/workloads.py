# SPDX-License-Identifier: GPL-2.0
"""All workloads of one and two operations on a few files, as CrashMonkey's ACE generates them.

An operation changes something; after it, something may be made durable. So a workload of length N
has N operations, each with or without a step that persists, and ends with what persists all.
"""

import itertools
from dataclasses import dataclass, replace

# What is there before: a has two pages, b one, d is an empty directory.
FILES = {"a": 2, "b": 1}
DIRECTORIES = ("d",)

# The size of the part of a raw disk that a workload has, in pages.
PART = 4

# The low byte of the word that fills a page has the step that wrote it, from here on; the rest the
# workload.
FIRST = 16


@dataclass(frozen=True)
class Step:
    """One call of the runner (runner.c)."""
    name: str
    path: str = "-"
    other: str = "-"
    first: int = 0
    count: int = 0
    word: int = 0

    def __str__(self):
        return f"{self.name} {self.path} {self.other} {self.first} {self.count} {self.word}"


def pages(name, path, first, count):
    """Return a step that writes pages."""
    return Step(name, path, first=first, count=count)


# Operations, and the path of what they have changed, which a step may persist then.
OPERATIONS = (
    ((Step("create", "c"),), "c"),
    ((Step("create", "c"), pages("append", "c", 0, 1)), "c"),
    ((pages("write", "a", 0, 1),), "a"),
    ((pages("write", "a", 1, 2),), "a"),
    ((pages("dsync", "a", 0, 1),), "a"),
    ((pages("fua", "a", 0, 1),), "a"),
    ((pages("fua", "a", 1, 2),), "a"),
    ((pages("append", "a", 0, 1),), "a"),
    ((pages("msync", "a", 0, 2),), "a"),
    ((Step("rename", "a", "b"),), "b"),
    ((Step("rename", "a", "c"),), "c"),
    ((Step("rename", "a", "d/a"),), "d/a"),
    ((Step("link", "a", "c"),), "c"),
    ((Step("unlink", "a"),), "b"),
    ((Step("truncate", "a", first=1),), "a"),
    ((Step("truncate", "a", first=4),), "a"),
    ((Step("fallocate", "a", first=2, count=2),), "a"),
    ((Step("mkdir", "e"),), "e"),
)
PERSISTING = ("fsync", "fdatasync")

RAW_OPERATIONS = tuple(
    ((pages(name, "a", first, count),), "a")
    for name, first, count in (("write", 0, 1), ("direct", 0, 1), ("dsync", 0, 2), ("fua", 0, 1),
                               ("fua", 1, 2), ("msync", 0, 2)))

# A path that stands for the disk.
DISK = "DISK"

# A workload's last steps, which persist all: sync() writes all to the disk, and need not flush it.
END = (Step("sync"), Step("fsync", DISK))
RAW_END = (Step("fsync", "a"),)


def elements(operations, in_directory):
    """List an operation with each of the steps that may follow it."""
    found = []
    for steps, path in operations:
        after = [(), *((Step(name, path),) for name in PERSISTING), (Step("blkflsbuf", DISK),)]
        if in_directory:
            after.append((Step("fsync", "."),))
        found += [steps + last for last in after]
    return found


def is_possible(steps):
    """Return whether each step finds its files, and creates no name that exists."""
    names = {*FILES, *DIRECTORIES, ".", DISK}
    for step in steps:
        makes = step.name in ("create", "mkdir", "link")
        target = step.path if step.name in ("create", "mkdir") else step.other
        source = None if step.name in ("create", "mkdir", "sync") else step.path
        if source and source not in names or makes and target in names:
            return False
        if step.name in ("rename", "unlink"):
            names.remove(source)
        if makes or step.name == "rename":
            names.add(target)
    return True


def sequences(length, raw=False):
    """List all workloads of a length, for a directory or for a part of a raw disk."""
    end = RAW_END if raw else END
    choices = elements(RAW_OPERATIONS if raw else OPERATIONS, not raw)
    found = [(*itertools.chain(*chosen), *end)
             for chosen in itertools.product(choices, repeat=length)]
    return [marked(steps) for steps in found if is_possible(steps)]


def marked(steps):
    """Return steps whose pages say which of them wrote them."""
    return tuple(replace(step, word=FIRST + at) if step.count and step.name != "fallocate" else step
                 for at, step in enumerate(steps))


def before():
    """Return the steps that make what is there before."""
    return (*(Step("mkdir", name) for name in DIRECTORIES),
            *itertools.chain(*((Step("create", name), Step("append", name, count=size, word=word))
                               for word, (name, size) in enumerate(FILES.items(), 1))))


def folder(number):
    """Return the directory of a workload."""
    return f"w{number}"


def placed(step, number, disk, raw):
    """Return a step as the runner executes it for a workload with a number."""
    word = step.word and (number + 1) << 8 | step.word

    def where(path):
        if path == DISK or raw:
            return f"/dev/{disk}" if path != "-" else path
        return path if path == "-" else f"{folder(number)}/{path}"
    first = step.first + (PART * number if raw else 0)
    return replace(step, word=word, first=first, path=where(step.path), other=where(step.other))


def script(workloads, disk, raw=False, base=0):
    """Return the runner's input."""
    return "".join(f"{placed(step, number, disk, raw)}\n"
                   for number, steps in enumerate(workloads, base) for step in steps)
