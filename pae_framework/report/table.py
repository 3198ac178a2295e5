"""Tables of metrics: results of a run, a card per metric, variants of a sweep. No torch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pae_framework.report.comparing import (
    cautions_of_means,
    comparable_groups,
    in_words,
)
from pae_framework.report.metrics import (
    At,
    MetricFields,
    at_of,
    condition,
    decimals_for,
    fixed,
    flat,
    group_of,
    group_title,
    headline,
    is_reference,
    number,
    ordered,
)


def arrow(higher_is_better: bool) -> str:
    """The better direction as an arrow."""
    return "↑" if higher_is_better else "↓"


@dataclass(frozen=True)
class ResultRow:
    """One metric of one run, as text. ``spread`` is its standard deviation over draws, or empty."""

    group: str
    name: str
    label: str
    condition: str
    value: str
    spread: str
    higher_is_better: bool

    @property
    def arrow(self) -> str:
        """The better direction."""
        return arrow(self.higher_is_better)


def result_rows(metrics: Sequence[MetricFields]) -> list[ResultRow]:
    """All metrics of a run without those of references, in reading order."""
    return _rows([metric for metric in metrics if not is_reference(metric)])


def _rows(metrics: Sequence[MetricFields]) -> list[ResultRow]:
    rows = []
    for metric in ordered(metrics):
        std = metric.get("std")
        decimals = decimals_for([number(metric)])
        rows.append(
            ResultRow(
                group=group_of(metric),
                name=str(metric["name"]),
                label=str(metric["label"]),
                condition=condition(at_of(metric)),
                value=fixed(number(metric), decimals),
                spread="" if std is None else f"± {fixed(float(std), decimals)}",
                higher_is_better=bool(metric["higher_is_better"]),
            )
        )
    return rows


@dataclass(frozen=True)
class Card:
    """One metric with its protocol: the shared entries, and a table of those that differ."""

    main: ResultRow
    shared: dict[str, str]
    heading: list[str]
    points: list[list[str]]


def results_by_group(metrics: Sequence[MetricFields]) -> dict[str, list[ResultRow]]:
    """One value per metric name and variant of the samples, by group."""
    shown = headline(metrics)
    variants = dict.fromkeys(dict(at_of(metric)).get("samples") for metric in metrics)
    for label in filter(None, variants):
        own = headline([m for m in metrics if dict(at_of(m)).get("samples") == label])
        shown += [metric for metric in own if metric not in shown]
    groups: dict[str, list[ResultRow]] = {}
    for row in result_rows(ordered(shown)):
        groups.setdefault(row.group, []).append(row)
    return groups


def metric_cards(metrics: Sequence[MetricFields]) -> list[Card]:
    """One card per metric name, with the protocols of its values."""
    by_name: dict[str, list[MetricFields]] = {}
    for metric in ordered(metrics):
        by_name.setdefault(str(metric["name"]), []).append(metric)
    return [_card(same_name) for same_name in by_name.values()]


def _card(metrics: list[MetricFields]) -> Card:
    main = _rows(headline(metrics))[0]
    protocols = [_measurement(metric) for metric in metrics]
    keys = list(dict.fromkeys(key for protocol in protocols for key in protocol))
    shared = {
        key: protocols[0][key]
        for key in keys
        if len({protocol.get(key) for protocol in protocols}) == 1
    }
    if len(metrics) == 1:
        return Card(main, shared, [], [])
    differing = [key for key in keys if key not in shared]
    points = [
        [condition(at_of(metric)), f"{row.value} {row.spread}".rstrip()]
        + [protocol.get(key, "") for key in differing]
        for metric, row, protocol in zip(metrics, _rows(metrics), protocols, strict=True)
    ]
    return Card(main, shared, ["at", main.label, *differing], points)


def _measurement(metric: MetricFields) -> dict[str, str]:
    """What was measured, and how."""
    subject = flat(metric.get("subject") or {}, "subject.")
    return subject | flat(metric.get("protocol") or {})


@dataclass(frozen=True)
class MemberMetrics:
    """One run of a sweep: a variant with a seed."""

    variant: str
    seed: int
    metrics: Sequence[MetricFields]


def sweep_members(results: Sequence[Mapping[str, Any]]) -> list[MemberMetrics]:
    """The members in a sweep's ``results.json``."""
    return [MemberMetrics(entry["variant"], entry["seed"], entry["metrics"]) for entry in results]


@dataclass(frozen=True)
class Column:
    """One metric under one condition, over all variants.

    ``notes`` tell in what values with different numbers in brackets differ, and which means are of
    values that do not compare.
    """

    name: str
    label: str
    at: At
    higher_is_better: bool
    decimals: int
    notes: tuple[str, ...] = ()

    @property
    def group(self) -> str:
        """The name before the slash."""
        return self.name.partition("/")[0]

    @property
    def group_title(self) -> str:
        """The group as a heading."""
        return group_title(self.group)

    @property
    def condition(self) -> str:
        """``at`` in words; empty if nothing varies."""
        return condition(self.at)

    @property
    def arrow(self) -> str:
        """The better direction."""
        return arrow(self.higher_is_better)

    @property
    def heading(self) -> str:
        """Label, direction and condition in one line."""
        return f"{self.label} {self.arrow}" + (f", {self.condition}" if self.at else "")


@dataclass(frozen=True)
class Cell:
    """Mean over ``count`` seeds and half their range (None for one seed).

    If not all values of the column are comparable, ``spread`` ends with the number of those that
    are comparable with this one, such as ``[2]``. If those of the variant are not, there is no
    mean, and ``value`` lists them. ``best``: every variant has at least two seeds, all values are
    comparable, and no other variant's range overlaps with this one.
    """

    mean: float | None
    half_range: float | None
    count: int
    value: str
    spread: str = ""
    best: bool = False

    @property
    def text(self) -> str:
        """``1.873 ± 0.021``, with ``(n=1)`` where some seeds of the variant lack the metric."""
        return f"{self.value} {self.spread}".rstrip()


@dataclass(frozen=True)
class Row:
    """One variant: its seeds and a cell per column."""

    variant: str
    seeds: tuple[int, ...]
    cells: tuple[Cell, ...]


def comparison_table(members: Sequence[MemberMetrics]) -> tuple[list[Column], list[Row]]:
    """Mean and half range over seeds; variants in the given order, metrics in reading order."""
    by_variant: dict[str, list[MemberMetrics]] = {}
    for member in members:
        by_variant.setdefault(member.variant, []).append(member)
    variants = list(by_variant.values())
    filled = [_filled(column, variants) for column in _columns(members)]
    rows = [
        Row(variant, tuple(member.seed for member in group), tuple(cells[i] for _, cells in filled))
        for i, (variant, group) in enumerate(by_variant.items())
    ]
    return [column for column, _ in filled], rows


def table_notes(columns: Sequence[Column]) -> list[str]:
    """The notes of all columns, each once, after the headings of its columns."""
    headings: dict[str, list[str]] = {}
    for column in columns:
        for note in column.notes:
            headings.setdefault(note, []).append(column.heading)
    return [f"{'; '.join(found)}: {note}" for note, found in headings.items()]


def _columns(members: Sequence[MemberMetrics]) -> list[Column]:
    columns: dict[tuple[str, At], list[MetricFields]] = {}
    found = (metric for member in members for metric in member.metrics)
    for metric in ordered(metric for metric in found if not is_reference(metric)):
        columns.setdefault((str(metric["name"]), at_of(metric)), []).append(metric)
    return [
        Column(
            name=name,
            label=str(metrics[0]["label"]),
            at=at,
            higher_is_better=bool(metrics[0]["higher_is_better"]),
            decimals=decimals_for(map(number, metrics)),
        )
        for (name, at), metrics in columns.items()
    ]


def _filled(
    column: Column, variants: Sequence[Sequence[MemberMetrics]]
) -> tuple[Column, list[Cell]]:
    """A column with its notes, and its cells."""
    found = [_measured(column, group) for group in variants]
    groups = comparable_groups(dict(enumerate(found)), _protocol)
    if len(groups) < 2:
        values = [_numbers(metrics) for metrics in found]
        best = _best(values, column.higher_is_better)
        cells = [
            _cell(numbers, len(group), column.decimals, best == i)
            for i, (numbers, group) in enumerate(zip(values, variants, strict=True))
        ]
    else:
        cells = [
            _marked_cell(
                {mark: _numbers(part[i]) for mark, part in enumerate(groups, 1) if part.get(i)},
                len(group),
                column.decimals,
            )
            for i, group in enumerate(variants)
        ]
    return replace(column, notes=tuple(_notes(groups))), cells


def _measured(column: Column, group: Sequence[MemberMetrics]) -> list[MetricFields]:
    """The metrics of a column in the runs of a variant, if they have a value."""
    return [
        metric
        for member in group
        for metric in member.metrics
        if metric["name"] == column.name and at_of(metric) == column.at
        if number(metric) is not None
    ]


def _protocol(metric: MetricFields) -> Mapping[str, Any]:
    return metric.get("protocol") or {}


def _numbers(metrics: Sequence[MetricFields]) -> list[float]:
    return [value for metric in metrics if (value := number(metric)) is not None]


def _marked_cell(parts: Mapping[int, list[float]], seeds: int, decimals: int) -> Cell:
    """The cell of a variant in a column whose values are not all comparable.

    Args:
        parts: its values, by the number of those that they are comparable with.
        seeds: number of its runs.
        decimals: of each value.
    """
    cells = {mark: _cell(values, seeds, decimals, best=False) for mark, values in parts.items()}
    if len(cells) == 1:
        ((mark, cell),) = cells.items()
        return replace(cell, spread=f"{cell.spread} [{mark}]".lstrip())
    if not cells:
        return _cell([], seeds, decimals, best=False)
    text = "; ".join(f"{cell.text} [{mark}]" for mark, cell in cells.items())
    return Cell(None, None, sum(cell.count for cell in cells.values()), text)


def _notes(groups: Sequence[Mapping[int, Sequence[MetricFields]]]) -> list[str]:
    """In what values of several groups differ, and what is wrong with means of one.

    Args:
        groups: comparable metrics by the number of their variant.
    """
    means = [[_protocol(x) for x in part] for group in groups for part in group.values()]
    notes = cautions_of_means(means)
    if len(groups) > 1:
        columns = [[_protocol(x) for part in group.values() for x in part] for group in groups]
        notes.append(f"values with different numbers do not compare: {in_words(columns)}")
    return notes


def _cell(values: list[float], seeds: int, decimals: int, best: bool) -> Cell:
    if not values:
        return Cell(None, None, 0, fixed(None, 0))
    mean = sum(values) / len(values)
    half_range = (max(values) - min(values)) / 2 if len(values) > 1 else None
    spread = "" if half_range is None else f"± {fixed(half_range, decimals)}"
    if len(values) != seeds:
        spread = f"{spread} (n={len(values)})".lstrip()
    return Cell(mean, half_range, len(values), fixed(mean, decimals), spread, best)


def _best(variants: list[list[float]], higher: bool) -> int | None:
    """Index of the variant whose worst value beats the best value of all others, or None."""
    signed = [[value if higher else -value for value in values] for values in variants]
    if len(signed) < 2 or any(len(values) < 2 for values in signed):
        return None
    if not all(math.isfinite(value) for values in signed for value in values):
        return None
    leader = max(range(len(signed)), key=lambda i: min(signed[i]))
    others = (max(values) for i, values in enumerate(signed) if i != leader)
    return leader if all(min(signed[leader]) > other for other in others) else None
