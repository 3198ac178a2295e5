"""The content of a report, which :mod:`pae_framework.report.html` turns into a page.

The page leaves out fields that are None or empty.
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
    """Cost of a stage: computing time in s; if it trains, optimizer steps and images/s."""

    name: str
    seconds: float
    steps: int | None = None
    images_per_s: float | None = None
    note: str = ""


@dataclass(frozen=True)
class LabeledImages:
    """A named set of images (M, 3, S, S) uint8 with labels (M,)."""

    label: str
    images: Tensor
    labels: Tensor


@dataclass(frozen=True)
class ReportContent:
    """One run.

    ``originals`` and ``reconstructions`` (M, 3, S, S) uint8 show the same images. ``latents``
    (M', C, h, w) float are those of ``latent_images`` (M', 3, S, S) uint8. The first set of
    ``samples`` is shown in full; image i of every set was sampled from the same noise. ``metrics``
    are read from JSON, with the fields of :class:`pae_framework.contracts.Metric`.
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
    samples: Sequence[LabeledImages] = ()
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
    samples: Mapping[str, LabeledImages] = field(default_factory=dict)
    class_names: Sequence[str] = ()
    environment: Mapping[str, Any] = field(default_factory=dict)
    commands: Sequence[str] = ()
