"""The Inception network of FID: where its weights are, and what they are called. No torch.

It is the TensorFlow network of 2015-12-05, whose weights torch-fidelity has converted. Distances in
its features are called FID, sFID and KID only with exactly these weights.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from pae_framework.errors import DataError
from pae_framework.hub import UrlFile, is_file_name, offline
from pae_framework.system.files import file_problem

PUBLISHED = "6726825d"
"""First digits of the SHA-256 of the published file."""
WEIGHTS = UrlFile(
    "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/"
    f"weights-inception-2015-12-05-{PUBLISHED}.pth",
    PUBLISHED,
)
"""The published weights, in the cache of torch.hub, which torch-fidelity uses too."""
RANDOM = "none"
"""In place of a SHA-256: random weights."""


@dataclass(frozen=True)
class WeightsIdentity:
    """Which weights a network has, by the SHA-256 of their file, or :data:`RANDOM`."""

    sha256: str

    @property
    def published(self) -> bool:
        """Whether they are the published ones."""
        return self.sha256.startswith(PUBLISHED)

    @property
    def words(self) -> str:
        """What they are called beside a metric."""
        if self.sha256 == RANDOM:
            return "random Inception"
        return "Inception" if self.published else f"Inception with weights {self.sha256[:8]}"


def missing_inception(weights: str) -> str | None:
    """What keeps weights from being used, and the remedy; None if nothing does.

    Args:
        weights: ``none`` for random weights, a file name, or ``default`` for the published ones.
    """
    if weights == RANDOM:
        return None
    if is_file_name(weights):
        return file_problem(Path(weights).expanduser())
    return None if WEIGHTS.cached() else f"the Inception weights are not here; {_remedy()}"


def inception_file(weights: str) -> Path:
    """The file of the weights, which are not ``none``; downloads the published ones if necessary.

    Raises:
        DataError: it is missing; says where to get it and where to put it.
    """
    problem = missing_inception(weights)
    if problem and (is_file_name(weights) or offline()):
        raise DataError(problem)
    if is_file_name(weights):
        return Path(weights).expanduser()
    try:
        return WEIGHTS.fetch()
    except OSError as error:
        reason = f"{type(error).__name__}: {error}"
        raise DataError(
            f"the Inception weights cannot be downloaded ({reason}); {_remedy()}"
        ) from error


def identify(file: Path) -> WeightsIdentity:
    """The identity of the weights in a file."""
    with file.open("rb") as opened:
        return WeightsIdentity(hashlib.file_digest(opened, "sha256").hexdigest())


def _remedy() -> str:
    return (
        f"download {WEIGHTS.url} (about 90 MB) and save it as {WEIGHTS.path}, or name your copy "
        "(--weights FILE; `weights: FILE` in a recipe)"
    )
