"""Metrics over the training of several runs: which run needs fewer steps. No torch.

Steps between measured ones are interpolated linearly; nothing is extrapolated.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise, permutations
from typing import Any

from pae_framework.report.comparing import (
    Basis,
    are_comparable,
    basis,
    differences,
    seed_differences,
)
from pae_framework.report.metrics import (
    GENERATOR_STEPS,
    At,
    MetricFields,
    at_of,
    condition,
    number,
    ordered,
)

INTERPOLATION = "linear between measured steps, none beyond them"

_OF_THE_WEIGHTS = frozenset(
    {
        *("generator_step", "images_seen", "epochs", "weights", "role"),
        *("tokenizer_seed", "generator_seed", "stages"),
        *("evaluations", "guided_evaluations"),  # counted: an adaptive solver has its own each time
    }
)
"""Entries of protocols, most of an earlier version, that say what was measured, not how."""


@dataclass(frozen=True)
class TrainedRun:
    """The metrics of a run, and what its steps are in images and epochs.

    ``batch_size`` is None if the generator was not trained in the run; ``images``, the number of
    training images, is None if unknown.
    """

    label: str
    metrics: Sequence[MetricFields]
    batch_size: int | None = None
    images: int | None = None

    def images_seen(self, step: float) -> float | None:
        """Images of the first ``step`` steps, each counted whenever it was seen."""
        return None if self.batch_size is None else step * self.batch_size

    def epochs(self, step: float) -> float | None:
        """Passes over the training images in the first ``step`` steps."""
        seen = self.images_seen(step)
        return None if seen is None or not self.images else seen / self.images


Points = tuple[tuple[int, float], ...]
"""Steps with the values measured there, ascending."""


@dataclass(frozen=True)
class Curve:
    """One metric of one run over its training; ``protocol``: how it was measured."""

    run: TrainedRun
    points: Points
    protocol: Mapping[str, Any]

    @property
    def last(self) -> tuple[int, float]:
        """Last step and its value."""
        return self.points[-1]


@dataclass(frozen=True)
class Reached:
    """The step at which a curve reaches a value; if not ``exact``, it does so there or before."""

    step: float
    exact: bool


def reached(points: Points, target: float, higher_is_better: bool) -> Reached | None:
    """Where a curve first is at least as good as ``target``; None if it is nowhere."""
    sign = -1 if higher_is_better else 1
    if sign * points[0][1] <= sign * target:
        return Reached(points[0][0], exact=False)
    for (before, worse), (after, value) in pairwise(points):
        if sign * value <= sign * target:
            share = (worse - target) / (worse - value)
            return Reached(before + share * (after - before), exact=True)
    return None


@dataclass(frozen=True)
class Speedup:
    """The steps that ``run`` needs to reach the last value of ``other``, and those of ``other``."""

    run: Curve
    other: Curve
    needed: Reached | None
    other_needed: Reached

    @property
    def factor(self) -> float | None:
        """How many times fewer steps the run needs; None if it is unknown."""
        if self.needed is None or not (self.needed.exact or self.other_needed.exact):
            return None
        return self.other_needed.step / self.needed.step

    @property
    def factor_in_images(self) -> float | None:
        """How many times fewer images the run sees; None if it is unknown."""
        batches = self.run.run.batch_size, self.other.run.batch_size
        if self.factor is None or batches[0] is None or batches[1] is None:
            return None
        return self.factor * batches[1] / batches[0]

    @property
    def bound(self) -> str:
        """``>=``, ``<=`` or empty: what is known of :attr:`factor`."""
        if self.factor is None or (self.needed and self.needed.exact and self.other_needed.exact):
            return ""
        return "<=" if self.needed and self.needed.exact else ">="


@dataclass(frozen=True)
class Convergence:
    """One metric over the training, with a curve per run that has it.

    ``protocols`` has one of each kind among the curves: curves compare if they have the same
    :meth:`number_of`. ``without`` are the runs that lack the metric.
    """

    name: str
    label: str
    condition: str
    higher_is_better: bool
    curves: tuple[Curve, ...]
    protocols: tuple[Mapping[str, Any], ...]
    without: tuple[str, ...]

    def number_of(self, curve: Curve) -> int:
        """The number of its protocol, from 1."""
        kinds = [basis(protocol) for protocol in self.protocols]
        return kinds.index(basis(curve.protocol)) + 1

    def mark(self, curve: Curve) -> str:
        """The run, and the number of its protocol if there are several."""
        several = len(self.protocols) > 1
        return curve.run.label + (f" (protocol {self.number_of(curve)})" if several else "")

    def differences(self) -> dict[int, dict[str, list[str]]]:
        """By the number of a protocol: entries that differ, each with that of the first protocol
        and its own."""
        first, *others = self.protocols
        return {
            number: differences([[first], [protocol]]) for number, protocol in enumerate(others, 2)
        }

    def seeds(self) -> dict[str, list[str]]:
        """The seeds that differ between curves, with that of each curve."""
        return seed_differences([[curve.protocol] for curve in self.curves])

    def speedups(self) -> list[Speedup]:
        """Every pair of curves that compare."""
        found = []
        for run, other in permutations(self.curves, 2):
            if not are_comparable(run.protocol, other.protocol):
                continue
            target = other.last[1]
            own = reached(other.points, target, self.higher_is_better)
            assert own is not None
            needed = reached(run.points, target, self.higher_is_better)
            found.append(Speedup(run, other, needed, own))
        return found


def convergences(runs: Sequence[TrainedRun]) -> list[Convergence]:
    """Every metric that at least one run has at two steps or more."""
    grouped: dict[tuple[str, At], list[tuple[TrainedRun, list[MetricFields]]]] = {}
    for run in runs:
        for key, metrics in _by_step(run.metrics).items():
            grouped.setdefault(key, []).append((run, metrics))
    return [
        _convergence(name, others, measured, [run.label for run in runs])
        for (name, others), measured in grouped.items()
        if any(len(metrics) > 1 for _, metrics in measured)
    ]


def has_steps(run: TrainedRun) -> bool:
    """Whether a metric of the run was measured at a step of its generator."""
    return bool(_by_step(run.metrics))


def _by_step(metrics: Sequence[MetricFields]) -> dict[tuple[str, At], list[MetricFields]]:
    """Finite metrics with a generator step, by what else they are, in the order of the steps.

    Step 0, that of generators trained elsewhere, is left out.
    """
    grouped: dict[tuple[str, At], list[MetricFields]] = {}
    for metric in ordered(metrics):
        at, value = at_of(metric), number(metric)
        if GENERATOR_STEPS.position(at) and value is not None and math.isfinite(value):
            key = str(metric["name"]), GENERATOR_STEPS.others(at)
            grouped.setdefault(key, []).append(metric)
    return grouped


def _convergence(
    name: str,
    others: At,
    measured: Sequence[tuple[TrainedRun, list[MetricFields]]],
    runs: Sequence[str],
) -> Convergence:
    curves = tuple(_curve(run, metrics) for run, metrics in measured)
    protocols: dict[Basis, Mapping[str, Any]] = {}
    for curve in curves:
        protocols.setdefault(basis(curve.protocol), curve.protocol)
    first = measured[0][1][0]
    return Convergence(
        name=name,
        label=str(first["label"]),
        condition=condition(others),
        higher_is_better=bool(first["higher_is_better"]),
        curves=curves,
        protocols=tuple(protocols.values()),
        without=tuple(run for run in runs if run not in {curve.run.label for curve in curves}),
    )


def _curve(run: TrainedRun, metrics: Sequence[MetricFields]) -> Curve:
    points = {int(GENERATOR_STEPS.position(at_of(m)) or 0): float(m["value"]) for m in metrics}
    return Curve(run, tuple(sorted(points.items())), _how_measured(metrics[-1]))


def _how_measured(metric: MetricFields) -> dict[str, Any]:
    """The protocol without what an earlier version wrote into it of what was measured.

    The extractor that a run trained counts as how.
    """
    protocol = metric.get("protocol") or {}
    kept = {key: value for key, value in protocol.items() if key not in _OF_THE_WEIGHTS}
    stages = protocol.get("stages")
    if isinstance(stages, Mapping) and "extractor" in stages:
        kept["trained_extractor"] = stages["extractor"]
    return kept
