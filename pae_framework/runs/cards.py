"""Cards: metrics with all that is needed to compare and repeat them, as JSON. No torch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel

from pae_framework.errors import DataError, RunError, UsageError
from pae_framework.runs.directory import RECORD, RunDirectory
from pae_framework.runs.opened import open_directory
from pae_framework.runs.plan import PlannedStage
from pae_framework.runs.reading import read_record
from pae_framework.runs.results import StageResults
from pae_framework.runs.run_metrics import (
    EVALUATOR_METRICS,
    EVALUATOR_NOTES,
    RESULTS,
    Metrics,
    MetricShape,
    read_metrics_file,
    read_notes,
)
from pae_framework.system.files import file_digest

VERSION = 1
"""Value of the key ``card``; it changes if a key is removed or changes its meaning."""
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
    tool: str | None = None,
) -> Card:
    """A card.

    Args:
        of: what was measured, in the words of the user.
        metrics: with the fields of :class:`pae_framework.contracts.Metric`.
        environment: software and machine.
        not_available: metrics that could not be computed, with the reason.
        cautions: what a reader must know.
        tool: the version; None: as the environment says.
    """
    return {
        "card": VERSION,
        "tool": tool or _tool(environment),
        "of": dict(of),
        "metrics": metrics,
        "not_available": dict(not_available or {}),
        "cautions": list(cautions),
        "environment": dict(environment),
    }


def _tool(environment: Mapping[str, Any]) -> str:
    version = environment.get("packages", {}).get("pae-framework", "of an unknown version")
    commit = environment.get("commit")
    return f"pae-framework {version}" + (f" (commit {commit})" if commit else "")


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
    planned = directory.plan.get("evaluate")
    if planned is None or not directory.stage(planned).done:
        return None
    return stage_card(directory, planned)


def stage_card(
    directory: RunDirectory, planned: PlannedStage, labels: Sequence[str] | None = None
) -> Card:
    """The card of a finished stage ``evaluate``.

    Its environment is what all evaluators ran with; a metric has what differs. Earlier versions did
    not record it for each evaluator: its metrics have all that worked on the stage, as ``one_of``.

    Args:
        directory: of the run.
        planned: the stage.
        labels: of the evaluators whose metrics it has; None: all.

    Raises:
        RunError: a file of the stage is missing or damaged.
    """
    results, record = directory.results(planned), directory.stage(planned)
    evaluators = record.info.get("evaluators", {})
    known = (
        labels
        if labels is not None
        else [label for label in evaluators if results.has(f"{label}/{EVALUATOR_METRICS}")]
    )
    found = {x: read_metrics_file(results.file(f"{x}/{EVALUATOR_METRICS}")) for x in known}
    if labels is None:
        metrics = read_metrics_file(results.file(RESULTS))
    else:
        metrics = [metric for label in labels for metric in found[label]]
    unknown = record.environments or [  # earlier versions
        {**directory.environment, **record.info.get("machine", {})}
    ]
    ran_with = [_ran_with(metric, found, evaluators) or unknown for metric in metrics]
    environment, own = _shared([_one_of(candidates) for candidates in ran_with or [unknown]])
    tools = dict.fromkeys(_tool(x) for candidates in ran_with or [unknown] for x in candidates)
    return make_card(
        {"run": str(directory.path), "recipe": directory.info["name"]},
        [
            metric | ({"environment": more} if more else {})
            for metric, more in zip(metrics, own, strict=False)
        ],
        environment,
        *_notes(results, known),
        " or ".join(tools),
    )


def _notes(results: StageResults, labels: Iterable[str]) -> tuple[dict[str, str], list[str]]:
    """What evaluators could not compute, and their cautions, after their labels."""
    files = {label: f"{label}/{EVALUATOR_NOTES}" for label in labels}
    told = {x: read_notes(results.file(file)) for x, file in files.items() if results.has(file)}
    not_available = {
        f"{label}/{name}": reason
        for label, notes in told.items()
        for name, reason in notes["not_available"].items()
    }
    return not_available, [
        f"{x}: {text}" for x, notes in told.items() for text in notes["cautions"]
    ]


def _ran_with(
    metric: Mapping[str, Any], found: Mapping[str, Metrics], evaluators: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """The environment of the evaluator that a metric is of; empty if it is not recorded."""
    owners = (evaluators.get(label, {}) for label, metrics in found.items() if metric in metrics)
    return [entry["environment"] for entry in owners if entry.get("environment")][:1]


def _one_of(environments: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """One of several environments: what they share, and the rest of each as ``one_of``."""
    shared, own = _shared(environments)
    return shared | ({"one_of": own} if any(own) else {})


def _shared(
    environments: Sequence[Mapping[str, Any]],
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """What all environments say alike, and what else each says."""
    first, *others = environments
    shared = {
        key: value
        for key, value in first.items()
        if all(key in other and other[key] == value for other in others)
    }
    own = [{key: x for key, x in one.items() if key not in shared} for one in environments]
    return shared, own


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
