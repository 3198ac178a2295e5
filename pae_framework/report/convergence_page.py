"""The page that compares the convergence of several runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pae_framework.report import convergence_table as table
from pae_framework.report.convergence import INTERPOLATION, Convergence
from pae_framework.report.metrics import GENERATOR_STEPS, flat
from pae_framework.report.page import Chart, chart, fill
from pae_framework.report.plots import Line, curves


@dataclass(frozen=True)
class _Table:
    heading: Sequence[str]
    rows: Sequence[table.Row]


@dataclass(frozen=True)
class _Section:
    title: str
    chart: Chart
    tables: Sequence[_Table]
    notes: Sequence[str]
    protocols: Sequence[dict[str, str]]


@dataclass(frozen=True)
class _Content:
    name: str
    description: str
    commands: Sequence[str]
    recipe_yaml: str = ""


def render_convergence(
    convergences: Sequence[Convergence], targets: Sequence[float], command: str
) -> str:
    """The page.

    Args:
        convergences: what is drawn, a chart each.
        targets: values whose first step is listed for every run.
        command: what the user typed.
    """
    runs = {curve.run.label: None for found in convergences for curve in found.curves}
    return fill(
        "convergence.html.j2",
        content=_Content("Convergence", f"Runs: {', '.join(runs)}", [command]),
        environment={},
        interpolation=INTERPOLATION,
        sections=[_section(found, targets) for found in convergences],
    )


def _section(found: Convergence, targets: Sequence[float]) -> _Section:
    lines = [
        Line(found.mark(curve), [(step, value, None) for step, value in curve.points])
        for curve in found.curves
    ]
    title = table.title(found)
    svg = curves(lines, GENERATOR_STEPS.label, found.label)
    names = ", ".join(line.label for line in lines)
    tables = [
        _Table(table.CURVES, table.curve_rows(found)),
        _Table(table.SPEEDUPS, table.speedup_rows(found)),
        _Table(table.REACH, table.reach_rows(found, targets)),
    ]
    return _Section(
        title,
        chart(svg, f"{found.label} over {GENERATOR_STEPS.label}: {names}"),
        [one for one in tables if one.rows],
        table.notes(found),
        [flat(protocol) for protocol in found.protocols],
    )
