"""Options for the weights file that a command writes."""

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
    Format | None, typer.Option("--format", help="default: from the file name")
]
ForceOption = Annotated[bool, typer.Option("--force", help="replace an existing file")]


def chosen_format(file: Path, given: Format | None, force: bool) -> Format:
    """The format of the file, from its suffix; ``given`` must agree.

    Raises:
        UsageError: the suffix is unknown or contradicts ``given``, or the file exists.
    """
    if file.suffix not in (".safetensors", *TORCH_SUFFIXES):
        raise UsageError(f"{file}: the file name must end in .safetensors or .pt")
    named = Format.PT if file.suffix in TORCH_SUFFIXES else Format.SAFETENSORS
    if given not in (None, named):
        raise UsageError(f"--format {given.value} contradicts the file name {file.name}")
    if file.exists() and not force:
        raise UsageError(f"{file} exists; replace it with --force")
    return named
