# SPDX-License-Identifier: GPL-2.0
"""The results of a benchmark: medians, ratios, the tables, and the targets."""

import dataclasses
import statistics

# How a caller asks for durability, and the fio options that make it do so.
MODES = {"fsync": "fsync=1", "sync": "sync=1"}
APPLICATION = "sqlite"
PROCESSES = 16
MODE_TITLES = {"fsync": "fsync after each write: writes per second",
               "sync": "O_SYNC writes (FUA): writes per second",
               APPLICATION: f"SQLite (WAL, synchronous=FULL), {PROCESSES} databases: commits per "
                            "second"}

# The driver in C; the one in Rust, with and without gathering; virtio-blk; and pmem that needs no
# flush, which shows what the guest's own work allows.
DEVICES = ("c", "rust", "off", "blk", "none")
MANY = 64

# The least ratio to the C driver at many jobs, by the host's delay in milliseconds.
SHARING = {2: 40, 10: 50}
# The least part of the rate of pmem that needs no flush, on the host as it is.
LIMIT = 0.8
# The most host flushes per caller at many jobs, by the host's delay.
FLUSHES = {0: 1 / 8, 2: 1 / 8, 10: 1 / 50}
# Of gathering to none: the least rate of one job; the most median latency at many jobs, by the
# host's delay; the most mean latency of an open load.
ALONE = 0.97
LATENCY = {10: 0.6}
OPEN = 1.05


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


@dataclasses.dataclass(frozen=True)
class Latency:
    """The latency of durable writes, in milliseconds."""
    mean: float
    p50: float
    p99: float


class Results:
    """Rates by point and device and latencies, one for each round, and the counts.

    serial  the host serves one flush after the other
    """

    def __init__(self, serial=False):
        self.serial = serial
        self.rates = {}
        self.counts = {}
        self.latencies = {}
        self.instructions = {}

    def title(self, delay):
        """Return how fast the host is, in words."""
        return host_title(delay) + (", one flush at a time" if self.serial else "")

    def add(self, point, device, rate):
        """Record one round's rate."""
        self.rates.setdefault(point, {}).setdefault(device, []).append(rate)

    def add_count(self, delay, mode, device, count):
        """Record a count of host flushes."""
        self.counts[delay, mode, device] = count

    def add_latency(self, delay, load, device, latency):
        """Record one round's latency at many jobs, under a closed or an open load."""
        self.latencies.setdefault((delay, load), {}).setdefault(device, []).append(latency)

    def add_instructions(self, jobs, device, per_write):
        """Record one round's number of the guest's instructions for a write."""
        self.instructions.setdefault(jobs, {}).setdefault(device, []).append(per_write)

    def flush_instructions(self, jobs, device):
        """Return how many of them the flush takes: pmem that needs none has all the others."""
        without = statistics.median(self.instructions[jobs]["none"])
        return [count - without for count in self.instructions[jobs][device]]

    def latency_ratios(self, delay, load, field):
        """Return each round's ratio of a latency with gathering to the one without."""
        found = self.latencies.get((delay, load), {})
        return [getattr(on, field) / getattr(off, field)
                for on, off in zip(found.get("rust", ()), found.get("off", ()), strict=False)]

    def points(self, delay, mode):
        """List the points of one panel, by jobs."""
        found = [point for point in self.rates if (point.delay, point.mode) == (delay, mode)]
        return sorted(found, key=lambda point: point.jobs)

    def panels(self):
        """List the pairs of delay and mode that were measured."""
        found = {(point.delay, point.mode) for point in self.rates}
        return sorted(found, key=lambda panel: (panel[0], list(MODE_TITLES).index(panel[1])))

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

    def compare(text, values, bound, at_most=False):
        if values:
            found.append(Target(text, bound, tuple(values), at_most))

    def ratio(over, under, jobs, bound, panel):
        delay, mode = panel
        compare(f"{over}/{under} at {jobs} job{'s' if jobs > 1 else ''}, {mode}, "
                f"{host_title(delay)}",
                results.ratios(Point(delay, mode, jobs), over, under), bound)

    panels = [panel for panel in results.panels() if panel[1] in MODES]
    for panel in panels:
        if panel[0] in SHARING:
            ratio("rust", "c", MANY, SHARING[panel[0]], panel)
    for panel in panels:
        ratio("rust", "blk", MANY, 1, panel)
    for panel in panels:
        ratio("rust", "none", MANY, LIMIT, panel)
    for panel in panels:
        ratio("rust", "c", 1, 1, panel)
    for panel in panels:
        ratio("rust", "off", 1, ALONE, panel)
    for (delay, mode, device), count in sorted(results.counts.items()):
        if device == "rust" and delay in FLUSHES:
            compare(f"host flushes per caller at {MANY} jobs, {mode}, {host_title(delay)}",
                    [count.flushes / (count.callers or count.writes)], FLUSHES[delay],
                    at_most=True)
    for delay, load in sorted(results.latencies):
        if load == "closed" and delay in LATENCY:
            compare(f"median latency, rust/off at {MANY} jobs, {host_title(delay)}",
                    results.latency_ratios(delay, load, "p50"), LATENCY[delay], at_most=True)
        elif load == "open":
            compare(f"mean latency, rust/off, open load, {host_title(delay)}",
                    results.latency_ratios(delay, load, "mean"), OPEN, at_most=True)
    for jobs in results.instructions:
        compare(f"the guest's instructions for a flush, rust/c at {jobs} job"
                f"{'s' if jobs > 1 else ''}",
                [ours / theirs for ours, theirs in zip(results.flush_instructions(jobs, "rust"),
                                                       results.flush_instructions(jobs, "c"),
                                                       strict=True)], 1, at_most=True)
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
    """Return the tables of medians and ratios."""
    lines = []
    heads = [*DEVICES, "rust/c", "rust/off", "rust/blk"]
    for delay, mode in results.panels():
        lines += [f"{results.title(delay)}, {MODE_TITLES[mode]}",
                  "  jobs" + "".join(head.rjust(10) for head in heads)]
        for point in results.points(delay, mode):
            values = [results.median(point, device) for device in DEVICES]
            for under in ("c", "off", "blk"):
                ratios = results.ratios(point, "rust", under)
                values.append(statistics.median(ratios) if ratios else None)
            lines.append(f"{point.jobs:6}" + "".join(number(value, 10) for value in values))
        lines.append("")
    return "\n".join(lines + latency_table(results) + count_table(results)
                     + instruction_table(results))


def instruction_table(results):
    """Return the lines of a table of instructions."""
    if not results.instructions:
        return []
    devices = list(next(iter(results.instructions.values())))
    lines = ["the guest's instructions for a write and its fsync (for the flush), host as it is",
             "  jobs" + "".join(device.rjust(18) for device in devices)]
    for jobs, found in results.instructions.items():
        lines.append(f"{jobs:6}" + "".join(
            "{:.0f} ({:.0f})".format(statistics.median(found[device]), statistics.median(
                results.flush_instructions(jobs, device))).rjust(18) for device in devices))
    return [*lines, ""]


def latency_table(results):
    """Return the lines of a table of latencies."""
    lines = []
    for (delay, load), devices in sorted(results.latencies.items()):
        lines += [f"{host_title(delay)}, {load} load, {MANY} jobs of O_SYNC writes: latency in ms",
                  "  " + "".join(head.rjust(10) for head in ("", "mean", "p50", "p99"))]
        for device, rounds in devices.items():
            values = [statistics.median(getattr(one, field) for one in rounds)
                      for field in ("mean", "p50", "p99")]
            lines.append("  " + device.rjust(10) + "".join(number(value, 10) for value in values))
        lines.append("")
    return lines


def count_table(results):
    """Return the lines of a table of host flushes."""
    if not results.counts:
        return []
    devices = [device for device in DEVICES if any(key[2] == device for key in results.counts)]
    lines = [f"host flushes per write at {MANY} jobs",
             "  " + "".join(head.ljust(20) for head in ("host", "mode"))
             + "".join(device.rjust(10) for device in devices)]
    for delay, mode in sorted({key[:2] for key in results.counts}):
        shares = [results.counts.get((delay, mode, device)) for device in devices]
        lines.append("  " + host_title(delay).ljust(20) + mode.ljust(20)
                     + "".join(number(one and one.share, 10) for one in shares))
    return [*lines, ""]


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
            for under in ("c", "off", "blk", "none")
            if (ratios := results.ratios(point, "rust", under))
        ],
        "host_flushes": [
            {"host_delay_ms": delay, "mode": mode, "jobs": MANY, "device": device,
             "flushes": count.flushes, "writes": count.writes, "callers": count.callers}
            for (delay, mode, device), count in sorted(results.counts.items())
        ],
        "instructions": [
            {"jobs": jobs, "device": device, "rounds": rounds}
            for jobs, found in results.instructions.items() for device, rounds in found.items()
        ],
        "latencies": [
            {"host_delay_ms": delay, "load": load, "device": device,
             "rounds": [dataclasses.asdict(one) for one in rounds]}
            for (delay, load), devices in sorted(results.latencies.items())
            for device, rounds in devices.items()
        ],
        "targets": [
            {"text": target.text, "bound": target.bound, "value": target.value,
             "at_most": target.at_most, "verdict": target.verdict}
            for target in targets(results)
        ],
    }
