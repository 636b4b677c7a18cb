# SPDX-License-Identifier: GPL-2.0
"""Draw what bench.py has measured: bench.json as bench.svg, a row for each mode of writing.

It runs in the project's Python environment, which has matplotlib.
"""

import json
import sys

import matplotlib
import matplotlib.pyplot as plt
from matplotlib.ticker import EngFormatter, NullFormatter, NullLocator

from bench_report import MODE_TITLES, MODES, host_title

# Colours that colour-blind readers can distinguish.
LINES = {
    "c": ("virtio-pmem, C driver", "#d55e00"),
    "rust": ("virtio-pmem, Rust driver", "#0072b2"),
    "off": ("… without gathering", "#56b4e9"),
    "blk": ("virtio-blk", "#009e73"),
    "none": ("pmem that needs no flush", "#888888"),
}


def draw_panel(axes, rates):
    """Draw the rates of one mode and host speed; bars show the spread of the rounds."""
    for device, (name, colour) in LINES.items():
        points = sorted((rate["jobs"], rate["median"], min(rate["rounds"]), max(rate["rounds"]))
                        for rate in rates if rate["device"] == device)
        if points:
            jobs, medians, lows, highs = zip(*points, strict=True)
            spread = [[middle - low for middle, low in zip(medians, lows, strict=True)],
                      [high - middle for middle, high in zip(medians, highs, strict=True)]]
            axes.errorbar(jobs, medians, spread, label=name, color=colour, marker="o",
                          markersize=4)
    axes.set(xscale="log", yscale="log")
    axes.set_xticks(sorted({rate["jobs"] for rate in rates}))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_major_formatter(EngFormatter(sep=""))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.grid(axis="y", which="both", color="#e4e4e4")


def figure(rates):
    """Return the drawing of all rates."""
    delays = sorted({rate["host_delay_ms"] for rate in rates})
    modes = [mode for mode in MODES if any(rate["mode"] == mode for rate in rates)]
    found, grid = plt.subplots(
        len(modes), len(delays), squeeze=False, sharex=True, sharey=True, layout="constrained",
        figsize=(max(3.6 * len(delays), 6), 2.9 * len(modes) + 0.8))
    for mode, row in zip(modes, grid, strict=True):
        title, unit = MODE_TITLES[mode].split(": ")
        row[0].set_ylabel(unit)
        for delay, axes in zip(delays, row, strict=True):
            draw_panel(axes, [rate for rate in rates
                              if (rate["host_delay_ms"], rate["mode"]) == (delay, mode)])
            axes.set_title(f"{title}\n{host_title(delay)}", fontsize="medium")
    for axes in grid[-1]:
        axes.set_xlabel("jobs")
    found.suptitle("Durable 4 KiB random writes per second")
    names = {label: line for axes in grid.flat
             for line, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    found.legend(names.values(), names.keys(), loc="outside lower center", ncols=len(names))
    return found


def main(source, target):
    """Draw a benchmark's results."""
    matplotlib.use("svg")
    # Text stays text, and the same results give the same file.
    matplotlib.rcParams |= {"svg.fonttype": "none", "svg.hashsalt": "bench"}
    with open(source, encoding="utf-8") as file:
        rates = json.load(file)["rates"]
    figure(rates).savefig(target, metadata={"Date": None})


if __name__ == "__main__":
    main(*sys.argv[1:])
