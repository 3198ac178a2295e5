"""The command line: one file for each command, no logic. No torch before a stage runs."""

import os

# pydantic and torch look for extensions in the metadata of all installed distributions when they
# are first used. One damaged file of any distribution would break every command.
os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "1")
os.environ.setdefault("TORCH_DEVICE_BACKEND_AUTOLOAD", "0")
