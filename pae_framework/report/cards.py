"""The metrics of a page: the headline table, and a card per metric with its protocol. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pae_framework.report.metrics import (
    MetricFields,
    condition,
    flat,
    headline,
    ordered,
    place_of,
)
from pae_framework.report.table import ResultRow, result_rows


@dataclass(frozen=True)
class Card:
    """One metric with its protocol: what its values share, and a table of where they differ."""

    main: ResultRow
    shared: dict[str, str]
    heading: list[str]
    points: list[list[str]]


def results(metrics: Sequence[MetricFields]) -> dict[str, list[ResultRow]]:
    """The headline metrics, by group."""
    groups: dict[str, list[ResultRow]] = {}
    for row in result_rows(headline(metrics)):
        groups.setdefault(row.group, []).append(row)
    return groups


def cards(metrics: Sequence[MetricFields]) -> list[Card]:
    """One card per name, with the protocol of every value under it."""
    by_name: dict[str, list[MetricFields]] = {}
    for metric in ordered(metrics):
        by_name.setdefault(str(metric["name"]), []).append(metric)
    return [_card(found) for found in by_name.values()]


def _card(metrics: list[MetricFields]) -> Card:
    main = result_rows(headline(metrics))[0]
    protocols = [flat(metric.get("protocol") or {}) for metric in metrics]
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
        [condition(place_of(metric)), f"{row.value} {row.spread}".rstrip()]
        + [protocol.get(key, "") for key in differing]
        for metric, row, protocol in zip(metrics, result_rows(metrics), protocols, strict=True)
    ]
    return Card(main, shared, ["at", main.label, *differing], points)
