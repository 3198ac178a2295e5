"""Sample sets that are drawn already: by this stage, or by that of another recipe in the store."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pae_framework.errors import DataError
from pae_framework.files import read_json, replacing
from pae_framework.sampling.sample_set import open_set

SETS = "sets.json"
"""Lists the finished sets of a stage, each with its ``identity``; grows as they are finished."""

COUNTED = ("evaluations", "guided_evaluations")
"""What a protocol says only when the set is drawn, where the solver chooses its steps."""


def take_finished(directory: Path, entry: dict[str, Any], labels: Tensor) -> Path | None:
    """Let a set of the same identity that is finished be this one.

    It is linked, or copied where the file system does not link, and is there whole or not at all.

    Args:
        directory: of the sample stage; the others in its store are looked through after it.
        entry: of the set, as planned; its protocol takes over which evaluations were counted and
            how products were rounded.
        labels: (M,) int64, which a set must have to be taken.

    Returns:
        The folder it was found in; None: nobody has drawn it.
    """
    others = sorted(path for path in directory.parent.glob("sample-*") if path != directory)
    for folder in (directory, *others):
        for found in _listed(folder):
            source, path = folder / str(found.get("file")), directory / entry["file"]
            if found.get("identity") != entry["identity"] or not _holds(source, labels):
                continue
            if source != path and not _link(source, path):
                continue
            drawn = found["protocol"]
            entry["protocol"] |= {key: drawn[key] for key in (*COUNTED, "tf32") if key in drawn}
            return folder
    return None


def _listed(folder: Path) -> Iterator[dict[str, Any]]:
    """Entries of the folder's list; none where there is no list, or a damaged one."""
    try:
        entries = read_json(folder / SETS)
    except (OSError, ValueError):
        return
    yield from (entry for entry in entries if isinstance(entry, dict))


def _holds(path: Path, labels: Tensor) -> bool:
    """Whether there is a readable set of these labels."""
    try:
        images, found = open_set(path)
    except DataError:
        return False
    return len(images) == len(labels) and torch.equal(found, labels)


def _link(source: Path, path: Path) -> bool:
    """Whether ``path`` could be made the same file as ``source``, or a copy of it."""
    try:
        with replacing(path) as aside:
            try:
                os.link(source, aside)
            except OSError:  # another file system, or one without links
                shutil.copyfile(source, aside)
    except FileNotFoundError:  # removed meanwhile
        return False
    return True
