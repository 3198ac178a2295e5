"""Published values of a sweep's variants beside the results of its members. No torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pae_framework.report.metrics import at_of, fixed, headline, is_reference
from pae_framework.report.table import (
    Cell,
    Column,
    MemberMetrics,
    Row,
    comparison_table,
    table_notes,
)

NOT_RUN = "not run"
_ALIKE = {"gFID": ("FID", "gFID", "gFD"), "rFID": ("rFID", "rFD")}
"""Labels of our metrics that stand beside a published one of another name, the closest first."""


@dataclass(frozen=True)
class PaperMetric:
    """A published metric and our column beside it; None: not measured."""

    name: str
    column: Column | None

    @property
    def ours(self) -> str | None:
        """The label of ours."""
        return None if self.column is None else self.column.label

    @property
    def arrow(self) -> str:
        """The better direction; empty if not measured."""
        return "" if self.column is None else self.column.arrow

    @property
    def heading(self) -> str:
        """What stands over our values: ``ours``, with the metric if it is another."""
        if self.ours is None:
            return "ours (none)"
        return "ours" if self.ours == self.name else f"ours ({self.ours})"


@dataclass(frozen=True)
class PaperRow:
    """A variant: for each metric the published value and ours, as text."""

    variant: str
    cells: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class PaperTable:
    """Published values with their source, beside ours."""

    source: str
    metrics: tuple[PaperMetric, ...]
    rows: tuple[PaperRow, ...]

    @property
    def notes(self) -> list[str]:
        """What a reader has to know: the source, how ours are measured, and what compares."""
        measured = [each for each in self.metrics if each.column is not None]
        others = [f"{x.ours} instead of {x.name}" for x in measured if x.ours != x.name]
        text = (
            f"Paper: {self.source}. Ours: mean over seeds ± half their range, by the protocols of "
            "this sweep. Values compare only if images, networks and protocol are the paper's; "
            "otherwise only the order of the variants does."
        )
        if others:
            text += f" Ours is another metric: {', '.join(others)}."
        text += " A dash: not published or not measured."
        columns = [each.column for each in measured if each.column is not None]
        at = [f"Ours is {x.label} at {x.condition}." for x in columns if x.at]
        return [" ".join([text, *at]), *table_notes(columns)]


def paper_table(
    source: str,
    values: Mapping[str, Mapping[str, float]],
    variants: Sequence[str],
    members: Sequence[MemberMetrics],
) -> PaperTable:
    """A row for every variant, finished or not, and a column for every published metric.

    Args:
        source: of the published values.
        values: published values by variant and metric.
        variants: of the sweep.
        members: finished members.
    """
    columns, rows = comparison_table(members)
    cells = {row.variant: row.cells for row in rows}
    names = dict.fromkeys(name for published in values.values() for name in published)
    beside = {name: _closest(name, columns, rows, members) for name in names}
    decimals = {
        name: max(_decimals(published[name]) for published in values.values() if name in published)
        for name in names
    }

    def pair(name: str, variant: str) -> tuple[str, str]:
        published = fixed(values.get(variant, {}).get(name), decimals[name])
        return published, _ours(cells.get(variant), beside[name])

    return PaperTable(
        source,
        tuple(PaperMetric(name, None if i is None else columns[i]) for name, i in beside.items()),
        tuple(PaperRow(each, tuple(pair(name, each) for name in names)) for each in variants),
    )


def _closest(
    name: str, columns: Sequence[Column], rows: Sequence[Row], members: Sequence[MemberMetrics]
) -> int | None:
    """Index of the column that stands beside a published metric.

    Of the columns that most of the finished variants have, it is the closest.
    """
    labels = _ALIKE.get(name, (name,))
    counts = {
        i: sum(row.cells[i].count > 0 for row in rows)
        for i, column in enumerate(columns)
        if column.label in labels
    }
    most = max((1, *counts.values()))
    shared = {(columns[i].name, columns[i].at): i for i, count in counts.items() if count == most}
    metrics = (m for member in members for m in member.metrics if not is_reference(m))
    leading = headline([m for m in metrics if (str(m["name"]), at_of(m)) in shared])
    found = [shared[str(m["name"]), at_of(m)] for m in leading]
    return min(found, key=lambda i: labels.index(columns[i].label), default=None)


def _ours(cells: Sequence[Cell] | None, column: int | None) -> str:
    if cells is None:
        return NOT_RUN
    return fixed(None, 0) if column is None else cells[column].text


def _decimals(value: float) -> int:
    """Decimals of a number as it is written, such as 2 of 1.86."""
    return len(f"{value:.6f}".rstrip("0").partition(".")[2])
