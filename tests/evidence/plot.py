"""Draws the points that a check or a benchmark measured, as an SVG with nothing but the standard library.

    plot.py POINTS >PLOT.svg

POINTS is a text file, or `-` for standard input. `log` or `linear` ends the name of an axis; empty lines and lines that
begin with `#` say nothing; an `hline` is a level with a label:

    title: Speed of one thread
    x: block size, bytes log
    y: GB/s linear
    hline: 13.3 raw
    series: one by one
    4096 7.1
    65536 18.2

What is drawn is readable on a light and on a dark page: it has no background, and every colour is of middle lightness.
Beside its colour a series has a mark of its own.
"""

import math
import sys
from html import escape
from itertools import cycle

WIDTH, HEIGHT = 640, 380
LEFT, TOP, BOTTOM = 64, 44, 52
CHARACTER = 6.6
GREY = "#7d8590"
RED = "#e5534b"
COLOURS = ["#2f81f7", "#d9822b", "#2da44e", "#a371f7", "#1b9aaa", "#db61a2", "#9a8b2f", "#8f6f5f", "#c4432b", "#5f7f9f"]
MARKS = ["circle", "square", "diamond", "triangle", "cross"]


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    text = sys.stdin.read() if sys.argv[1] == "-" else open(sys.argv[1], encoding="utf-8").read()
    try:
        print(svg(Plot(text)))
    except ValueError as error:
        sys.exit(f"{sys.argv[1]}: {error}")


class Plot:
    """What a file says."""

    def __init__(self, text):
        self.title, self.x, self.y, self.levels, self.series = None, None, None, [], []
        for number, line in enumerate(text.splitlines(), 1):
            line = line.strip()
            if line and not line.startswith("#"):
                try:
                    self.take(line)
                except (ValueError, IndexError) as error:
                    raise ValueError(f"line {number} cannot be read: {line} ({error})") from None
        if not (self.title and self.x and self.y and self.series and all(points for _, points in self.series)):
            raise ValueError("a title, both axes and a series with points are needed")
        points = [point for _, points in self.series for point in points]
        self.x.span([x for x, _ in points])
        self.y.span([y for _, y in points] + [level for level, _ in self.levels])

    def take(self, line):
        key, colon, value = line.partition(": ")
        match key if colon else "":
            case "title":
                self.title = value
            case "x":
                self.x = Axis(value)
            case "y":
                self.y = Axis(value)
            case "hline":
                level, _, label = value.partition(" ")
                self.levels.append((float(level), label))
            case "series":
                self.series.append((value, []))
            case _:
                x, y = map(float, line.split())
                self.series[-1][1].append((x, y))


class Axis:
    def __init__(self, text):
        self.name, _, scale = text.rpartition(" ")
        if scale not in ("log", "linear"):
            raise ValueError("an axis ends in `log` or `linear`")
        self.log = scale == "log"

    def span(self, values):
        """Makes the axis reach over `values`, and chooses its ticks."""
        if not all(math.isfinite(value) for value in values) or (self.log and min(values) <= 0):
            raise ValueError(f"{self.name}: a value that this axis does not have")
        self.binary = self.log and all(value >= 1 and math.log2(value).is_integer() for value in values)
        self.low, self.high = min(values), max(values)
        if self.log:
            self.ticks = self.log_ticks(sorted(set(values)))
        else:
            self.low = min(self.low, 0)
            self.ticks = self.linear_ticks()
        self.low, self.high = min(self.low, self.ticks[0]), max(self.high, self.ticks[-1])
        if self.low == self.high:
            self.high = self.low * 2 or 1

    def log_ticks(self, values):
        if self.binary and len(values) <= 9:
            return values
        if self.binary:
            first, last = (int(math.log2(value)) for value in (values[0], values[-1]))
            step = max(1, math.ceil((last - first) / 8))
            return [2.0**power for power in range(first, last + 1, step)]
        first, last = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
        steps = (1, 2, 5) if last - first <= 2 else (1,)
        ticks = [step * 10.0**power for power in range(first, last + 1) for step in steps]
        below = max((tick for tick in ticks if tick <= self.low), default=ticks[0])
        above = min((tick for tick in ticks if tick >= self.high), default=ticks[-1])
        return [tick for tick in ticks if below <= tick <= above]

    def linear_ticks(self):
        rough = (self.high - self.low or 1) / 6
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(step * power for step in (1, 2, 5, 10) if step * power >= rough)
        first, last = math.floor(self.low / step), math.ceil(self.high / step)
        return [number * step for number in range(first, last + 1)]

    def at(self, value):
        """How far along the axis, from 0 to 1."""
        low, high, value = (math.log(v) for v in (self.low, self.high, value)) if self.log else (self.low, self.high, value)
        return (value - low) / (high - low)

    def label(self, tick):
        if self.binary and tick >= 1024:
            for power, unit in ((30, "Gi"), (20, "Mi"), (10, "Ki")):
                if tick >= 2**power:
                    return f"{tick / 2**power:g} {unit}"
        if self.log and tick >= 1e7:
            mantissa, power = tick / 10 ** math.floor(math.log10(tick)), math.floor(math.log10(tick))
            return f"10^{power}" if round(mantissa) == 1 else f"{mantissa:g}·10^{power}"
        return f"{tick:,.10g}"


def svg(plot):
    names = [name for name, _ in plot.series]
    right = LEFT + WIDTH
    whole = right + 44 + math.ceil(CHARACTER * max(map(len, names)))
    place = lambda x, y: (LEFT + WIDTH * plot.x.at(x), TOP + HEIGHT * (1 - plot.y.at(y)))
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {whole} {TOP + HEIGHT + BOTTOM}" width="{whole}" '
        f'font-family="system-ui, sans-serif" font-size="12" fill="{GREY}" role="img">',
        f"<title>{escape(plot.title)}</title>",
        text(LEFT, 22, plot.title, size=15, weight="600"),
        *grid(plot, place, right),
        *levels(plot, place, right),
    ]
    styles = zip(cycle(COLOURS), cycle(MARKS))
    for row, ((name, points), (colour, mark)) in enumerate(zip(plot.series, styles)):
        places = [place(x, y) for x, y in sorted(points)]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        out.append(f'<g stroke="{colour}" fill="{colour}"><title>{escape(name)}</title>')
        out.append(f'<polyline points="{path}" fill="none" stroke-width="1.8" stroke-linejoin="round"/>')
        out += [shape(mark, x, y) for x, y in places]
        y = TOP + 8 + 20 * row
        out += [f'<path d="M{right + 14} {y}h18" stroke-width="1.8"/>', shape(mark, right + 23, y), "</g>"]
        out.append(text(right + 38, y + 4, name))
    return "\n".join([*out, "</svg>"])


def grid(plot, place, right):
    foot = TOP + HEIGHT
    line = f'stroke="{GREY}" stroke-opacity="0.25"'
    for tick in plot.x.ticks:
        x, _ = place(tick, plot.y.low)
        yield f'<path d="M{x:.1f} {TOP}V{foot}" {line}/>'
        yield text(x, foot + 18, plot.x.label(tick), anchor="middle")
    for tick in plot.y.ticks:
        _, y = place(plot.x.low, tick)
        yield f'<path d="M{LEFT} {y:.1f}H{right}" {line}/>'
        yield text(LEFT - 8, y + 4, plot.y.label(tick), anchor="end")
    yield text(LEFT + WIDTH / 2, foot + 40, plot.x.name, anchor="middle")
    yield f'<g transform="translate(16 {TOP + HEIGHT / 2:g}) rotate(-90)">{text(0, 0, plot.y.name, anchor="middle")}</g>'


def levels(plot, place, right):
    for level, label in plot.levels:
        _, y = place(plot.x.low, level)
        yield f'<path d="M{LEFT} {y:.1f}H{right}" stroke="{RED}" stroke-width="1.5" stroke-dasharray="6 4"/>'
        yield text(right - 6, y - 5, label, anchor="end", colour=RED)


def shape(mark, x, y):
    match mark:
        case "circle":
            return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" stroke="none"/>'
        case "square":
            outline = "m-3 -3h6v6h-6z"
        case "diamond":
            outline = "m0 -4l4 4l-4 4l-4 -4z"
        case "triangle":
            outline = "m0 -4l4 7h-8z"
        case "cross":
            return f'<path d="M{x:.1f} {y:.1f}m-3 -3l6 6m0 -6l-6 6" stroke-width="1.8"/>'
    return f'<path d="M{x:.1f} {y:.1f}{outline}" stroke="none"/>'


def text(x, y, words, anchor="start", size=None, weight=None, colour=None):
    more = "".join(
        f' {name}="{value}"'
        for name, value in (("text-anchor", anchor), ("font-size", size), ("font-weight", weight), ("fill", colour))
        if value not in (None, "start")
    )
    return f'<text x="{x:g}" y="{y:g}"{more}>{escape(words)}</text>'


if __name__ == "__main__":
    main()
