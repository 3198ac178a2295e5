"""The values that a paper publishes for a sweep, beside the results of its members. No torch."""

from __future__ import annotations

from collections.abc import Sequence

from pae_framework.recipe.loaded import LoadedRecipe
from pae_framework.report.beside_paper import PaperTable, paper_table
from pae_framework.report.table import MemberMetrics


def beside_paper(loaded: LoadedRecipe, members: Sequence[MemberMetrics]) -> PaperTable | None:
    """The table of a sweep's ``paper``; None if the recipe states no published values."""
    sweep = loaded.recipe.sweep
    if sweep is None or sweep.paper is None:
        return None
    return paper_table(sweep.paper.source, sweep.paper.values, list(sweep.variants), members)
