# SPDX-License-Identifier: GPL-2.0
"""The workloads of the crash tests, and what may be found of them (tests/crash)."""

import struct
import sys
from types import SimpleNamespace

import pytest

import settings

sys.path += [str(settings.TESTS / "boot"), str(settings.TESTS / "crash")]

# pylint: disable=wrong-import-position
import host  # noqa: E402
import images  # noqa: E402
from oracle import File, History, State  # noqa: E402
from workloads import END, FIRST, RAW_END, Step, marked, sequences  # noqa: E402

ALL = [(steps, raw) for raw in (False, True) for length in (1, 2)
       for steps in sequences(length, raw)[::length ** 3]]


def history(*steps):
    """Return the history of a workload."""
    return History(marked(steps))


def write(name, first=0, count=1):
    """Return a step that writes pages of a."""
    return Step(name, "a", first=first, count=count)


def test_sequences():
    """Workloads are distinct, each step finds its files, and the end makes all durable."""
    for raw, counts in (False, (90, 6300)), (True, (24, 576)):
        for length, count in enumerate(counts, 1):
            found = sequences(length, raw)
            assert len(found) == len(set(found)) == count
            end = RAW_END if raw else END
            assert {steps[-len(end):] for steps in found} == {end}


def test_prefix_is_allowed():
    """What each step leaves is allowed when it has returned, and while it runs."""
    for steps, raw in ALL:
        past = History(steps, raw)
        for number, state in enumerate(past.states):
            assert past.trouble(state, number) is None
            if number:
                assert past.trouble(state, number - 1) is None


def test_loss_is_found():
    """The state before a workload is not allowed after it."""
    for steps, raw in ALL:
        past = History(steps, raw)
        if past.states[0] != past.states[-1]:
            assert past.trouble(past.states[0], len(steps))


@pytest.mark.parametrize("steps, durable", [
    ((write("write"), Step("fsync", "a")), True),
    ((write("write"), Step("fsync", "b")), False),
    ((write("write"), Step("fdatasync", "a")), True),
    ((write("dsync"),), True),
    ((write("fua"),), True),
    ((write("msync"),), True),
    ((write("write"), Step("sync")), False),
    ((write("write"), *END), True),
    ((write("append"), Step("sync")), True),
    ((Step("rename", "a", "b"), Step("sync")), True),
    ((write("write"), Step("blkflsbuf", "DISK")), False),
    ((write("write"), Step("fdatasync", "b")), False),
    ((Step("rename", "a", "b"), Step("fsync", "b")), True),
    ((Step("rename", "a", "b"), Step("fdatasync", "b")), False),
    ((Step("rename", "a", "d/a"), Step("fsync", "d")), True),
    ((Step("rename", "a", "c"), Step("fsync", "b")), False),
    ((Step("create", "c"), Step("unlink", "a"), Step("fsync", "b")), False),
    ((Step("create", "c"), Step("fdatasync", "c")), True),
    ((Step("unlink", "a"), Step("create", "c"), Step("fsync", "c")), True),
    ((Step("truncate", "a", first=1), Step("fdatasync", "a")), True),
    ((write("fua", 1, 2),), True),
], ids=lambda value: " ".join(step.name for step in value) if isinstance(value, tuple) else None)
def test_durable(steps, durable):
    """What the first step has changed may be lost, or not."""
    past = history(*steps)
    assert bool(past.trouble(past.states[0], len(steps))) == durable


def test_dsync_covers_its_pages():
    """A write with O_DSYNC makes no other page durable."""
    past = history(write("write"), write("dsync", 1))
    names = past.states[0].names

    def found(*words):
        return State({**names, "a": File(names["a"].identity, 8192, words)})
    assert past.trouble(found(1, FIRST + 1), 2) is None
    assert past.trouble(found(FIRST, 1), 2)


def test_rename_is_atomic():
    """A file that is renamed to another's name is under one of the names."""
    past = history(Step("rename", "a", "b"), Step("sync"))
    lost = dict(past.states[0].names)
    del lost["b"]
    assert past.trouble(State(lost), 0)
    both = {**past.states[0].names, "b": past.states[0].names["a"]}
    assert past.trouble(State(both), 0)


def test_renaming_to_the_same_file_does_nothing():
    past = history(Step("link", "a", "c"), Step("rename", "a", "c"))
    assert past.states[2] == past.states[1]


def test_content():
    """A page has one of its contents; a size lies within those of the file."""
    past = history(write("append"), Step("sync"))
    before = past.states[0].names
    for size, words, right in (
            (8192, (1, 1), True), (12288, (1, 1, FIRST), True), (12288, (1, 1, 0), True),
            (12288, (1, 1, None), True), (12288, (1, 1, 2), False), (8192, (1, 0), False),
            (8192, (1, None), False), (4096, (1,), False), (16384, (1, 1, FIRST, 0), False),
            (9000, (1, 1, 0), True)):
        found = State({**before, "a": File(before["a"].identity, size, words)})
        assert (past.trouble(found, 0) is None) == right, (size, words)


def record(number, *content):
    """Return a record of a journal."""
    return struct.pack(f"={len(content) + 1}Q", number, *content) if number == host.COMMIT else \
        struct.pack("=Q", number) + content[0]


def test_moments(tmp_path):
    """Flushes of two disks are in order, with the steps that had returned."""
    def page(letter):
        return letter * host.PAGE

    length = 8 + host.PAGE
    first = [record(0, page(b"a")), record(host.COMMIT, length, 0, 1),
             record(host.COMMIT, length + 32, 2, 3), record(1, page(b"b"))]
    second = [record(1, page(b"c")), record(host.COMMIT, length, 1, 2)]
    bases, journals = [], []
    for name, records in ("first", first), ("second", second):
        bases.append(bytes(2 * host.PAGE))
        journals.append(tmp_path / name)
        journals[-1].write_bytes(b"".join(records))
    found = [SimpleNamespace(images=[bytes(image) for image in moment.images], dirty=moment.dirty,
                             steps=(moment.first, moment.last),
                             whole=moment.written(moment.dirty))
             for moment in images.moments(bases, images.commits(journals), 7)]
    assert [moment.steps for moment in found] == [(0, 1), (1, 2), (2, 7)]
    zero, a, c = page(b"\0"), page(b"a"), page(b"c")
    assert [moment.images for moment in found] == [
        [zero + zero, zero + zero], [a + zero, zero + zero], [a + zero, zero + c]]
    assert [len(moment.dirty) for moment in found] == [1, 1, 0]
    for moment, after in zip(found, found[1:], strict=False):
        assert moment.whole == after.images
