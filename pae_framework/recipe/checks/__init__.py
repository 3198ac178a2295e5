"""Consistency checks by subject; see :mod:`pae_framework.recipe.consistency`."""
