"""The content of a report; :mod:`pae_framework.report.html` lays it out.

Fields that are None or empty are left out of the page.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pae_framework.report.metrics import MetricFields
from pae_framework.report.table import MemberMetrics

if TYPE_CHECKING:
    from torch import Tensor

CurveRow = Mapping[str, Any]
"""One line of a training log: ``step`` and a number per term."""


@dataclass(frozen=True)
class StageSummary:
    """Cost of a stage: working time in s, optimiser steps and images/s where it trains."""

    name: str
    seconds: float
    steps: int | None = None
    images_per_s: float | None = None
    note: str = ""


@dataclass(frozen=True)
class LabelledImages:
    """A named set of images (M, 3, S, S) uint8 with labels (M,)."""

    label: str
    images: Tensor
    labels: Tensor


@dataclass(frozen=True)
class ReportContent:
    """One run.

    ``originals`` and ``reconstructions`` are (M, 3, S, S) uint8 of the same images; ``latents``
    (M', C, h, w) float with the ``latent_images`` (M', 3, S, S) uint8 they stand for. Of
    ``samples`` the first set is shown in full; image i of every set grew from the same noise.
    ``metrics`` are read from JSON, with the fields of :class:`pae_framework.contracts.Metric`.
    """

    name: str
    description: str = ""
    recipe_yaml: str = ""
    given_yaml: str = ""
    overrides: Sequence[str] = ()
    environment: Mapping[str, Any] = field(default_factory=dict)
    stages: Sequence[StageSummary] = ()
    curves: Mapping[str, Sequence[CurveRow]] = field(default_factory=dict)
    metrics: Sequence[MetricFields] = ()
    originals: Tensor | None = None
    reconstructions: Tensor | None = None
    samples: Sequence[LabelledImages] = ()
    class_names: Sequence[str] = ()
    latents: Tensor | None = None
    latent_images: Tensor | None = None
    commands: Sequence[str] = ()


@dataclass(frozen=True)
class SweepContent:
    """A sweep: its members with their metrics, and per variant the samples of one member."""

    name: str
    members: Sequence[MemberMetrics]
    description: str = ""
    recipe_yaml: str = ""
    samples: Mapping[str, LabelledImages] = field(default_factory=dict)
    class_names: Sequence[str] = ()
    environment: Mapping[str, Any] = field(default_factory=dict)
    commands: Sequence[str] = ()
