"""The stages of the quickstart, and of recipes with the same sections."""

from __future__ import annotations

from pae_framework.recipe.load import load_recipe
from pae_framework.recipe.stage_table import STAGES

_RECIPE = load_recipe("quickstart").recipe
QUICKSTART_STAGES = [name for name, stage in STAGES.items() if stage.exists(_RECIPE)]
"""Their names, in the order they run."""
