"""Metrics of several runs side by side: only comparable values share a line. No torch."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pae_framework.report.comparing import (
    NOT_STATED,
    basis,
    cautions_of_means,
    comparable_groups,
    differences,
    seed_differences,
    why_not,
)
from pae_framework.report.metrics import (
    At,
    MetricFields,
    at_of,
    condition,
    decimals_for,
    fixed,
    group_of,
    is_reference,
    number,
    ordered,
)
from pae_framework.report.table import arrow

_LAST = ("weights", "last")
"""In place of the generator step of the last weights: runs of other lengths are compared."""

Place = tuple[str, str, At]
"""Group, label, and what varies: values of one place share a line if they are comparable."""


@dataclass(frozen=True)
class Compared:
    """One column: the metrics of a run, or of runs that differ only by their seeds, by run."""

    name: str
    runs: Mapping[str, Sequence[MetricFields]]


@dataclass(frozen=True)
class Value:
    """A metric of one run."""

    run: str
    metric: MetricFields

    @property
    def protocol(self) -> dict[str, Any]:
        """Its protocol and name; empty if it has no protocol."""
        stated = self.metric.get("protocol") or {}
        return {"metric": self.metric["name"], **stated} if basis(stated) else {}


@dataclass(frozen=True)
class SideCell:
    """The values of a column in a line: all of them, their mean, and half their range."""

    values: tuple[Value, ...]
    text: str

    @property
    def numbers(self) -> list[float]:
        """The values that are numbers."""
        found = (number(value.metric) for value in self.values)
        return [x for x in found if x is not None]

    @property
    def mean(self) -> float | None:
        """Mean over the runs; None if no value is known."""
        return sum(self.numbers) / len(self.numbers) if self.numbers else None


@dataclass(frozen=True)
class Line:
    """Comparable values of a metric.

    Args:
        group: the name before the slash.
        label: a short heading.
        at: what varies, in words.
        higher_is_better: whether a larger value is better.
        mark: number of the line among those with this heading that do not compare; None if it is
            the only one.
        cells: of each column; None if it has no value.
        seeds: that differ between columns, in words.
    """

    group: str
    label: str
    at: str
    higher_is_better: bool
    mark: int | None
    cells: tuple[SideCell | None, ...]
    seeds: str

    @property
    def heading(self) -> str:
        """Label, direction and mark."""
        mark = "" if self.mark is None else f" [{self.mark}]"
        return f"{self.label} {arrow(self.higher_is_better)}{mark}"


@dataclass(frozen=True)
class Reason:
    """Why lines of one heading do not compare: values of each line, in order, by key.

    A key with its values, or a phrase, is in one reason only, with all headings that have it.

    Args:
        headings: all that have this reason.
        differs: keys of the protocol.
        words: what is wrong with some of these keys, in words.
        others: the keys that ``words`` does not speak of.
    """

    headings: tuple[str, ...]
    differs: Mapping[str, Sequence[str]]
    words: Sequence[str]
    others: Mapping[str, Sequence[str]]

    @property
    def shown(self) -> bool:
        """Whether it says more than the phrases of another one."""
        return bool(self.words or self.others)


def side_by_side(columns: Sequence[Compared]) -> tuple[list[Line], list[Reason]]:
    """The lines in reading order, and why lines with the same heading are several.

    Metrics of references, to which a run is compared, have no line.
    """
    places: dict[Place, dict[int, list[Value]]] = {}
    for index, column in enumerate(columns):
        for run, metrics in column.runs.items():
            for place, metric in _placed(metrics):
                values = places.setdefault(place, {}).setdefault(index, [])
                values.append(Value(run, metric))
    lines: list[Line] = []
    apart: list[Reason] = []
    for place in _in_reading_order(places):
        shared = comparable_groups(places[place], lambda value: value.protocol)
        lines += _lines(place, shared, len(columns))
        if len(shared) > 1:
            protocols = [
                [value.protocol for part in line.values() for value in part] for line in shared
            ]
            found = differences(protocols) or {"protocol": [NOT_STATED] * len(shared)}
            words, others = why_not(protocols)
            heading = _named(place[1], condition(place[2]))
            apart.append(Reason((heading,), found, words, others if words else found))
    return lines, _each_once(apart)


Fact = tuple[str | None, tuple[str, ...], bool]
"""A key, or None for a phrase; the texts; whether phrases speak of the key."""


def _each_once(reasons: Sequence[Reason]) -> list[Reason]:
    """The same facts, each in one reason with all headings that have it."""
    places: dict[Fact, list[str]] = {}
    for reason in reasons:
        for fact in _facts(reason):
            places.setdefault(fact, []).extend(reason.headings)
    shared: dict[tuple[str, ...], list[Fact]] = {}
    for fact, headings in places.items():
        shared.setdefault(tuple(dict.fromkeys(headings)), []).append(fact)
    return [_reason(headings, facts) for headings, facts in shared.items()]


def _facts(reason: Reason) -> Iterator[Fact]:
    yield from ((None, (words,), False) for words in reason.words)
    for key, texts in reason.differs.items():
        yield key, tuple(texts), key not in reason.others


def _reason(headings: tuple[str, ...], facts: Sequence[Fact]) -> Reason:
    words = [text for key, texts, _ in facts if key is None for text in texts]
    differs = {key: list(texts) for key, texts, _ in facts if key is not None}
    others = {key: list(texts) for key, texts, told in facts if key is not None and not told}
    return Reason(headings, differs, words, others)


def cautions(lines: Sequence[Line]) -> list[str]:
    """Means over runs whose values do not compare with each other, in words."""
    headings: dict[str, list[str]] = {}
    for line in lines:
        cells = [cell.values for cell in line.cells if cell is not None]
        for text in cautions_of_means([value.protocol for value in values] for values in cells):
            headings.setdefault(text, []).append(_named(line.label, line.at))
    return [f"{'; '.join(dict.fromkeys(found))}: {text}" for text, found in headings.items()]


def _named(label: str, at: str) -> str:
    return f"{label}, {at}" if at else label


def _placed(metrics: Sequence[MetricFields]) -> Iterator[tuple[Place, MetricFields]]:
    """Metrics with their places; those of the last weights of each name share one."""
    last: dict[str, float] = {}
    metrics = [metric for metric in metrics if not is_reference(metric)]
    for metric in metrics:
        step = dict(at_of(metric)).get("generator_step")
        if isinstance(step, int | float):
            name = str(metric["name"])
            last[name] = max(step, last.get(name, -math.inf))
    for metric in metrics:
        at = dict(at_of(metric))
        if "generator_step" in at and at["generator_step"] == last.get(str(metric["name"])):
            del at["generator_step"]
            at |= dict([_LAST])
        yield (group_of(metric), str(metric["label"]), tuple(sorted(at.items()))), metric


def _in_reading_order(places: Mapping[Place, Mapping[int, list[Value]]]) -> list[Place]:
    first = {
        place: {**next(iter(columns.values()))[0].metric, "at": dict(place[2])}
        for place, columns in places.items()
    }
    order = {id(metric): i for i, metric in enumerate(ordered(first.values()))}
    return sorted(places, key=lambda place: order[id(first[place])])


def _lines(place: Place, shared: Sequence[dict[int, list[Value]]], columns: int) -> Iterator[Line]:
    group, label, at = place
    for mark, parts in enumerate(shared, start=1):
        values = [value for part in parts.values() for value in part]
        decimals = decimals_for(number(value.metric) for value in values)
        higher = bool(values[0].metric["higher_is_better"])
        protocols = [[value.protocol for value in part] for part in parts.values()]
        seeds = seed_differences(protocols)
        yield Line(
            group,
            label,
            condition(at),
            higher,
            mark if len(shared) > 1 else None,
            tuple(
                _cell(parts[index], decimals, higher) if index in parts else None
                for index in range(columns)
            ),
            "; ".join(f"{key} {' | '.join(texts)}" for key, texts in seeds.items()),
        )


def _cell(values: Sequence[Value], decimals: int, higher: bool) -> SideCell:
    cell = SideCell(tuple(values), "")
    text = fixed(cell.mean, decimals)
    if (count := len(cell.numbers)) > 1:
        half_range = (max(cell.numbers) - min(cell.numbers)) / 2
        best = f"max {fixed(max(cell.numbers), decimals)}"
        if not higher:
            best = f"min {fixed(min(cell.numbers), decimals)}"
        text += f" ± {fixed(half_range, decimals)} (n={count}, {best})"
    return SideCell(tuple(values), text)
