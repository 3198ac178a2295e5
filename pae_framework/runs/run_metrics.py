"""Metrics of finished runs and sweeps, read from their directories. No torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel

from pae_framework.runs.directory import RunDirectory
from pae_framework.runs.reading import read_record

RESULTS = "results.json"
"""Name of the file of metrics: of a run in its stage ``evaluate``, of a sweep in its directory."""

EVALUATOR_METRICS = "metrics.json"
"""File of an evaluator's metrics in its folder; it is written when all others are there."""

EVALUATOR_NOTES = "notes.json"
"""File of what an evaluator says of its metrics, if it says anything: :class:`NotesShape`."""

Metrics = list[dict[str, Any]]


class MetricShape(BaseModel):
    """A metric in JSON, with the fields of :class:`pae_framework.contracts.Metric`."""

    name: str
    label: str
    value: float | None
    higher_is_better: bool
    std: float | None = None
    at: dict[str, Any] | None = None
    protocol: dict[str, Any] | None = None
    subject: dict[str, Any] | None = None


class NotesShape(BaseModel):
    """What an evaluator says of its metrics, as :class:`pae_framework.contracts.Notes`."""

    not_available: dict[str, str] = {}
    cautions: list[str] = []


class _MemberResult(BaseModel):
    member: str
    variant: str
    seed: int
    metrics: list[MetricShape]
    samples: str = ""


def read_metrics(directory: RunDirectory) -> Metrics | None:
    """The metrics of a run; None if its plan has no stage ``evaluate`` or that is not done.

    Raises:
        RunError: the file is missing, damaged or not the one that the stage wrote.
    """
    planned = directory.plan.get("evaluate")
    if planned is None or not directory.stage(planned).done:
        return None
    return read_metrics_file(directory.results(planned).file(RESULTS))


def read_metrics_file(path: Path) -> Metrics:
    """The metrics in a file of the stage ``evaluate``.

    Raises:
        RunError: the file is missing or damaged.
    """
    remedy = "remove it and run the same command again"
    metrics: Metrics = read_record(path, list[MetricShape], remedy)
    return metrics


def read_notes(path: Path) -> dict[str, Any]:
    """The notes of an evaluator, with the keys of :class:`NotesShape`.

    Raises:
        RunError: the file is missing or damaged.
    """
    return dict(read_record(path, NotesShape, "remove it and run the evaluator again"))


def read_comparison(directory: RunDirectory) -> list[dict[str, Any]]:
    """The results of a sweep's members.

    Raises:
        RunError: the file is missing or damaged.
    """
    remedy = f"`pae report {directory.path}` writes it again"
    results: list[dict[str, Any]] = read_record(
        directory.path / RESULTS, list[_MemberResult], remedy
    )
    return results
