"""The stages of a run, each a story to read from top to bottom."""
