"""The stages of a run. Each file reads from top to bottom."""
