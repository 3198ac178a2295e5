"""Curves as SVG text, readable on a light and on a dark page; the same input gives the same bytes.

Uses matplotlib's object interface with the SVG canvas: no pyplot, no display, no global figure.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import Formatter, FuncFormatter, MaxNLocator, NullFormatter
from numpy.typing import NDArray

Values = NDArray[np.float64]

GRAY = "#7b7b7b"
"""About the same contrast (4.2) to a white and to a near-black page."""
PALETTE = (
    *("#3b82f6", "#e06a0f", "#17a673", "#a55eea", "#e0447c", "#0c98aa", "#b58900", "#8d6e63"),
    *("#d64545", "#6b8e23", "#6366f1", "#c455c4", "#2f9e44"),
)
_MARKERS = "osD^vPX*"
_MOST_POINTS = 300
FEWEST_POINTS = 3
"""Fewer make no curve."""
_TITLES = {
    "lr": "learning rate",
    "grad_norm": "gradient norm",
    "opponent_lr": "learning rate",
    "opponent_grad_norm": "gradient norm",
    "images_per_s": "images/s",
    "data_wait": "share of time",
}
"""Titles of the vertical axis; other terms have their own name and no unit."""
_METADATA = ("Creator", "Date", "Format", "Type")
# A viewer that knows the color scheme of the page gives the text the contrast of body text.
_STYLE = (
    "<style>@media (prefers-color-scheme: light) {text {fill: #4b5059 !important}}"
    "@media (prefers-color-scheme: dark) {text {fill: #b4bac4 !important}}</style>"
)


@dataclass(frozen=True)
class Line:
    """One curve: points (x, y, spread); the spread (half a range, or a deviation) may be None."""

    label: str
    points: Sequence[tuple[float, float, float | None]]


def colors_of(names: Iterable[str]) -> dict[str, str]:
    """A color for each name, in the order of their first appearance."""
    unique = dict.fromkeys(names)
    return {name: PALETTE[index % len(PALETTE)] for index, name in enumerate(unique)}


def terms_of(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The terms of a training log, in the order of their first appearance."""
    return list(dict.fromkeys(key for row in rows for key in row if key != "step"))


def loss_panels(
    rows: Sequence[Mapping[str, Any]], colors: Mapping[str, str] | None = None
) -> dict[str, str]:
    """One small SVG per term of a training log: raw values faint, their local mean on top.

    ``rows`` hold ``step`` and a number per term; some rows may lack a term. A term with fewer than
    three finite values has no panel. The axis is logarithmic if a positive term spans a factor of
    ten or more. ``colors`` of terms; None: by their order.
    """
    terms = terms_of(rows)
    colors = colors_of(terms) if colors is None else colors
    panels = {}
    for term in terms:
        steps, values = _column(rows, term)
        if np.isfinite(values).sum() >= FEWEST_POINTS:
            panels[term] = _loss_panel(steps, values, term, colors[term])
    return panels


def curves(
    lines: Sequence[Line],
    x_label: str,
    y_label: str,
    log_x: bool = False,
    colors: Mapping[str, str] | None = None,
) -> str:
    """Metrics over an axis as one SVG: markers at measured values, a band for the spread.

    ``colors`` of lines by label; None: by their order.
    """
    colors = colors_of(line.label for line in lines) if colors is None else colors
    figure, axes = _figure(5.0, 2.9)
    measured = sorted({point[0] for line in lines for point in line.points})
    for index, line in enumerate(lines):
        color = colors[line.label]
        x, y = _array(p[0] for p in line.points), _array(p[1] for p in line.points)
        spread = _array(p[2] or 0.0 for p in line.points)
        marker = _MARKERS[index % len(_MARKERS)]
        axes.plot(x, y, marker=marker, markersize=4, linewidth=1.5, color=color)
        if (spread > 0).any():
            axes.fill_between(x, y - spread, y + spread, color=color, alpha=0.18, linewidth=0)
    if log_x and measured and measured[0] > 0:
        axes.set_xscale("log", base=2)
    if len(measured) <= 8:
        axes.set_xticks(measured)
    axes.xaxis.set_major_formatter(FuncFormatter(_tick))
    axes.xaxis.set_minor_formatter(NullFormatter())
    _scale_y(axes, np.concatenate([_array(p[1] for p in line.points) for line in lines]))
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    if len(lines) > 1:
        _legend(axes, [line.label for line in lines])
    return _svg(figure)


def smooth(values: Values, half: int) -> Values:
    """Mean of the finite values up to ``half`` positions to each side.

    The window stays centered, so that a falling curve is not raised. It narrows towards the ends:
    the first and the last value do not change. NaN if a window has no finite value.
    """
    finite = np.isfinite(values)
    sums = np.concatenate([[0.0], np.where(finite, values, 0.0).cumsum()])
    counts = np.concatenate([[0], finite.cumsum()])
    index = np.arange(len(values))
    reach = np.minimum(half, np.minimum(index, len(values) - 1 - index))
    low, high = index - reach, index + reach + 1
    count = counts[high] - counts[low]
    return np.where(count > 0, (sums[high] - sums[low]) / np.maximum(count, 1), np.nan)


def spans_decades(values: Values) -> bool:
    """Whether all finite values are positive and span a factor of ten or more."""
    finite = values[np.isfinite(values)]
    return bool(len(finite)) and finite.min() > 0 and finite.max() >= 10 * finite.min()


def _loss_panel(steps: Values, values: Values, term: str, color: str) -> str:
    figure, axes = _figure(2.75, 1.9)
    mean = smooth(values, half=len(values) // 25)
    keep = np.unique(np.linspace(0, len(values) - 1, _MOST_POINTS).round().astype(int))
    axes.plot(steps[keep], values[keep], color=color, alpha=0.3, linewidth=0.8)
    axes.plot(steps[keep], mean[keep], color=color, linewidth=1.4)
    axes.set_xlabel("step")
    axes.set_ylabel(_TITLES.get(term, term))
    axes.xaxis.set_major_locator(MaxNLocator(3, integer=True))
    axes.xaxis.set_major_formatter(FuncFormatter(_tick))
    _scale_y(axes, values)
    return _svg(figure)


def _column(rows: Sequence[Mapping[str, Any]], term: str) -> tuple[Values, Values]:
    points = [(row["step"], row[term]) for row in rows if term in row]
    return _array(x for x, _ in points), _array(np.nan if y is None else y for _, y in points)


def _array(values: Any) -> Values:
    return np.fromiter((float(value) for value in values), dtype=np.float64)


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    figure.patch.set_alpha(0.0)
    axes = figure.add_subplot()
    axes.patch.set_alpha(0.0)
    axes.grid(visible=True, color=GRAY, alpha=0.25, linewidth=0.6)
    axes.tick_params(colors=GRAY, labelsize=8, width=0.6)
    axes.xaxis.label.set(color=GRAY, fontsize=9, parse_math=False)
    axes.yaxis.label.set(color=GRAY, fontsize=9, parse_math=False)
    for name, spine in axes.spines.items():
        spine.set(visible=name in ("left", "bottom"), color=GRAY, linewidth=0.6)
    return figure, axes


def _legend(axes: Axes, labels: Sequence[str]) -> None:
    """Set the labels afterwards: matplotlib hides those with a leading underscore."""
    numbers = [str(index) for index in range(len(labels))]
    legend = axes.legend(axes.get_lines(), numbers, frameon=False, fontsize=8, labelcolor=GRAY)
    for text, label in zip(legend.get_texts(), labels, strict=True):
        text.set(text=label, parse_math=False)


def _scale_y(axes: Axes, values: Values) -> None:
    if spans_decades(values):
        axes.set_yscale("log")
        finite = values[np.isfinite(values)]
        within_two = finite.max() < 100 * finite.min()
        axes.yaxis.set_minor_formatter(
            FuncFormatter(_minor_tick) if within_two else NullFormatter()
        )
        axes.tick_params(which="minor", colors=GRAY, labelsize=8)
    axes.yaxis.set_major_formatter(_DistinctTicks())


class _DistinctTicks(Formatter):
    """Numbers with four digits, or as many more as tell the ticks of the axis apart."""

    def __call__(self, value: float, _position: int | None = None) -> str:
        """The label of a value alone."""
        return _tick(value)

    def format_ticks(self, values: Iterable[float]) -> list[str]:
        """The labels of all ticks."""
        ticks = list(map(float, values))
        for digits in range(4, 17):
            labels = [_number(tick, digits) for tick in ticks]
            if len(set(labels)) == len(set(ticks)):
                break
        return labels


def _tick(value: float, _position: int | None = None) -> str:
    return _number(value, 4)


def _number(value: float, digits: int) -> str:
    return f"{value:.0f}" if abs(value) >= 10 ** (digits - 1) else f"{value:.{digits}g}"


def _minor_tick(value: float, _position: int | None = None) -> str:
    """Label only 2 and 5 of each decade, so that labels do not touch."""
    lead = value / 10 ** math.floor(math.log10(value) + 1e-9)
    return _tick(value) if round(lead, 6) in (2.0, 5.0) else ""


def _svg(figure: Figure) -> str:
    FigureCanvasSVG(figure)
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "pae"}):
        figure.savefig(buffer, format="svg", transparent=True, metadata=dict.fromkeys(_METADATA))
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    return text.replace(">", f">{_STYLE}", 1)
