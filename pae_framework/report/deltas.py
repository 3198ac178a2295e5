"""How the variants of a sweep differ from one of them in each metric. No torch."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from pae_framework.report.comparing import are_comparable
from pae_framework.report.metrics import MetricFields, at_of, fixed, number
from pae_framework.report.table import Column, MemberMetrics, comparison_table


@dataclass(frozen=True)
class Delta:
    """A difference as text, and whether it has the same sign with every one of several seeds."""

    text: str
    consistent: bool = False


@dataclass(frozen=True)
class DeltaRow:
    """One metric: the difference of each other variant to the base."""

    column: Column
    cells: tuple[Delta, ...]


def delta_table(members: Sequence[MemberMetrics], base: str) -> tuple[list[str], list[DeltaRow]]:
    """The other variants, and a row per metric: variant minus base, with the same seed.

    Each cell is the mean over seeds and half the range; a dash where no two values compare. Both
    are empty without results of the base.
    """
    by_variant: dict[str, dict[int, Sequence[MetricFields]]] = {}
    for member in members:
        by_variant.setdefault(member.variant, {})[member.seed] = member.metrics
    if base not in by_variant:
        return [], []
    others = [variant for variant in by_variant if variant != base]
    rows = [
        DeltaRow(
            column,
            tuple(_delta(column, by_variant[base], by_variant[other]) for other in others),
        )
        for column in comparison_table(members)[0]
    ]
    return (others, rows) if others else ([], [])


def _delta(
    column: Column,
    base: Mapping[int, Sequence[MetricFields]],
    other: Mapping[int, Sequence[MetricFields]],
) -> Delta:
    found = list(_differences(column, base, other))
    if not found:
        return Delta(fixed(None, 0))
    decimals, seeds = column.decimals, len({*base, *other})
    mean, half_range = sum(found) / len(found), (max(found) - min(found)) / 2
    text = f"{round(mean, decimals) + 0.0:+.{decimals}f}"  # + 0.0: no -0.000
    if len(found) > 1:
        text += f" ± {fixed(half_range, decimals)}"
    if len(found) < seeds:
        text += f" (n={len(found)})"
    same_sign = min(found) > 0 or max(found) < 0
    return Delta(text, consistent=len(found) > 1 and same_sign)


def _differences(
    column: Column,
    base: Mapping[int, Sequence[MetricFields]],
    other: Mapping[int, Sequence[MetricFields]],
) -> Iterator[float]:
    """The difference with each seed that both have, where the two values compare."""
    for seed in base.keys() & other.keys():
        first, second = _metric(column, base[seed]), _metric(column, other[seed])
        if first is None or second is None:
            continue
        if not are_comparable(first.get("protocol"), second.get("protocol")):
            continue
        values = number(first), number(second)
        if values[0] is not None and values[1] is not None:
            difference = values[1] - values[0]
            if math.isfinite(difference):
                yield difference


def _metric(column: Column, metrics: Sequence[MetricFields]) -> MetricFields | None:
    return next((m for m in metrics if m["name"] == column.name and at_of(m) == column.at), None)
