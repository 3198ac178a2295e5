"""The command line: one file for each command, no logic. No torch before a stage runs."""
