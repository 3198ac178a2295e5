"""The file that a command writes weights to: its format, and whether it may be there."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from pae_framework.errors import UsageError

TORCH_SUFFIXES = (".pt", ".pth", ".ckpt", ".bin")


class Format(StrEnum):
    """How weights are written."""

    SAFETENSORS = "safetensors"
    PT = "pt"


FormatOption = Annotated[
    Format | None, typer.Option("--format", help="default: what the file's name says")
]
ForceOption = Annotated[bool, typer.Option("--force", help="replace a file that exists")]


def chosen_format(file: Path, given: Format | None, force: bool) -> Format:
    """The format given, which must be what readers take the file's name for.

    Raises:
        UsageError: the name says nothing or something else, or the file exists and must not.
    """
    if file.suffix not in (".safetensors", *TORCH_SUFFIXES):
        raise UsageError(f"{file}: a name that ends in .safetensors or .pt says how to read it")
    named = Format.PT if file.suffix in TORCH_SUFFIXES else Format.SAFETENSORS
    if given not in (None, named):
        raise UsageError(f"--format {given.value} does not go with the name {file.name}")
    if file.exists() and not force:
        raise UsageError(f"{file} exists; --force replaces it")
    return named
