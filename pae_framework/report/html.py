"""One self-contained HTML page, without scripts and requests; for light and dark screens."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from pae_framework.report import charts, gallery
from pae_framework.report.colors import latent_colors
from pae_framework.report.content import ReportContent, SweepContent
from pae_framework.report.deltas import delta_table
from pae_framework.report.metrics import EVALUATIONS, GENERATOR_STEPS, At, Axis, flat
from pae_framework.report.page import Chart, fill
from pae_framework.report.plots import Line, colors_of
from pae_framework.report.table import (
    Column,
    Row,
    comparison_table,
    metric_cards,
    results_by_group,
    table_notes,
)


def render(content: ReportContent) -> str:
    """The page of one run."""
    colors = charts.series_colors(content.metrics)
    return fill(
        "run.html.j2",
        content=content,
        results=results_by_group(content.metrics),
        seconds=sum(stage.seconds for stage in content.stages),
        samples=gallery.samples(content.samples, content.class_names),
        same_noise=_same_noise(content),
        nearest=gallery.nearest(content.nearest),
        reconstructions=gallery.reconstructions(content.originals, content.reconstructions),
        latents=gallery.latents(content.latents, content.latent_images),
        clusters=gallery.clusters(content.clusters),
        rotations=gallery.rotations(content.rotations),
        training=charts.training(content.curves),
        convergence=charts.along(content.metrics, GENERATOR_STEPS, colors),
        few_steps=charts.along(content.metrics, EVALUATIONS, colors),
        cards=metric_cards(content.metrics),
        environment=flat(content.environment),
    )


def _same_noise(content: ReportContent) -> dict[str, list[gallery.Strip]]:
    strips = {
        varied: gallery.same_noise(sets, content.class_names, varied)
        for varied, sets in content.same_noise.items()
    }
    return {varied: rows for varied, rows in strips.items() if rows}


def render_sweep(content: SweepContent) -> str:
    """The page that compares a sweep's variants."""
    columns, rows = comparison_table(content.members)
    strips = {
        variant: gallery.sample_strip(images, content.class_names, f"samples of {variant}")
        for variant, images in content.samples.items()
    }
    others, deltas = delta_table(content.members, content.base)
    return fill(
        "sweep.html.j2",
        content=content,
        others=others,
        deltas=deltas,
        reconstructions=gallery.variant_rows(
            content.shown, "reconstructions", lambda found: found.reconstructions
        ),
        latents=gallery.variant_rows(
            content.shown, "latents", lambda found: latent_colors(found.latents)
        ),
        columns=columns,
        groups=[(title, list(group)) for title, group in groupby(columns, lambda c: c.group_title)],
        rows=rows,
        notes=table_notes(columns),
        charts=_charts(columns, rows, GENERATOR_STEPS) + _charts(columns, rows, EVALUATIONS),
        classes=next(
            (gallery.strip_classes(x, content.class_names) for x in content.samples.values()), []
        ),
        strips_by_variant={variant: strip for variant, strip in strips.items() if strip},
        environment=flat(content.environment),
    )


def _charts(columns: Sequence[Column], rows: Sequence[Row], axis: Axis) -> list[Chart]:
    """One chart per metric that was measured along ``axis``, with a line per variant."""
    names: dict[tuple[str, At, str], list[tuple[float, int]]] = {}
    for i, column in enumerate(columns):
        position = axis.position(column.at)
        if position is not None:
            key = column.name, axis.others(column.at), column.label
            names.setdefault(key, []).append((position, i))
    colors = colors_of(row.variant for row in rows)
    found = []
    for (_, _, label), points in names.items():
        lines = [line for row in rows if (line := _line(row, points)).points]
        found.append(charts.axis_chart(lines, axis, label, colors))
    return [chart for chart in found if chart]


def _line(row: Row, points: Sequence[tuple[float, int]]) -> Line:
    measured = [
        (position, mean, row.cells[i].half_range)
        for position, i in sorted(points)
        if (mean := row.cells[i].mean) is not None
    ]
    return Line(row.variant, measured)
