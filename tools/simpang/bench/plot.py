"""The sizes as a picture: a panel for each schema, a line of dots for each encoding, a logarithmic axis."""

from __future__ import annotations

import math
from collections.abc import Iterator
from xml.sax.saxutils import escape

from .sizes import BATCHES, ENTROPY, Sizes

_NAMES, _PANEL, _GAP = 96, 236, 22
_TOP, _ROW, _BOTTOM = 66, 24, 34
_TICKS = (0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500)
# From light to dark: the larger the batch, the darker.
_SHADES = ("#b9d3ea", "#7fb0db", "#3f82bf", "#0f4c81")
_OURS = ("#f3c9b0", "#eaa27a", "#dc7440", "#b3470f")
_INK, _FAINT, _GRID = "#222222", "#666666", "#dddddd"
_DASHED = ' stroke-dasharray="3 3"'


def svg(sizes: Sizes) -> str:
    """Return the picture."""
    names = [name for name in next(iter(sizes.values())) if name != ENTROPY]
    width = _NAMES + len(sizes) * (_PANEL + _GAP)
    height = _TOP + len(names) * _ROW + _BOTTOM
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
            f'height="{height}" font-family="sans-serif" font-size="12" fill="{_INK}">',
            "<title>Bytes per sample by encoding and batch size</title>",
            f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
            *_legend(),
            *_names(names),
            *(
                line
                for number, (schema, of) in enumerate(sizes.items())
                for line in _panel(schema, of, names, _NAMES + number * (_PANEL + _GAP))
            ),
            "</svg>",
            "",
        ]
    )


def _text(
    x: float, y: float, said: str, *, anchor: str = "start", fill: str = _INK, weight: str = "normal"
) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{fill}" font-weight="{weight}">'
        f"{escape(said)}</text>"
    )


def _line(x: float, top: float, bottom: float, stroke: str, more: str = "") -> str:
    return f'<line x1="{x:.1f}" y1="{top}" x2="{x:.1f}" y2="{bottom}" stroke="{stroke}"{more}/>'


def _dot(x: float, y: float, fill: str) -> str:
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4.5" fill="{fill}" stroke="#ffffff"/>'


def _middle(row: int) -> float:
    return _TOP + (row + 0.5) * _ROW


def _legend() -> Iterator[str]:
    yield _text(8, 20, "samples in a batch:")
    x = 130.0
    for size, shade, ours in zip(BATCHES, _SHADES, _OURS, strict=True):
        yield _dot(x, 16, ours)
        yield _dot(x + 11, 16, shade)
        yield _text(x + 21, 20, str(size))
        x += 56
    yield _line(x, 8, 24, _INK, _DASHED)
    yield _text(x + 8, 20, f"entropy estimate at {BATCHES[-1]}")


def _names(names: list[str]) -> Iterator[str]:
    for row, name in enumerate(names):
        weight = "bold" if row == 0 else "normal"
        yield _text(_NAMES - 10, _middle(row) + 4, name, anchor="end", weight=weight)


def _panel(schema: str, of: dict[str, dict[str, float]], names: list[str], left: float) -> Iterator[str]:
    values = [value for sizes in of.values() for value in sizes.values()]
    low, high = math.log(min(values)) - 0.12, math.log(max(values)) + 0.12
    bottom = _TOP + len(names) * _ROW

    def place(value: float) -> float:
        return left + _PANEL * (math.log(value) - low) / (high - low)

    yield _text(left, _TOP - 18, f"{schema}, bytes a sample", weight="bold")
    for tick in _TICKS:
        if low <= math.log(tick) <= high:
            x = place(tick)
            yield _line(x, _TOP, bottom, _GRID)
            yield _text(x, bottom + 16, f"{tick:g}", anchor="middle", fill=_FAINT)
    x = place(of[ENTROPY][str(BATCHES[-1])])
    yield _line(x, _TOP, bottom, _INK, _DASHED)
    for row, name in enumerate(names):
        for size, shade in zip(BATCHES, _OURS if row == 0 else _SHADES, strict=True):
            yield _dot(place(of[name][str(size)]), _middle(row), shade)
