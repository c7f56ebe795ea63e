"""Boxes, texts and arrows of an SVG file: text remains text, and must fit its box."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import hypot
from xml.sax.saxutils import escape

SANS = "system-ui, -apple-system, 'Segoe UI', Helvetica, Arial, 'DejaVu Sans', sans-serif"
MONO = "ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace"
INK, GREY, PALE = "#1f2933", "#56616d", "#c3ccd5"
CORE, SERVICE, DEVICE, DATA = "#d9e9fb", "#f1f3f5", "#fdebd3", "#ffffff"
EDGES = {CORE: "#3b78b5", SERVICE: "#9aa5b1", DEVICE: "#c77d1e", DATA: "#9aa5b1"}
SIZE = 12.5  # of the text
# Width of a character in parts of its size, in the widest of the fonts.
WIDTHS = {(False, False): 0.58, (False, True): 0.65, (True, False): 0.605, (True, True): 0.605}


@dataclass(frozen=True)
class Line:
    """A line of text; mono: a name in the code.  size: in pixels."""

    text: str
    mono: bool = False
    bold: bool = False
    size: float = SIZE
    colour: str = INK

    @property
    def width(self) -> float:
        """An upper estimate of the width."""
        return len(self.text) * self.size * WIDTHS[self.mono, self.bold]


def code(text: str, *, bold: bool = True, size: float = SIZE) -> Line:
    """Return a line with a name in the code."""
    return Line(text, mono=True, bold=bold, size=size)


def note(text: str, *, size: float = SIZE - 1) -> Line:
    """Return a small grey line."""
    return Line(text, size=size, colour=GREY)


@dataclass(frozen=True)
class Box:
    """A drawn box: x, y of its left upper corner, and its size."""

    x: float
    y: float
    w: float
    h: float

    @property
    def top(self) -> tuple[float, float]:
        """The middle of the upper edge."""
        return self.x + self.w / 2, self.y

    @property
    def bottom(self) -> tuple[float, float]:
        """The middle of the lower edge."""
        return self.x + self.w / 2, self.y + self.h

    @property
    def left(self) -> tuple[float, float]:
        """The middle of the left edge."""
        return self.x, self.y + self.h / 2

    @property
    def right(self) -> tuple[float, float]:
        """The middle of the right edge."""
        return self.x + self.w, self.y + self.h / 2


class Canvas:
    """An SVG drawing under construction.  title, text: for readers who do not see it."""

    def __init__(self, width: int, height: int, title: str, text: str) -> None:
        self.width, self.height = width, height
        self._parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
            f'width="{width}" height="{height}" role="img" font-family="{SANS}">',
            f"<title>{escape(title)}</title>",
            f"<desc>{escape(text)}</desc>",
            f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
        ]

    def box(
        self, x: float, y: float, w: float, h: float, lines: Sequence[Line] = (), *,
        fill: str = SERVICE, centred: bool = True, dashed: bool = False, edge: str = "",
        radius: float = 5,
    ) -> Box:  # fmt: skip
        """Draw a box with lines of text in its middle. Raise ValueError if they do not fit."""
        if x < 0 or y < 0 or x + w > self.width or y + h > self.height:
            raise ValueError(f"outside of the drawing: {lines}")
        dash = ' stroke-dasharray="5 4"' if dashed else ""
        self._parts.append(
            f'<rect x="{x:g}" y="{y:g}" width="{w:g}" height="{h:g}" rx="{radius:g}" fill="{fill}" '
            f'stroke="{edge or EDGES.get(fill, PALE)}"{dash}/>'
        )
        heights = [1.36 * line.size for line in lines]
        if sum(heights) > h - 4:
            raise ValueError(f"too high: {lines}")
        at = y + (h - sum(heights)) / 2
        for line, height in zip(lines, heights, strict=True):
            if line.width > w - 8:
                raise ValueError(f"{line.width:.0f} > {w - 8:.0f}: {line.text}")
            baseline = at + height / 2 + 0.35 * line.size
            place = (x + w / 2, "middle") if centred else (x + 10, "start")
            self.text(place[0], baseline, line, place[1])
            at += height
        return Box(x, y, w, h)

    def text(self, x: float, y: float, line: Line, anchor: str = "start") -> None:
        """Draw a line of text; y is its baseline."""
        begin = x - line.width * {"start": 0.0, "middle": 0.5, "end": 1.0}[anchor]
        if begin < 0 or begin + line.width > self.width:
            raise ValueError(f"outside of the drawing: {line.text}")
        font = f' font-family="{MONO}"' if line.mono else ""
        weight = ' font-weight="600"' if line.bold else ""
        align = "" if anchor == "start" else f' text-anchor="{anchor}"'
        self._parts.append(
            f'<text x="{x:g}" y="{y:.1f}" font-size="{line.size:g}" fill="{line.colour}"'
            f"{font}{weight}{align}>{escape(line.text)}</text>"
        )

    def arrow(
        self, *points: tuple[float, float], colour: str = INK, dashed: bool = False,
        has_head: bool = True,
    ) -> None:  # fmt: skip
        """Draw an arrow along points; each of its parts is horizontal or vertical."""
        for (x0, y0), (x1, y1) in pairwise(points):
            if x0 != x1 and y0 != y1:
                raise ValueError(f"oblique: {points}")
        (x0, y0), (x, y) = points[-2:]
        dx, dy = (x > x0) - (x < x0), (y > y0) - (y < y0)
        line = points
        if has_head:
            line = (*points[:-1], (x - 6 * dx, y - 6 * dy))
            corners = [(x, y)] + [
                (x - 8 * dx + s * 4 * dy, y - 8 * dy + s * 4 * dx) for s in (1, -1)
            ]
            head = " ".join(f"{a:g},{b:g}" for a, b in corners)
            self._parts.append(f'<polygon points="{head}" fill="{colour}"/>')
        path = " ".join(f"{a:g},{b:g}" for a, b in line)
        dash = ' stroke-dasharray="5 4"' if dashed else ""
        self._parts.append(
            f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.4"{dash}/>'
        )

    def circle(self, x: float, y: float, r: float, lines: Sequence[Line], fill: str) -> None:
        """Draw a circle with a line of text in its middle."""
        self._parts.append(
            f'<circle cx="{x:g}" cy="{y:g}" r="{r:g}" fill="{fill}" stroke="{EDGES[fill]}" '
            'stroke-width="1.4"/>'
        )
        for line in lines:
            self.text(x, y + 0.35 * line.size, line, "middle")

    def line(
        self, start: tuple[float, float], end: tuple[float, float], colour: str, *,
        cut: float = 0.0, width: float = 1.4,
    ) -> None:  # fmt: skip
        """Draw an oblique arrow; it ends `cut` before its end, at the edge of a circle."""
        (x0, y0), (x1, y1) = start, end
        length = hypot(x1 - x0, y1 - y0)
        dx, dy = (x1 - x0) / length, (y1 - y0) / length
        x, y = x1 - cut * dx, y1 - cut * dy
        corners = [(x, y)] + [(x - 8 * dx + s * 4 * dy, y - 8 * dy - s * 4 * dx) for s in (1, -1)]
        head = " ".join(f"{a:.1f},{b:.1f}" for a, b in corners)
        self._parts.append(
            f'<line x1="{x0:g}" y1="{y0:g}" x2="{x - 6 * dx:.1f}" y2="{y - 6 * dy:.1f}" '
            f'stroke="{colour}" stroke-width="{width:g}"/>'
            f'<polygon points="{head}" fill="{colour}"/>'
        )

    def badge(self, x: float, y: float, number: int) -> None:
        """Draw a number in a circle."""
        self._parts.append(f'<circle cx="{x:g}" cy="{y:g}" r="9.5" fill="{INK}"/>')
        line = Line(str(number), bold=True, size=11.5, colour="#ffffff")
        self.text(x, y + 4.1, line, "middle")

    def svg(self) -> str:
        """Return the file's text."""
        return "\n".join([*self._parts, "</svg>", ""])
