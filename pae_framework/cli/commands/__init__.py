"""One file for each command: parse and print."""
