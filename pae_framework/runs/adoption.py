"""What a stage of an earlier version must have left: its record lists no files. No torch."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from pae_framework.data.data_settings import SHARDS
from pae_framework.errors import RunError
from pae_framework.recipe.models import Recipe
from pae_framework.recipe.stage_table import Stage
from pae_framework.runs.reading import read_record

_SHARD = re.compile(r"latents_rank(\d+)_shard(\d+)\.safetensors")


class _Set(BaseModel):
    file: str


class _Source(BaseModel):
    encoder_tensors: int = 0


def describe_fault(
    folder: Path, stage: Stage, recipe: Recipe, images: int | None
) -> tuple[Path, str] | None:
    """The first file that is not as the stage must have left it, and what is wrong; or None.

    Contents are not known, so a file that was replaced is not found.

    Args:
        folder: of the finished stage.
        stage: its row of the table.
        recipe: of the run.
        images: number of training images, if known; the latents must be as many.
    """
    for name in (*stage.leaves(recipe), *_listed(folder, stage)):
        path = folder / name
        if not path.is_file():
            return path, "is missing"
        if path.suffix == ".safetensors" and rows_of_shard(path) is None:
            return path, "is not a whole file of tensors"
    if stage.name == "latents" and recipe.latents.written:
        return _fault_of_shards(folder, images)
    return None


def _listed(folder: Path, stage: Stage) -> Iterator[str]:
    """Files that another file of the stage lists. Whoever reads that file checks it."""
    with suppress(RunError):
        if stage.name == "sample":
            sets: list[dict[str, Any]] = read_record(folder / "sets.json", list[_Set], "")
            yield from (entry["file"] for entry in sets)
        if stage.name == "tokenizer" and (folder / "weights.json").is_file():
            source: dict[str, Any] = read_record(folder / "weights.json", _Source, "")
            yield from ("encoder.safetensors",) if source.get("encoder_tensors") else ()


def _fault_of_shards(folder: Path, images: int | None) -> tuple[Path, str] | None:
    """Shards must be numbered without a gap, be whole, and hold all images."""
    found = {path.name: path for path in folder.glob(SHARDS) if _SHARD.fullmatch(path.name)}
    total = 0
    for number in range(max(1, len(found))):
        path = folder / f"latents_rank00_shard{number:03d}.safetensors"
        if path.name not in found:
            return path, "is missing"
        if (rows := rows_of_shard(path)) is None:
            return path, "is not a whole shard of latents"
        total += rows
    if images is not None and total != images:
        return folder / SHARDS, f"hold {total} latents of {images} images"
    return None


def rows_of_shard(path: Path) -> int | None:
    """``total_size`` of a safetensors file, 0 if it states none; None if the file is not whole."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        size = path.stat().st_size
        if not 0 < length <= size - 8:
            return None
        try:
            header = json.loads(file.read(length))
            metadata = header.pop("__metadata__", {})
            ends = [entry["data_offsets"][1] for entry in header.values()]
            whole = size == 8 + length + max(ends, default=0)
            return int(metadata.get("total_size", 0)) if whole else None
        except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError):
            return None
