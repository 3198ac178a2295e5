"""The recipe language: YAML with positions, merging, models, checks, sweeps. No torch."""
