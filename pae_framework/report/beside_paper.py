"""Published values of a sweep's variants beside the results of its members. No torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pae_framework.report.metrics import at_of, fixed, headline, is_reference
from pae_framework.report.table import Cell, Column, MemberMetrics, comparison_table

NOT_RUN = "not run"
_ALIKE = {"gFID": ("FID", "gFID", "gFD"), "rFID": ("rFID", "rFD")}
"""Labels of our metrics that stand beside a published one of another name, the closest first."""


@dataclass(frozen=True)
class PaperMetric:
    """A published metric, the label of ours beside it (None: not measured), and its direction."""

    name: str
    ours: str | None
    arrow: str


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
    def others(self) -> list[str]:
        """Which of our metrics are not the published ones, such as ``gFD instead of gFID``."""
        pairs = ((each.name, each.ours) for each in self.metrics)
        return [f"{ours} instead of {name}" for name, ours in pairs if ours not in (None, name)]


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
    beside = {name: _closest(name, columns, members) for name in names}
    decimals = {
        name: max(_decimals(published[name]) for published in values.values() if name in published)
        for name in names
    }

    def pair(name: str, variant: str) -> tuple[str, str]:
        published = fixed(values.get(variant, {}).get(name), decimals[name])
        return published, _ours(cells.get(variant), beside[name])

    return PaperTable(
        source,
        tuple(
            PaperMetric(name, None, "")
            if index is None
            else PaperMetric(name, columns[index].label, columns[index].arrow)
            for name, index in beside.items()
        ),
        tuple(PaperRow(each, tuple(pair(name, each) for name in names)) for each in variants),
    )


def _closest(name: str, columns: Sequence[Column], members: Sequence[MemberMetrics]) -> int | None:
    """Index of the column that stands beside a published metric."""
    metrics = [m for member in members for m in member.metrics if not is_reference(m)]
    leading = {(str(m["name"]), at_of(m)) for m in headline(metrics)}
    for label in _ALIKE.get(name, (name,)):
        for i, column in enumerate(columns):
            if column.label == label and (column.name, column.at) in leading:
                return i
    return None


def _ours(cells: Sequence[Cell] | None, column: int | None) -> str:
    if cells is None:
        return NOT_RUN
    return fixed(None, 0) if column is None else cells[column].text


def _decimals(value: float) -> int:
    """Decimals of a number as it is written, such as 2 of 1.86."""
    return len(f"{value:.6f}".rstrip("0").partition(".")[2])
