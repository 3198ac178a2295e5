"""Cards: metrics with all that is needed to compare and repeat them, as JSON. No torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel

from pae_framework.errors import DataError, RunError, UsageError
from pae_framework.runs.directory import RECORD, RunDirectory
from pae_framework.runs.opened import open_directory
from pae_framework.runs.reading import read_record
from pae_framework.runs.run_metrics import Metrics, MetricShape, read_metrics
from pae_framework.system.files import file_digest

VERSION = 1
"""Value of the key ``card``; it changes if a key is removed or changes its meaning."""
_OF_A_STAGE = ("started", "command", "overrides", "sources")
"""What the record of a stage says of its command, not of its environment."""
_REMEDY = "`pae evaluate --out FILE` and `pae cards RUN --json` write cards"

Card = dict[str, Any]
"""What :func:`make_card` gives."""


class _Card(BaseModel):
    card: Literal[1]
    of: dict[str, Any] = {}
    metrics: list[MetricShape]
    environment: dict[str, Any] = {}


class _Cards(BaseModel):
    card: Literal[1]
    members: list[_Card]


class _Version(BaseModel):
    card: Literal[1]


def make_card(
    of: Mapping[str, Any],
    metrics: Metrics,
    environment: Mapping[str, Any],
    not_available: Mapping[str, str] | None = None,
    cautions: Sequence[str] = (),
) -> Card:
    """A card.

    Args:
        of: what was measured, in the words of the user.
        metrics: with the fields of :class:`pae_framework.contracts.Metric`.
        environment: software and machine.
        not_available: metrics that could not be computed, with the reason.
        cautions: what a reader must know.
    """
    version = environment.get("packages", {}).get("pae-framework", "of an unknown version")
    commit = environment.get("commit")
    return {
        "card": VERSION,
        "tool": f"pae-framework {version}" + (f" (commit {commit})" if commit else ""),
        "of": dict(of),
        "metrics": metrics,
        "not_available": dict(not_available or {}),
        "cautions": list(cautions),
        "environment": dict(environment),
    }


@dataclass(frozen=True)
class NamedCard:
    """A card, what to call it in tables, and the directory of its run if it has one."""

    name: str
    card: Card
    run: Path | None = None


def open_cards(path: Path) -> list[NamedCard]:
    """The cards of a run, of the finished members of a sweep, or in a file.

    Args:
        path: a directory; a file that :func:`make_card` made; or an npz file of samples with such a
            file of the same name beside it.

    Raises:
        UsageError: there is no such thing, or it has no results yet.
        RunError: a file of the run is missing or damaged.
        DataError: the file holds no card, or that of other samples.
    """
    if path.is_dir():
        return _cards_of_directory(path)
    if not path.exists():
        raise UsageError(f"no such file or folder: {path}")
    return list(_cards_in_file(path) if path.suffix != ".npz" else _cards_of_samples(path))


def run_card(directory: RunDirectory) -> Card | None:
    """The card of a run or of a member of a sweep; None if it has no results yet.

    Raises:
        RunError: a file of the run is missing or damaged.
    """
    metrics = read_metrics(directory)
    if metrics is None:
        return None
    record = directory.stage(directory.plan["evaluate"]).info
    ran_with = record.get("ran_with") or [directory.environment]  # the latter: earlier versions
    environment = {key: x for key, x in ran_with[-1].items() if key not in _OF_A_STAGE}
    of = {"run": str(directory.path), "recipe": directory.info["name"]}
    return make_card(of, metrics, {**environment, **record.get("machine", {})})


def _cards_of_directory(path: Path) -> list[NamedCard]:
    if not (path / RECORD).is_file():
        raise UsageError(f"{path} holds no run: it has no {RECORD}")
    members = RunDirectory.at(path).info.get("members")
    paths = [path] if members is None else [path / "members" / name for name in members]
    started = [run for run in paths if (run / RECORD).is_file()]
    cards = [
        NamedCard(run.resolve().name, card, run)
        for run in started
        if (card := run_card(open_directory(run))) is not None
    ]
    if not cards:
        raise UsageError(f"{path} has no results yet; see `pae status {path}`")
    return cards


def _cards_in_file(path: Path) -> Iterator[NamedCard]:
    try:
        content = read_record(path, _Version, _REMEDY)
        content = read_record(path, _Cards if "members" in content else _Card, _REMEDY)
    except RunError as error:
        raise DataError(str(error)) from error
    for card in content.get("members", [content]):
        run = card.get("of", {}).get("run")
        yield NamedCard(Path(run).name if "members" in content and run else path.stem, card)


def _cards_of_samples(path: Path) -> Iterator[NamedCard]:
    file = path.with_suffix(".json")
    command = f"`pae evaluate --samples {path} --reference REFERENCE --out {file}` writes it"
    if not file.is_file():
        raise UsageError(f"{path} has no card: {file} is missing; {command}")
    digest = f"xxh3 {file_digest(path)}"
    for named in _cards_in_file(file):
        for metric in named.card["metrics"]:
            if (metric.get("subject") or {}).get("samples_digest") != digest:
                raise DataError(f"{file} is not the card of the samples in {path}; {command}")
        yield named
