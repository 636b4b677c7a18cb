# SPDX-License-Identifier: GPL-2.0
"""The results of a benchmark: medians, ratios, the table, and the targets."""

import dataclasses
import statistics

# How a caller asks for durability, and the fio options that make it do so.
MODES = {"fsync": "fsync=1", "sync": "sync=1"}
MODE_TITLES = {"fsync": "fsync after each write", "sync": "O_SYNC writes (FUA)"}
DEVICES = ("c", "rust", "blk")
MANY = 64

# The least ratio to the C driver at many jobs, by the host's delay in milliseconds.
SHARING = {0: 10, 2: 15, 10: 30}
FLUSHES = 1 / 8


def host_title(delay):
    """Return how fast the host's fsync is, in words."""
    return f"host fsync +{delay} ms" if delay else "host as it is"


@dataclasses.dataclass(frozen=True)
class Point:
    """The conditions under which a rate is measured."""
    delay: int
    mode: str
    jobs: int


@dataclasses.dataclass(frozen=True)
class Count:
    """The number of host flushes for a number of writes at many jobs.

    An O_SYNC write to a raw device is two callers: a bio with FUA, and a flush. The Rust driver
    counts them.
    """
    flushes: int
    writes: int
    callers: int | None = None

    @property
    def share(self):
        """Host flushes per write."""
        return self.flushes / self.writes


class Results:
    """Rates of writes per second by point and device, one for each round, and the counts."""

    def __init__(self):
        self.rates = {}
        self.counts = {}

    def add(self, point, device, rate):
        """Record one round's rate."""
        self.rates.setdefault(point, {}).setdefault(device, []).append(rate)

    def add_count(self, delay, mode, device, count):
        """Record a count of host flushes."""
        self.counts[delay, mode, device] = count

    def points(self, delay, mode):
        """List the points of one panel, by jobs."""
        found = [point for point in self.rates if (point.delay, point.mode) == (delay, mode)]
        return sorted(found, key=lambda point: point.jobs)

    def panels(self):
        """List the pairs of delay and mode that were measured."""
        found = {(point.delay, point.mode) for point in self.rates}
        return sorted(found, key=lambda panel: (panel[0], list(MODES).index(panel[1])))

    def median(self, point, device):
        """Return the median rate, or None."""
        rates = self.rates.get(point, {}).get(device)
        return statistics.median(rates) if rates else None

    def ratios(self, point, over, under):
        """Return each round's ratio of two devices; a drift of the host affects both."""
        rates = self.rates.get(point, {})
        pairs = zip(rates.get(over, ()), rates.get(under, ()), strict=False)
        return [above / below for above, below in pairs]


@dataclasses.dataclass(frozen=True)
class Target:
    """A bound, and the value of each round."""
    text: str
    bound: float
    values: tuple
    at_most: bool = False

    @property
    def value(self):
        """The value that is compared with the bound: the median."""
        return statistics.median(self.values)

    def holds(self, value):
        """Return whether a value keeps to the bound."""
        return value <= self.bound if self.at_most else value >= self.bound

    @property
    def verdict(self):
        """Met, not met, or missed by less than the spread of the rounds."""
        if self.holds(self.value):
            return "met"
        if any(self.holds(value) for value in self.values):
            return "not met, but within the spread of the rounds"
        return "not met"

    def __str__(self):
        sign = "<=" if self.at_most else ">="
        line = f"{self.text} {sign} {self.bound:g}: {number(self.value)}"
        if len(self.values) > 1:
            line += f" ({number(min(self.values))} to {number(max(self.values))})"
        return f"{line}, {self.verdict}"


def targets(results):
    """List the targets that the results can be compared with."""
    found = []

    def ratio(text, bound, point, under):
        values = results.ratios(point, "rust", under)
        if values:
            found.append(Target(f"{text}, {point.mode}, {host_title(point.delay)}", bound,
                                tuple(values)))

    for delay, mode in results.panels():
        if delay in SHARING:
            ratio(f"rust/c at {MANY} jobs", SHARING[delay], Point(delay, mode, MANY), "c")
    for delay, mode in results.panels():
        ratio(f"rust/blk at {MANY} jobs", 1, Point(delay, mode, MANY), "blk")
    for delay, mode in results.panels():
        ratio("rust/c at 1 job", 1, Point(delay, mode, 1), "c")
    for (delay, mode, device), count in sorted(results.counts.items()):
        if device == "rust":
            found.append(Target(f"host flushes per caller at {MANY} jobs, {mode}, "
                                f"{host_title(delay)}", FLUSHES,
                                (count.flushes / (count.callers or count.writes),), at_most=True))
    return found


def number(value, width=0):
    """Format a rate or a ratio with its significant digits."""
    if value is None:
        return "-".rjust(width)
    if value >= 100:
        digits = 0
    elif value >= 10:
        digits = 1
    else:
        digits = 2 if value >= 0.1 else 4
    return f"{value:.{digits}f}".rjust(width)


def table(results):
    """Return the table of medians and ratios."""
    lines = []
    heads = [*DEVICES, "rust/c", "rust/blk"]
    for delay, mode in results.panels():
        lines += [f"{host_title(delay)}, {MODE_TITLES[mode]}: writes per second",
                  "  jobs" + "".join(head.rjust(10) for head in heads)]
        for point in results.points(delay, mode):
            values = [results.median(point, device) for device in DEVICES]
            for under in ("c", "blk"):
                ratios = results.ratios(point, "rust", under)
                values.append(statistics.median(ratios) if ratios else None)
            lines.append(f"{point.jobs:6}" + "".join(number(value, 10) for value in values))
        lines.append("")
    if results.counts:
        lines += [f"host flushes per write at {MANY} jobs",
                  "  " + "".join(head.ljust(30) for head in ("host", "mode")) + "         c"
                  "      rust"]
        for delay, mode in sorted({key[:2] for key in results.counts}):
            shares = [results.counts.get((delay, mode, device)) for device in ("c", "rust")]
            lines.append("  " + host_title(delay).ljust(30) + mode.ljust(30)
                         + "".join(number(one and one.share, 10) for one in shares))
        lines.append("")
    return "\n".join(lines)


def document(results, about):
    """Return all results, for a JSON file."""
    return {
        "about": about,
        "rates": [
            {"host_delay_ms": point.delay, "mode": point.mode, "jobs": point.jobs,
             "device": device, "median": results.median(point, device), "rounds": rates}
            for delay, mode in results.panels()
            for point in results.points(delay, mode)
            for device, rates in results.rates[point].items()
        ],
        "ratios": [
            {"host_delay_ms": delay, "mode": mode, "jobs": point.jobs, "of": f"rust/{under}",
             "median": statistics.median(ratios), "rounds": ratios}
            for delay, mode in results.panels()
            for point in results.points(delay, mode)
            for under in ("c", "blk")
            if (ratios := results.ratios(point, "rust", under))
        ],
        "host_flushes": [
            {"host_delay_ms": delay, "mode": mode, "jobs": MANY, "device": device,
             "flushes": count.flushes, "writes": count.writes, "callers": count.callers}
            for (delay, mode, device), count in sorted(results.counts.items())
        ],
        "targets": [
            {"text": target.text, "bound": target.bound, "value": target.value,
             "at_most": target.at_most, "verdict": target.verdict}
            for target in targets(results)
        ],
    }
