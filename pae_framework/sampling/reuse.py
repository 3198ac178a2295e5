"""Identities of sample sets, and reuse of a set that another sample stage has finished."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pae_framework.data.statistics import SAFE_NAME
from pae_framework.errors import DataError, RunError
from pae_framework.execution.context import StageContext
from pae_framework.execution.run_latents import tokenizer_identity
from pae_framework.flow.flow_settings import SampleSettings
from pae_framework.recipe.stage_table import STAGES, guide_weights
from pae_framework.sampling.sample_set import SETS, open_set, read_entries
from pae_framework.sampling.sampler import COUNTED_KEYS
from pae_framework.system.files import file_identity, replacing
from pae_framework.weight_parts import contents_identity

_NOT_HASHED = SampleSettings.without_effect | {"count", "labels"}
"""Settings that change no image, or only the labels, which are hashed themselves."""


def set_identity(
    context: StageContext, weights: Path, labels: Tensor, settings: SampleSettings
) -> str:
    """A hash of everything that images 0 to M - 1 of a set depend on.

    Args:
        context: of the run; fingerprints of its stages identify its networks and their code.
        weights: the file of the generator to sample from.
        labels: (M,) int64.
        settings: of this one set. The generator used for autoguidance is identified by its
            weights, not by their path.
    """
    weak = settings.guidance.autoguidance
    content: dict[str, Any] = {
        "version": STAGES["sample"].version,
        "generator": context.plan["generator"].fingerprint,  # includes the stages it reads
        "weights": file_identity(weights),
        "tokenizer": tokenizer_identity(context),
        "statistics": file_identity(context.file("latents", SAFE_NAME)),
        "autoguidance": None if weak is None else contents_identity(guide_weights(weak)),
        "labels": labels.tolist(),
        "settings": settings.alone.model_dump(
            mode="json",
            exclude_defaults=True,
            exclude={**dict.fromkeys(_NOT_HASHED, True), "guidance": {"autoguidance"}},
        ),
    }
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()


def reuse_finished(
    directory: Path,
    entry: dict[str, Any],
    labels: Tensor,
    link: Callable[[Path, Path], None] = os.link,
) -> Path | None:
    """Reuse a finished set with the same identity from this or another sample stage.

    The set is linked, or copied if the file system has no links, atomically.

    Args:
        directory: of the sample stage; it is searched first.
        entry: of the planned set. Counted evaluations and ``tf32`` are copied into its protocol.
        labels: (M,) int64; only a set with these labels is reused.
        link: makes a link to a file at another path.

    Returns:
        The folder of the reused set, or None.
    """
    path = directory / entry["file"]
    others = sorted(folder for folder in directory.parent.glob("sample-*") if folder != directory)
    for folder in (directory, *others):
        for finished in _listed_sets(folder / SETS):
            source = folder / finished["file"]
            if finished.get("identity") != entry["identity"] or not is_intact(source, labels):
                continue
            if source != path and not _link_or_copy(source, path, link):
                continue
            protocol = finished["protocol"]
            entry["protocol"] |= {
                key: protocol[key] for key in (*COUNTED_KEYS, "tf32") if key in protocol
            }
            return folder
    return None


def _listed_sets(path: Path) -> list[dict[str, Any]]:
    """Entries of ``sets.json``; none if the file is missing or damaged."""
    try:
        return read_entries(path)
    except RunError:
        return []


def is_intact(path: Path, labels: Tensor) -> bool:
    """Whether a file is a set with these labels (M,), and has the checksums that it states."""
    try:
        images, set_labels = open_set(path)
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except (DataError, OSError, zipfile.BadZipFile, zlib.error):
        return False
    same = len(images) == len(labels) and torch.equal(set_labels, labels)
    return same and damaged is None


def _link_or_copy(source: Path, path: Path, link: Callable[[Path, Path], None]) -> bool:
    """Link or copy the file; False if another process has removed the source."""
    try:
        with replacing(path) as temporary:
            try:
                link(source, temporary)
            except OSError:  # another file system, or one without links
                shutil.copyfile(source, temporary)
    except FileNotFoundError:
        return False
    return True
