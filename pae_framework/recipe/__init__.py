"""Recipes: YAML with positions, composition, validation, agreement, sweeps. No torch."""
