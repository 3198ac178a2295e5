"""Tables for a terminal (rich) and for documents (Markdown). No torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby
from textwrap import wrap

from rich.text import Text

from pae_framework.report.beside_paper import PaperTable
from pae_framework.report.table import Cell, Column, ResultRow, Row, arrow, table_notes
from pae_framework.report.verdict import Verdict
from pae_framework.system.console import PlainTable

_WIDTH = 80


def results_table(rows: Sequence[ResultRow], title: str | None = None) -> PlainTable:
    """One run's metrics for a terminal."""
    table = PlainTable("metric", "at", Text("value", justify="right"), title=title)
    for _, group in groupby(rows, key=lambda row: row.group):
        for row in group:
            table.add_row(*map(Text, _cells(row)))
        table.add_section()
    return table


def results_markdown(rows: Sequence[ResultRow]) -> str:
    """One run's metrics as a Markdown table."""
    return _markdown(("metric", "at", "value"), [_cells(row) for row in rows], numbers_from=2)


def verdict_lines(verdict: Verdict) -> list[str]:
    """A verdict for a terminal of 80 columns."""
    lines = [verdict.question, *wrap(verdict.sentence, _WIDTH)]
    for found in verdict.diagnoses:
        better = found.higher_is_better
        name = found.label if better is None else f"{found.label} {arrow(better)}"
        title = f"{name} {found.grade}: {found.title}"
        scale = ", ".join(f"{place.label} {place.text}" for place in found.scale)
        reason = found.reason if found.grade == "unclear" else ""
        for text, indent in ((title, "  "), (scale, "    "), (reason, "    ")):
            lines += wrap(text, _WIDTH, initial_indent=indent, subsequent_indent="    ")
    for caveat in verdict.caveats:
        lines += wrap(caveat, _WIDTH, initial_indent="  ", subsequent_indent="  ")
    return lines


def _cells(row: ResultRow) -> tuple[str, str, str]:
    return f"{row.label} {row.arrow}", row.condition, f"{row.value} {row.spread}".rstrip()


def comparison_tables(columns: Sequence[Column], rows: Sequence[Row]) -> list[PlainTable]:
    """A sweep for a terminal: one table per group and axis, because one would be too wide."""
    return [_comparison(columns, rows, chosen) for chosen in _panels(columns)]


def comparison_markdown(columns: Sequence[Column], rows: Sequence[Row]) -> str:
    """A sweep as one wide Markdown table with its notes; clear winners in bold."""
    heading = ("variant", "seeds", *(column.heading for column in columns))
    lines = [(row.variant, _seeds(row), *(_emphasized(cell) for cell in row.cells)) for row in rows]
    notes = [_escape(note) for note in table_notes(columns)]
    return "\n\n".join([_markdown(heading, lines, numbers_from=2), *notes])


def panels_markdown(columns: Sequence[Column], rows: Sequence[Row]) -> list[str]:
    """A sweep as Markdown tables: one for each group of metrics and kind of condition."""
    tables = []
    for chosen in _panels(columns):
        parts = [replace(row, cells=tuple(row.cells[i] for i in chosen)) for row in rows]
        tables.append(comparison_markdown([columns[i] for i in chosen], parts))
    return tables


def paper_markdown(table: PaperTable) -> str:
    """Published values of a sweep's variants beside ours as a Markdown table with its notes."""
    heading = ["variant"]
    for metric in table.metrics:
        name = f"{metric.name} {metric.arrow}".rstrip()
        heading += [f"{name}, paper", f"{metric.name}, {metric.heading}"]
    lines = [(row.variant, *(text for pair in row.cells for text in pair)) for row in table.rows]
    notes = [_escape(note) for note in table.notes]
    return "\n\n".join([_markdown(heading, lines, numbers_from=1), *notes])


def _comparison(
    columns: Sequence[Column], rows: Sequence[Row], chosen: Sequence[int]
) -> PlainTable:
    """The chosen columns; a metric under several conditions is named in the title."""
    shown = [columns[i] for i in chosen]
    series = len({column.label for column in shown}) == 1 and all(c.at for c in shown)
    metric = f": {shown[0].label} {shown[0].arrow}" if series else ""
    named = (column.condition if series else column.heading for column in shown)
    headings = (Text(name, justify="right") for name in named)
    title = Text(shown[0].group_title + metric)
    table = PlainTable("variant", "seeds", *headings, title=title)
    for row in rows:
        cells = (row.cells[i] for i in chosen)
        values = (Text(cell.text, style="bold" if cell.best else "") for cell in cells)
        table.add_row(Text(row.variant), _seeds(row), *values)
    return table


def _panels(columns: Sequence[Column]) -> list[list[int]]:
    """Column indices by group, and within it by what varies (nothing, generator steps, ...)."""
    panels: dict[tuple[str, tuple[str, ...]], list[int]] = {}
    for i, column in enumerate(columns):
        axes = tuple(key for key, _ in column.at)
        panels.setdefault((column.group, axes), []).append(i)
    return list(panels.values())


def _markdown(heading: Sequence[str], lines: Sequence[Sequence[str]], numbers_from: int) -> str:
    rule = ["---:" if i >= numbers_from else "---" for i in range(len(heading))]
    escaped = [[_escape(cell) for cell in line] for line in (heading, *lines)]
    return "\n".join(f"| {' | '.join(line)} |" for line in [escaped[0], rule, *escaped[1:]])


def _escape(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _emphasized(cell: Cell) -> str:
    return f"**{cell.text}**" if cell.best else cell.text


def _seeds(row: Row) -> str:
    return ", ".join(map(str, row.seeds))
