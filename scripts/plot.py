# SPDX-License-Identifier: GPL-2.0
"""Draw panels of lines on logarithmic axes as SVG."""

import dataclasses
import math
from xml.sax.saxutils import escape

WIDTH, HEIGHT = 300, 220  # of one panel's axes
LEFT, TOP, RIGHT, BOTTOM = 56, 34, 14, 40  # around them
HEADER = 56
# Told apart by the colour-blind, too.
COLOURS = ("#d55e00", "#0072b2", "#009e73", "#cc79a7")


@dataclasses.dataclass(frozen=True)
class Panel:
    """One pair of axes. Lines are {name: [(x, lowest, middle, highest), …]}."""
    title: str
    lines: dict


def ticks(low, high):
    """Return the 1-2-5 values that enclose a range."""
    steps = [
        factor * 10**power
        for power in range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 1)
        for factor in (1, 2, 5)
    ]
    first = max(step for step in steps if step <= low)
    last = min(step for step in [*steps, 10 * steps[-3]] if step >= high)
    return [step for step in steps if first <= step <= last] or [first]


def short(value):
    """Write a tick's value in few characters."""
    return f"{value / 1000:g}k" if value >= 1000 else f"{value:g}"


class Scale:
    """Maps a range of values to a range of pixels, logarithmically."""

    def __init__(self, low, high, start, end):
        self.low, self.start = math.log(low), start
        self.factor = (end - start) / ((math.log(high) - self.low) or 1)

    def __call__(self, value):
        return round(self.start + (math.log(value) - self.low) * self.factor, 1)


def text(x, y, words, anchor="middle", more=""):
    """Return a text element."""
    return f'<text x="{x}" y="{y}" text-anchor="{anchor}"{more}>{escape(words)}</text>'


def line(x1, y1, x2, y2, more):
    """Return a line element."""
    return f'<line x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}" {more}/>'


def draw_line(points, x_at, y_at, colour):
    """Return one line with its marks; a bar from the lowest to the highest shows the spread."""
    path = " ".join(f"{x_at(x)},{y_at(middle)}" for x, _, middle, _ in points)
    found = [f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>']
    for x, low, middle, high in points:
        found += [line(x_at(x), y_at(low), x_at(x), y_at(high), f'stroke="{colour}"'),
                  f'<circle cx="{x_at(x)}" cy="{y_at(middle)}" r="3" fill="{colour}"/>']
    return found


def draw_panel(panel, left, top, xs, y_ticks, colours):
    """Return a panel's elements."""
    x_at = Scale(xs[0], xs[-1], left, left + WIDTH)
    y_at = Scale(y_ticks[0], y_ticks[-1], top + HEIGHT, top)
    found = [text(left + WIDTH / 2, top - 10, panel.title, more=' font-weight="bold"')]
    for tick in y_ticks:
        y = y_at(tick)
        found += [line(left, y, left + WIDTH, y, 'stroke="#dddddd"'),
                  text(left - 6, y + 4, short(tick), "end")]
    for x in xs:
        found += [line(x_at(x), top + HEIGHT, x_at(x), top + HEIGHT + 4, 'stroke="#444444"'),
                  text(x_at(x), top + HEIGHT + 17, short(x))]
    found.append(f'<rect x="{left}" y="{top}" width="{WIDTH}" height="{HEIGHT}" fill="none" '
                 'stroke="#444444"/>')
    for name, points in panel.lines.items():
        found += draw_line(points, x_at, y_at, colours[name])
    return found


def svg(title, x_title, y_title, rows):
    """Return a drawing of rows of panels that share their axes."""
    points = [(name, point) for row in rows for panel in row
              for name, line_points in panel.lines.items() for point in line_points]
    names = list(dict.fromkeys(name for name, _ in points))
    colours = {name: COLOURS[index % len(COLOURS)] for index, name in enumerate(names)}
    xs = sorted({point[0] for _, point in points})
    y_ticks = ticks(min(point[1] for _, point in points), max(point[3] for _, point in points))
    across, down = LEFT + WIDTH + RIGHT, TOP + HEIGHT + BOTTOM
    width = across * max(len(row) for row in rows) + 20
    height = HEADER + down * len(rows)
    found = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
        f'height="{height}" font-family="sans-serif" font-size="12" fill="#222222">',
        f"<title>{escape(title)}</title>",
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
        text(20, 24, title, "start", ' font-size="15" font-weight="bold"'),
    ]
    x = 20
    for name in names:
        found += [f'<circle cx="{x + 5}" cy="40" r="5" fill="{colours[name]}"/>',
                  text(x + 15, 44, name, "start")]
        x += 35 + 7 * len(name)
    for index, row in enumerate(rows):
        top = HEADER + TOP + down * index
        middle = top + HEIGHT / 2
        found.append(text(16, middle, y_title, more=f' transform="rotate(-90 16 {middle})"'))
        for column, panel in enumerate(row):
            left = 20 + LEFT + across * column
            found += draw_panel(panel, left, top, xs, y_ticks, colours)
            found.append(text(left + WIDTH / 2, top + HEIGHT + 33, x_title))
    return "\n".join([*found, "</svg>"]) + "\n"
