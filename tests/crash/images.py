# SPDX-License-Identifier: GPL-2.0
"""What a host may have on its disks at each moment, from the journals of host_journal.c."""

from dataclasses import dataclass

import host


@dataclass
class Moment:
    """The time between two flushes, or more if these changed nothing.

    The host surely has `images`, and may have any of the pages in `dirty`, as (disk, number,
    content), because a cache may write back early. The steps that had returned were `first` at its
    beginning, and `last` at its end.
    """
    images: list
    dirty: list
    first: int
    last: int

    def written(self, chosen):
        """Return the images with some dirty pages in them."""
        images = [bytearray(image) for image in self.images]
        for disk, number, content in chosen:
            images[disk][number * host.PAGE:(number + 1) * host.PAGE] = content
        return images


def commits(journals):
    """List each flush of any disk in order: its pages with their disk, and the steps returned."""
    found = []
    for disk, journal in enumerate(journals):
        waiting, end = [], 0
        for number, start, content in host.records(journal):
            if number == host.COMMIT:
                end, order, steps = host.commit(content)
                pages = [page for page in waiting if page[0] < end]
                waiting = waiting[len(pages):]
                found.append((order, [(disk, *page[1:]) for page in pages], steps))
            else:
                waiting.append((start, number, content))
    return [flush[1:] for flush in sorted(found, key=lambda flush: flush[0])]


def moments(bases, flushes, done):
    """Yield each Moment of a run that began with `bases` and ended when `done` steps had returned.

    flushes  as commits() returns them
    """
    images = [bytearray(base) for base in bases]
    first = 0
    for pages, steps in flushes:
        if not pages:
            continue
        yield Moment(images, pages, first, steps)
        for disk, number, content in pages:
            images[disk][number * host.PAGE:(number + 1) * host.PAGE] = content
        first = steps
    yield Moment(images, [], first, done)
