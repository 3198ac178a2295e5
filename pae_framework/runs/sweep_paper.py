"""The values that a paper publishes for a sweep, beside the results of its members. No torch."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from pae_framework.recipe.loaded import LoadedRecipe
from pae_framework.report.beside_paper import PaperTable, paper_table
from pae_framework.report.metrics import MetricFields
from pae_framework.report.table import MemberMetrics


def beside_paper(loaded: LoadedRecipe, members: Sequence[MemberMetrics]) -> PaperTable | None:
    """The table of a sweep's ``paper``; None if the recipe states no published values."""
    sweep = loaded.recipe.sweep
    if sweep is None or sweep.paper is None:
        return None
    found = _comparing_samplings(members, sweep.variants)
    return paper_table(sweep.paper.source, sweep.paper.values, list(sweep.variants), found)


def _comparing_samplings(
    members: Sequence[MemberMetrics], variants: Mapping[str, Mapping[str, Any]]
) -> list[MemberMetrics]:
    """The members without the settings of ``sample`` in which variants differ on purpose.

    Values of other protocols do not compare, but here the protocol is what is compared.
    """
    paths = {tuple(key.split(".")) for overrides in variants.values() for key in overrides}
    compared = {key for path in paths if path[0] == "sample" for key in path[1:]}
    return [
        replace(member, metrics=[_without(metric, compared) for metric in member.metrics])
        for member in members
    ]


def _without(metric: MetricFields, keys: Collection[str]) -> MetricFields:
    protocol = {key: x for key, x in (metric.get("protocol") or {}).items() if key not in keys}
    return {**metric, "protocol": protocol}
