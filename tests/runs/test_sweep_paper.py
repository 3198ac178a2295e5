"""Published values of a sweep's recipe beside its members, which may differ in their sampling."""

from __future__ import annotations

from typing import Any

import pytest

from pae_framework.recipe.load import load_recipe
from pae_framework.report.table import MemberMetrics
from pae_framework.runs.sweep_paper import beside_paper


def member(variant: str, value: float, **protocol: Any) -> MemberMetrics:
    metric = {"name": "adm/fid", "label": "FID", "value": value, "higher_is_better": False}
    return MemberMetrics(variant, 0, [{**metric, "at": {}, "protocol": protocol}])


@pytest.mark.parametrize(
    ("counts", "ours"),
    [((50000, 50000), ("4.100", "3.600")), ((50000, 10000), ("4.100 [1]", "3.600 [2]"))],
)
def test_the_sampling_steps_that_a_sweep_compares_are_no_other_protocol(
    counts: tuple[int, int], ours: tuple[str, str]
) -> None:
    """Variants of Table 6 differ in their steps; another number of samples does not compare."""
    found = beside_paper(
        load_recipe("paper/table6"),
        [
            member("points10", 4.1, steps=9, count=counts[0]),
            member("points15", 3.6, steps=14, count=counts[1]),
        ],
    )
    assert found is not None
    assert [row.cells[0][1] for row in found.rows[:2]] == list(ours)


def test_a_recipe_without_published_values_has_no_table() -> None:
    assert beside_paper(load_recipe("quickstart"), [member("all", 4.1)]) is None
