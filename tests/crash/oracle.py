# SPDX-License-Identifier: GPL-2.0
"""What may be found of a workload after a crash.

Only what POSIX and both ext4 and XFS guarantee is demanded:

- Names change in the order of the calls that change them, each of which is atomic (both have one
  log). So after a crash the names are those after one of the calls.
- fsync() of a file or directory makes durable its content and size, and the names up to the last
  call that changed it: created it, renamed or linked it, removed a name of it, or of a file in it.
- fdatasync() makes durable content and size, and the file's creation.
- A write with O_DSYNC does so for its pages; for the size if it has made the file longer. msync()
  does so for its pages.
- sync() makes names and sizes durable, and fsync() of the disk after it everything: on XFS sync()
  sends no flush if the log has nothing new, as after overwriting (xfs_fs_sync_fs).
  BLKFLSBUF on the disk guarantees nothing.
- A page that was not made durable since has one of the contents that it had since then, or is zero
  if it was beyond the end of the file. A size lies within those that the file has had since.
"""

import itertools
from dataclasses import dataclass, field

import workloads

PAGE = 4096
DIRECTORY = "dir"

# Steps that change names, and those that change content.
NAMING = ("create", "mkdir", "rename", "link", "unlink")
CHANGING = ("write", "append", "direct", "dsync", "fua", "msync", "truncate", "fallocate")

IDENTITIES = itertools.count(2)


@dataclass
class File:
    """What a path led to: an identity, a size in bytes, and a word for each page.

    A word of None is a page that has more than one.
    """
    identity: int
    size: int = 0
    words: tuple = ()
    kind: str = "file"

    def page(self, index):
        """Return a page's word."""
        return self.words[index] if index < len(self.words) else 0


def changed(file, step):
    """Return a file after a step that changes its content."""
    words = list(file.words)
    if step.name == "truncate":
        words = [file.page(index) for index in range(step.first)]
    else:
        first = len(words) if step.name == "append" else step.first
        words += [0] * (first + step.count - len(words))
        if step.name != "fallocate":
            words[first:first + step.count] = [step.word] * step.count
    return File(file.identity, len(words) * PAGE, tuple(words))


def parent(path):
    """Return the directory of a path."""
    return path.rpartition("/")[0] or "."


@dataclass
class State:
    """The names after a step, with their files."""
    names: dict = field(default_factory=dict)

    def after(self, step):
        """Return the state after one more step."""
        names, path = dict(self.names), step.path
        if step.name == "rename" and names.get(step.other) == names[path]:
            return self  # two names of a file: rename() does nothing
        if step.name in ("create", "mkdir"):
            kind = DIRECTORY if step.name == "mkdir" else "file"
            names[path] = File(next(IDENTITIES), kind=kind)
        elif step.name in ("rename", "link"):
            names[step.other] = names[path]
        if step.name in ("rename", "unlink"):
            del names[path]
        if step.name in CHANGING and path in names:
            old = names[path]
            new = changed(old, step)
            names = {name: new if file.identity == old.identity else file
                     for name, file in names.items()}
        return State(names)

    def shape(self):
        """Return the names with their kinds, and which lead to the same file."""
        first = {}
        for name in sorted(self.names):
            first.setdefault(self.names[name].identity, name)
        return {name: (file.kind, first[file.identity]) for name, file in self.names.items()}


class History:
    """The states of one workload; state k is that after k steps."""

    def __init__(self, steps, raw=False):
        self.steps = steps
        first = State()
        if raw:
            first.names["a"] = File(1, workloads.PART * PAGE, (0,) * workloads.PART)
        else:
            first.names["."] = File(0, kind=DIRECTORY)
            for step in workloads.before():
                first = first.after(step)
        self.states = [first]
        for step in steps:
            self.states.append(self.states[-1].after(step))

    def touched(self, number):
        """Return the identities of files and directories that a step changes by their names."""
        step, before, after = self.steps[number - 1], *self.states[number - 1:number + 1]
        if step.name not in NAMING:
            return set()
        names = {step.path, parent(step.path)}
        names |= {step.other, parent(step.other)} if step.other != "-" else set()
        return {state.names[name].identity for state in (before, after) for name in names
                if name in state.names}

    def last_touch(self, identity, until, names=NAMING):
        """Return the last step that changed a file by its names, or 0."""
        return max((number for number in range(1, until + 1)
                    if self.steps[number - 1].name in names
                    and identity in self.touched(number)), default=0)

    def durable(self, acknowledged):
        """Return the guarantees after so many steps.

        That is the state whose names are durable, and by identity those of sizes and of pages.
        """
        names, sizes, pages = 0, {}, {}
        for number in range(1, acknowledged + 1):
            step, state = self.steps[number - 1], self.states[number]
            if step.name == "sync":
                names = number
                sizes |= {file.identity: number for file in state.names.values()}
                continue
            if step == workloads.END[-1]:
                pages |= {(file.identity, page): number for file in state.names.values()
                          for page in range(len(file.words) + 8)}
                continue
            if step.name not in ("fsync", "fdatasync", "dsync", "fua", "msync"):
                continue
            file = state.names[step.path]
            created = self.last_touch(file.identity, number, ("create", "mkdir"))
            before = self.states[number - 1].names[step.path]
            if step.name in ("fsync", "fdatasync"):
                wide = range(len(file.words) + 8)
                names = max(names, self.last_touch(file.identity, number)
                            if step.name == "fsync" else created)
                sizes[file.identity] = number
            else:
                wide = range(step.first, step.first + step.count)
                names = max(names, created)
                if file.size > before.size:
                    sizes[file.identity] = number
            pages |= {(file.identity, page): number for page in wide}
        return names, sizes, pages

    def trouble(self, found, acknowledged):
        """Return what is wrong with a state found after so many steps returned; None if nothing.

        The next step may have begun.
        """
        names, sizes, pages = self.durable(acknowledged)
        last = min(acknowledged + 1, len(self.steps))
        shape, reason = found.shape(), None
        for number in range(names, last + 1):
            state = self.states[number]
            if state.shape() != shape:
                continue
            reason = next(filter(None, (
                self.wrong(found.names[name], file, range(sizes.get(file.identity, 0), last + 1),
                           lambda page, file=file: range(pages.get((file.identity, page), 0),
                                                         last + 1), name)
                for name, file in state.names.items())), None)
            if reason is None:
                return None
        expected = [self.states[number].shape() for number in range(names, last + 1)]
        return reason or f"names {shape}, expected one of {expected}"

    def wrong(self, found, file, sizes, pages, name):
        """Return what is wrong with the content of a file; None if nothing."""
        if file.kind == DIRECTORY:
            return None
        held = {number: one for number, state in enumerate(self.states)
                for one in state.names.values() if one.identity == file.identity}
        allowed = [held[number].size for number in sizes if number in held]
        if not min(allowed) <= found.size <= max(allowed):
            return f"{name}: size {found.size}, expected {min(allowed)} to {max(allowed)}"
        for page, word in enumerate(found.words):
            allowed = {held[number].page(page) for number in pages(page) if number in held}
            if word not in allowed and (word is not None or len(allowed) < 2):
                return f"{name}: page {page} is {word}, expected one of {sorted(allowed)}"
        return None
