"""Checks between sections of a recipe, by subject; :mod:`pae_framework.recipe.consistency`."""
