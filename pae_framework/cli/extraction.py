"""How commands extract features: options to an extraction. Imports torch when it is called."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from pae_framework.cli.output import progress_console, tell_loading
from pae_framework.errors import UsageError
from pae_framework.system.file_errors import folder_problem

if TYPE_CHECKING:
    from pae_framework.evaluation.samples import Extraction
    from pae_framework.launch.ranks import Ranks


CARD, PAGE = "a card", "an HTML page"
_STARTS = {
    CARD: re.compile(rb'\s*\{\s*("schema"\s*:\s*"[^"]*"\s*,\s*)?"card"\s*:'),
    PAGE: re.compile(rb"\s*<!doctype html", re.IGNORECASE),
}
"""How files start that a command of ours may replace."""


def require_writable(file: Path, kind: str | None = None) -> None:
    """Check that a file can be written before anything is computed.

    Args:
        file: what a user named.
        kind: ``CARD`` or ``PAGE``: an existing file is replaced only if it is one.

    Raises:
        UsageError: it is a folder, another kind of file, or its folder cannot be written.
    """
    if file.is_dir():
        raise UsageError(f"{file} is a folder; name a file")
    if (problem := folder_problem(file.parent)) is not None:
        raise UsageError(problem)
    if kind is not None and file.exists() and not _STARTS[kind].match(_beginning(file)):
        raise UsageError(f"{file} exists and is not {kind}; name another file with --out")


def _beginning(file: Path) -> bytes:
    try:
        with file.open("rb") as opened:
            return opened.read(100)
    except OSError as error:
        raise UsageError(f"{file} cannot be read ({error.strerror})") from None


LOGS = "logs"
"""Folder in the cache for the logs of processes."""


def extraction_of(
    weights: str, cache: Path | None, batch_size: int, ranks: Ranks | None = None
) -> Extraction:
    """The extraction of features that options describe, on a GPU if there is one.

    Args:
        weights: the option ``--weights``.
        cache: the option ``--cache``.
        batch_size: the option ``--batch-size``.
        ranks: the processes that share it; None: one.

    Raises:
        UsageError: the cache cannot be written.
    """
    tell_loading()
    from pae_framework.evaluation.samples import Extraction, SharedExtraction, extract_missing
    from pae_framework.execution.context import configure_torch, pick_device
    from pae_framework.metrics.feature_extraction import default_cache
    from pae_framework.recipe.models import RuntimeSettings

    runtime = RuntimeSettings()
    configure_torch(runtime)
    folder = cache or default_cache()
    if (problem := folder_problem(folder)) is not None:
        raise UsageError(f"--cache: {problem}")

    def share(work: SharedExtraction) -> None:
        assert ranks is not None
        ranks.run(work, extract_missing, folder / LOGS)

    several = share if ranks is not None and ranks.size > 1 else None
    return Extraction(
        weights, pick_device(runtime), folder, batch_size, progress_console(), several
    )
