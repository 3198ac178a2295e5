"""Published values of a sweep's recipe beside its members."""

from __future__ import annotations

from pae_framework.recipe.load import load_recipe
from pae_framework.report.table import MemberMetrics
from pae_framework.runs.sweep_paper import beside_paper

GSQ = {"name": "manifold/gsq", "label": "GSQ", "value": 0.6, "higher_is_better": True, "at": {}}


def test_the_values_are_those_of_the_recipe() -> None:
    found = beside_paper(load_recipe("paper/table2a"), [MemberMetrics("scr", 0, [GSQ])])
    assert found is not None
    column = [metric.name for metric in found.metrics].index("GSQ")
    assert {row.variant: row.cells[column] for row in found.rows}["scr"] == ("0.39", "0.600")


def test_a_recipe_without_published_values_has_no_table() -> None:
    assert beside_paper(load_recipe("quickstart"), [MemberMetrics("all", 0, [GSQ])]) is None
