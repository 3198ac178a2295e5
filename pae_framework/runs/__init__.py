"""Run directories: plan, state, locks, what a run ran on. No torch."""
