"""Charts as SVG text: axes, lines, bars, cells. Colours are CSS classes of the page.

Written by hand instead of with a plotting library: a chart takes a millisecond and a few kB, its
numbers can be read in the file, and it follows the reader's light or dark theme.
"""

from __future__ import annotations

import dataclasses
import math
import zlib
from collections.abc import Iterable, Sequence
from html import escape

Range = tuple[float, float]

NUM_COLOURS = 6
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 12, 10, 40


@dataclasses.dataclass(frozen=True)
class Line:
    """A line of a chart; a point that is not finite interrupts it.

    Attributes:
        name: for the legend, "" = not in it.
        x: (N,).
        y: (N,).
        colour: number of its colour.
        style: ``line``, ``thin`` or ``diagonal``.
        dots: mark the points, with their values where the mouse is.
        low: (N,) lower ends of intervals around y, () = none.
        high: (N,) upper ends.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    colour: int = 0
    style: str = "line"
    dots: bool = False
    low: Sequence[float] = ()
    high: Sequence[float] = ()


class Frame:
    """The axes of a chart and what is drawn between them.

    Args:
        x: range of the horizontal axis.
        y: range of the vertical axis.
        labels: of the axes.
        size: of the picture.
    """

    def __init__(
        self,
        x: Range,
        y: Range,
        *,
        labels: tuple[str, str],
        size: tuple[int, int] = (340, 260),
    ) -> None:
        self._x, self._y = _not_empty(x), _not_empty(y)
        self._labels = labels
        self.width, self.height = size
        self._inside: list[str] = []

    def px(self, x: float) -> float:
        """Returns where a value is horizontally."""
        low, high = self._x
        return _LEFT + (x - low) / (high - low) * (self.width - _LEFT - _RIGHT)

    def py(self, y: float) -> float:
        """Returns where a value is vertically."""
        low, high = self._y
        return self.height - _BOTTOM - (y - low) / (high - low) * (self.height - _TOP - _BOTTOM)

    def line(self, line: Line) -> None:
        """Draws a line, its intervals and its points."""
        colour = f"c{line.colour % NUM_COLOURS}"
        for piece in _finite_pieces(line):
            if len(line.low):
                ends = [(line.x[i], line.high[i]) for i in piece]
                ends += [(line.x[i], line.low[i]) for i in reversed(piece)]
                self.add(f'<path class="band {colour}" d="{self._path(ends)}Z"/>')
            points = [(line.x[i], line.y[i]) for i in piece]
            if len(points) > 1:
                path = self._path(points)
                self.add(f'<path class="{line.style} {colour}" d="{path}"/>')
            if line.dots or len(points) == 1:
                self._dots(points, line.name, colour)

    def _dots(self, points: Sequence[tuple[float, float]], name: str, colour: str) -> None:
        for x, y in points:
            told = f"{name} " if name else ""
            self.add(
                f'<circle class="dot {colour}" cx="{self.px(x):.1f}" cy="{self.py(y):.1f}" r="2.5">'
                f"<title>{escape(told)}{number(y)} at {number(x)}</title></circle>"
            )

    def rectangle(self, x: Range, y: Range, css: str, title: str = "", style: str = "") -> None:
        """Draws the area of two ranges."""
        left, right = self.px(x[0]), self.px(x[1])
        bottom, top = self.py(y[0]), self.py(y[1])
        told = f"<title>{escape(title)}</title>" if title else ""
        extra = f' style="{style}"' if style else ""
        self.add(
            f'<rect class="{css}"{extra} x="{left:.1f}" y="{top:.1f}" '
            f'width="{max(right - left, 0):.1f}" height="{max(bottom - top, 0):.1f}">{told}</rect>'
        )

    def text(self, x: float, y: float, text: str) -> None:
        """Writes in the middle of a point."""
        self.add(
            f'<text class="in" x="{self.px(x):.1f}" y="{self.py(y):.1f}" dy="0.35em" '
            f'text-anchor="middle">{escape(text)}</text>'
        )

    def add(self, element: str) -> None:
        """Draws an SVG element between the axes."""
        self._inside.append(element)

    def svg(
        self,
        title: str,
        *,
        x_ticks: Sequence[tuple[float, str]] | None = None,
        y_ticks: Sequence[tuple[float, str]] | None = None,
    ) -> str:
        """Returns the picture.

        Args:
            title: what a screen reader says; no two charts of a page have the same.
            x_ticks: places and names on the horizontal axis, None = round numbers.
            y_ticks: the same on the vertical one.
        """
        width, height = self.width, self.height
        clip = f"clip-{zlib.crc32(title.encode()):x}"
        box = f'x="{_LEFT}" y="{_TOP}" width="{width - _LEFT - _RIGHT}" '
        box += f'height="{height - _TOP - _BOTTOM}"'
        parts = [
            f'<svg viewBox="0 0 {width} {height}" role="img" '
            f'aria-label="{escape(title)}" xmlns="http://www.w3.org/2000/svg">',
            f'<clipPath id="{clip}"><rect {box}/></clipPath>',
            *self._x_axis(_round_ticks(self._x) if x_ticks is None else x_ticks),
            *self._y_axis(_round_ticks(self._y) if y_ticks is None else y_ticks),
            f'<g clip-path="url(#{clip})">{"".join(self._inside)}</g>',
            f'<rect class="frame" {box}/></svg>',
        ]
        return "\n".join(parts)

    def _x_axis(self, ticks: Sequence[tuple[float, str]]) -> list[str]:
        bottom = self.height - _BOTTOM
        parts = [
            f'<path class="grid" d="M{self.px(at):.1f} {_TOP}V{bottom}"/>'
            f'<text x="{self.px(at):.1f}" y="{bottom + 15}" text-anchor="middle">'
            f"{escape(name)}</text>"
            for at, name in ticks
        ]
        middle = (_LEFT + self.width - _RIGHT) / 2
        label = f'<text class="axis" x="{middle}" y="{self.height - 6}" text-anchor="middle">'
        return [*parts, f"{label}{escape(self._labels[0])}</text>"]

    def _y_axis(self, ticks: Sequence[tuple[float, str]]) -> list[str]:
        parts = [
            f'<path class="grid" d="M{_LEFT} {self.py(at):.1f}H{self.width - _RIGHT}"/>'
            f'<text x="{_LEFT - 5}" y="{self.py(at):.1f}" dy="0.35em" text-anchor="end">'
            f"{escape(name)}</text>"
            for at, name in ticks
        ]
        middle = (_TOP + self.height - _BOTTOM) / 2
        turned = f'transform="translate(11 {middle}) rotate(-90)" text-anchor="middle"'
        return [*parts, f'<text class="axis" {turned}>{escape(self._labels[1])}</text>']

    def _path(self, points: Iterable[tuple[float, float]]) -> str:
        return "M" + "L".join(f"{self.px(x):.1f} {self.py(y):.1f}" for x, y in points)


def _finite_pieces(line: Line) -> list[list[int]]:
    """Returns the indices of points between gaps."""
    pieces: list[list[int]] = [[]]
    for index, (x, y) in enumerate(zip(line.x, line.y, strict=True)):
        if math.isfinite(x) and math.isfinite(y):
            pieces[-1].append(index)
        elif pieces[-1]:
            pieces.append([])
    return [piece for piece in pieces if piece]


def _not_empty(bounds: Range) -> Range:
    low, high = bounds
    if not (math.isfinite(low) and math.isfinite(high)):
        return (0.0, 1.0)
    if high > low:
        return bounds
    half = abs(low) * 0.05 or 0.5
    return (low - half, high + half)


def _round_ticks(bounds: Range, most: int = 6) -> list[tuple[float, str]]:
    """Returns round numbers within bounds, and how they are written."""
    low, high = bounds
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(f * power for f in (1, 2, 2.5, 5, 10) if f * power >= rough * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    values = [index * step for index in range(first, math.floor(high / step + 1e-9) + 1)]
    largest = max(map(abs, values), default=0.0)
    if 1e-3 <= largest < 1e4:
        return [(value, _decimal(value, step)) for value in values]
    units = ((1e9, "G"), (1e6, "M"), (1e3, "k"))
    unit, name = next(((unit, name) for unit, name in units if largest >= 10 * unit), (1.0, ""))
    return [(value, f"{value / unit:.4g}{name if value else ''}") for value in values]


def _decimal(value: float, step: float) -> str:
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    if step * 10**digits % 1 > 1e-6:  # steps of 2.5
        digits += 1
    return f"{value:,.{digits}f}"


def number(value: float) -> str:
    """Returns a number as people read it: whole ones with commas, else five digits."""
    if not math.isfinite(value):
        return "–" if math.isnan(value) else str(value)
    if float(value).is_integer() and abs(value) < 1e15:
        return f"{int(value):,}"
    return f"{value:.5f}" if 0.001 <= abs(value) < 10 else f"{value:,.5g}"
