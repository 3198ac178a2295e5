"""Writes the package of a new plugin, and brings its scaffolding up to date. No torch."""
