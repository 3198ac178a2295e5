"""The curves of a page: training logs, and metrics along an axis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pae_framework.report.content import CurveRow
from pae_framework.report.metrics import (
    Axis,
    MetricFields,
    Series,
    decimals_for,
    fixed,
    number,
    series_along,
)
from pae_framework.report.page import Chart, chart
from pae_framework.report.plots import Line, curves, loss_panels


@dataclass(frozen=True)
class AxisSection:
    """Charts along an axis: a table (one row per series) and a chart."""

    axis: str
    positions: list[str]
    rows: list[tuple[str, list[str]]]
    chart: Chart


def training(stages: Mapping[str, Sequence[CurveRow]]) -> dict[str, list[tuple[str, Chart]]]:
    """One panel per stage and term."""
    panels = {
        stage: [
            (term, chart(svg, f"{term} of the stage {stage} over steps"))
            for term, svg in loss_panels(rows).items()
        ]
        for stage, rows in stages.items()
    }
    return {stage: charts for stage, charts in panels.items() if charts}


def along(metrics: Sequence[MetricFields], axis: Axis) -> AxisSection | None:
    """A table and a chart of metrics along one axis."""
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
    return AxisSection(
        axis=axis.label,
        positions=[f"{position:.10g}" for position in positions],
        rows=rows,
        chart=axis_chart(lines, axis, all_series[0].label if len(all_series) == 1 else ""),
    )


def axis_chart(lines: Sequence[Line], axis: Axis, y_label: str) -> Chart:
    """The chart of metrics along an axis."""
    svg = curves(lines, axis.label, y_label, log_x=axis.doubling)
    return chart(svg, f"{y_label or ', '.join(line.label for line in lines)} over {axis.label}")


def _finite_points(series: Series) -> list[tuple[float, float, float | None]]:
    return [
        (position, value, metric.get("std"))
        for position, metric in series.points
        if (value := number(metric)) is not None
    ]
