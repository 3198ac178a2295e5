"""The curves of a page: training logs, and metrics along an axis."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pae_framework.report.content import CurveRow
from pae_framework.report.metrics import (
    EVALUATIONS,
    GENERATOR_STEPS,
    Axis,
    MetricFields,
    Series,
    decimals_for,
    fixed,
    number,
    readable,
    series_along,
)
from pae_framework.report.page import Chart, chart
from pae_framework.report.plots import (
    FEWEST_POINTS,
    GRAY,
    Line,
    colors_of,
    curves,
    loss_panels,
    terms_of,
)

READINGS = (
    *("lr", "grad_norm", "opponent_lr", "opponent_grad_norm"),
    *("images_per_s", "data_wait"),
)
"""Terms of a log that tell of the machine or the optimizer, not of the result."""


@dataclass(frozen=True)
class TrainingSection:
    """Charts of one stage: losses first, and readings apart.

    ``values`` are the last values of terms with too few for a chart.
    """

    losses: list[tuple[str, Chart]]
    readings: list[tuple[str, Chart]]
    values: dict[str, str]


@dataclass(frozen=True)
class AxisSection:
    """Metrics along an axis: a table (one row per series), and a chart of three points or more."""

    axis: str
    positions: list[str]
    rows: list[tuple[str, list[str]]]
    chart: Chart | None


def training(stages: Mapping[str, Sequence[CurveRow]]) -> dict[str, TrainingSection]:
    """One panel per stage and term; a loss has the same color in every stage, readings are gray."""
    terms = [term for rows in stages.values() for term in _reading_order(rows)]
    colors = colors_of(term for term in terms if term not in READINGS)
    colors |= dict.fromkeys(READINGS, GRAY)
    sections = {stage: _training(stage, rows, colors) for stage, rows in stages.items()}
    return {
        stage: section
        for stage, section in sections.items()
        if section.losses or section.readings or section.values
    }


def _training(stage: str, rows: Sequence[CurveRow], colors: Mapping[str, str]) -> TrainingSection:
    svgs = loss_panels(rows, colors)
    panels = {
        term: chart(svgs[term], f"{term} of the stage {stage} over steps")
        for term in _reading_order(rows)
        if term in svgs
    }
    return TrainingSection(
        losses=[panel for panel in panels.items() if panel[0] not in READINGS],
        readings=[panel for panel in panels.items() if panel[0] in READINGS],
        values={
            term: _last(rows, term)
            for term in _reading_order(rows)
            if term not in svgs and term not in READINGS
        },
    )


def _reading_order(rows: Sequence[CurveRow]) -> list[str]:
    """The whole loss, its terms, then what is no loss."""
    return sorted(terms_of(rows), key=lambda term: (term != "loss", term in READINGS))


def _last(rows: Sequence[CurveRow], term: str) -> str:
    value, step = next((row[term], row["step"]) for row in reversed(rows) if term in row)
    return f"{readable(value)} at step {step}"


def along(
    metrics: Sequence[MetricFields], axis: Axis, colors: Mapping[str, str]
) -> AxisSection | None:
    """A table and a chart of metrics along one axis, with the ``colors`` of series by label."""
    all_series = series_along(metrics, axis)
    if not all_series:
        return None
    positions = sorted({position for series in all_series for position, _ in series.points})
    rows = []
    for series in all_series:
        decimals = decimals_for(number(metric) for _, metric in series.points)
        values = {at: fixed(number(metric), decimals) for at, metric in series.points}
        rows.append((series.label, [values.get(position, "") for position in positions]))
    lines = [Line(series.label, _finite_points(series)) for series in all_series]
    y_label = ", ".join(dict.fromkeys(str(series.points[0][1]["label"]) for series in all_series))
    return AxisSection(
        axis=axis.label,
        positions=[f"{position:.10g}" for position in positions],
        rows=rows,
        chart=axis_chart(lines, axis, y_label, colors),
    )


def series_colors(metrics: Sequence[MetricFields]) -> dict[str, str]:
    """The color of each series, the same along every axis."""
    axes = (GENERATOR_STEPS, EVALUATIONS)
    return colors_of(series.label for axis in axes for series in series_along(metrics, axis))


def axis_chart(
    lines: Sequence[Line], axis: Axis, y_label: str, colors: Mapping[str, str]
) -> Chart | None:
    """The chart of metrics along an axis; None if no line has three points."""
    if max((len(line.points) for line in lines), default=0) < FEWEST_POINTS:
        return None
    svg = curves(lines, axis.label, y_label, log_x=axis.doubling, colors=colors)
    return chart(svg, f"{y_label} over {axis.label}")


def _finite_points(series: Series) -> list[tuple[float, float, float | None]]:
    return [
        (position, value, metric.get("std"))
        for position, metric in series.points
        if (value := number(metric)) is not None and math.isfinite(value)
    ]
