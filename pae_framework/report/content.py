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

    from pae_framework.report.attachments import Attachment
    from pae_framework.report.beside_paper import PaperTable
    from pae_framework.report.verdict import Verdict

CurveRow = Mapping[str, Any]
"""One line of a training log: ``step`` and a number per term."""


@dataclass(frozen=True)
class StageSummary:
    """Cost of a stage: computing time in s; if it trains, optimizer steps and images/s."""

    name: str
    seconds: float
    steps: int | None = None
    images_per_s: float | None = None
    fingerprint: str = ""


@dataclass(frozen=True)
class LabeledImages:
    """A named set of images (M, 3, S, S) uint8 with labels (M,)."""

    label: str
    images: Tensor
    labels: Tensor


@dataclass(frozen=True)
class Nearest:
    """Samples (M, 3, S, S) uint8, each with its K nearest training images (M, K, 3, S, S).

    ``measure`` says in words what is compared; ``looked_at`` of ``available`` training images were.
    """

    samples: Tensor
    nearest: Tensor
    measure: str
    looked_at: int
    available: int


@dataclass(frozen=True)
class Rotations:
    """Images (A, M, 3, S, S) uint8 decoded from latents rotated by A angles in degrees."""

    degrees: Sequence[float]
    images: Tensor


@dataclass(frozen=True)
class Clusters:
    """Clusters of the tokens of images (M, 3, S, S) uint8.

    ``maps`` holds, by what the tokens are, the number of each token's cluster (M, h, w). ``masks``
    (M, S, S) hold segments, or are None.
    """

    images: Tensor
    maps: Mapping[str, Tensor]
    masks: Tensor | None = None


@dataclass(frozen=True)
class ReportContent:
    """One run.

    ``originals`` and ``reconstructions`` (M, 3, S, S) uint8 show the same images. ``latents``
    (M', C, h, w) float are those of ``latent_images`` (M', 3, S, S) uint8. ``samples`` are shown
    by class. ``same_noise`` holds sets by what varies between them; image i of all was sampled from
    the same noise. ``metrics`` are read from JSON, with the fields of
    :class:`pae_framework.contracts.Metric`. ``attachments`` are the files of each evaluator.
    ``changes`` are keys of the recipe with the parent's value and its own.
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
    verdict: Verdict | None = None
    originals: Tensor | None = None
    reconstructions: Tensor | None = None
    samples: LabeledImages | None = None
    same_noise: Mapping[str, Sequence[LabeledImages]] = field(default_factory=dict)
    nearest: Nearest | None = None
    class_names: Sequence[str] = ()
    latents: Tensor | None = None
    latent_images: Tensor | None = None
    clusters: Clusters | None = None
    rotations: Rotations | None = None
    attachments: Mapping[str, Sequence[Attachment]] = field(default_factory=dict)
    changes: Sequence[tuple[str, str, str]] = ()
    commands: Sequence[str] = ()


@dataclass(frozen=True)
class VariantImages:
    """Test images (M, 3, S, S) uint8 with their reconstructions and latents (M, C, h, w) float."""

    images: Tensor
    reconstructions: Tensor
    latents: Tensor


@dataclass(frozen=True)
class SweepContent:
    """A sweep: its finished members with their metrics, and pictures of one member per variant.

    ``reports`` are the relative paths of the members' reports, by variant and seed. ``unfinished``
    are names of members. ``differences`` are keys of the recipe with the value of each variant in
    ``variants``. ``base`` is the variant that the others are compared with. ``verdicts`` are those
    of members, by variant and seed. ``paper`` holds published values.
    """

    name: str
    members: Sequence[MemberMetrics]
    description: str = ""
    recipe_yaml: str = ""
    reports: Mapping[tuple[str, int], str] = field(default_factory=dict)
    unfinished: Sequence[str] = ()
    variants: Sequence[str] = ()
    differences: Mapping[str, Sequence[str]] = field(default_factory=dict)
    base: str = ""
    verdicts: Mapping[tuple[str, int], Verdict] = field(default_factory=dict)
    paper: PaperTable | None = None
    samples: Mapping[str, LabeledImages] = field(default_factory=dict)
    shown: Mapping[str, VariantImages] = field(default_factory=dict)
    class_names: Sequence[str] = ()
    environment: Mapping[str, Any] = field(default_factory=dict)
    commands: Sequence[str] = ()
