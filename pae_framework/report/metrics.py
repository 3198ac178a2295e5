"""Metrics as a run's JSON holds them: order, wording, series. No torch.

A metric here is a mapping with the fields of :class:`pae_framework.contracts.Metric`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

MetricFields = Mapping[str, Any]
Place = tuple[tuple[str, Any], ...]
"""What varies within a name (a metric's ``at``), in a fixed order, as a dictionary key."""

_GROUPS = ("reconstruction", "manifold", "generation", "few_steps")
_LABELS = (
    *("rFD", "PSNR", "SSIM", "LPIPS"),
    *("SSC", "SSC encoder", "LPC", "GSQ", "GSQ encoder", "eRank", "gFD"),
)
_MISSING = "–"  # noqa: RUF001 - an en dash, in place of a missing value


def group_of(metric: MetricFields) -> str:
    """The name before the slash."""
    return str(metric["name"]).partition("/")[0]


def group_title(group: str) -> str:
    """``few_steps`` as a heading: ``Few steps``."""
    words = group.replace("_", " ").strip()
    return words[:1].upper() + words[1:]


def place_of(metric: MetricFields) -> Place:
    """The metric's ``at`` as a hashable key."""
    return tuple(sorted(_hashable(metric.get("at") or {})))


def generator_words(step: Any) -> str:
    """``generator step 250``; step 0 is a loaded generator."""
    return "loaded generator" if step == 0 else f"generator step {readable(step)}"


def condition(place: Place) -> str:
    """A place in words: ``generator step 250``, ``5 sampling steps``; empty if nothing varies."""
    at = dict(place)
    words = []
    if "generator_step" in at:
        words.append(generator_words(at.pop("generator_step")))
    if "steps" in at:
        steps = at.pop("steps")
        words.append(f"{readable(steps)} sampling step{'' if steps == 1 else 's'}")
        if at.get("evaluations") == steps:
            del at["evaluations"]
    words += [f"{key.replace('_', ' ')} {readable(value)}" for key, value in at.items()]
    return ", ".join(words)


def ordered(metrics: Iterable[MetricFields]) -> list[MetricFields]:
    """Metrics in reading order: reconstruction, latent space, generation, then what plugins add."""
    return sorted(metrics, key=reading_order)


def reading_order(metric: MetricFields) -> tuple[Any, ...]:
    """Sort key of :func:`ordered`."""
    group, label = group_of(metric), str(metric["label"])
    return (
        _rank(group, _GROUPS),
        group,
        _rank(label, _LABELS),
        str(metric["name"]),
        _place_order(place_of(metric)),
    )


def headline(metrics: Sequence[MetricFields]) -> list[MetricFields]:
    """One metric per name: where nothing varies, else most trained, in the fewest evaluations."""
    chosen: dict[str, tuple[tuple[bool, float, float], MetricFields]] = {}
    for metric in ordered(metrics):
        place = place_of(metric)
        trained = GENERATOR_STEPS.position(place) or 0.0
        key = (bool(place), -trained, EVALUATIONS.position(place) or 0.0)
        name = str(metric["name"])
        if name not in chosen or key < chosen[name][0]:
            chosen[name] = (key, metric)
    return [metric for _, metric in chosen.values()]


@dataclass(frozen=True)
class Axis:
    """Something metrics are measured along: the keys of ``at`` that vary with it together, the
    first one that is there being the position."""

    label: str
    keys: tuple[str, ...]
    doubling: bool = False
    """Whether positions are doublings, so that a logarithmic axis spaces them evenly."""

    def position(self, place: Place) -> float | None:
        """Where a metric lies along the axis, or None."""
        at = dict(place)
        found = next((at[key] for key in self.keys if key in at), None)
        return float(found) if isinstance(found, int | float) else None

    def others(self, place: Place) -> Place:
        """The place without this axis."""
        return tuple((key, value) for key, value in place if key not in self.keys)


GENERATOR_STEPS = Axis("generator steps", ("generator_step",))
EVALUATIONS = Axis("network evaluations", ("evaluations", "steps"), doubling=True)


@dataclass(frozen=True)
class Series:
    """One metric along an axis: ``points`` are (position, metric), positions rising."""

    label: str
    points: tuple[tuple[float, MetricFields], ...]


def series_along(metrics: Iterable[MetricFields], axis: Axis) -> list[Series]:
    """Metrics measured at two places or more along ``axis``, all else equal."""
    found: dict[tuple[str, Place], dict[float, MetricFields]] = {}
    labels: dict[tuple[str, Place], str] = {}
    for metric in ordered(metrics):
        position, others = axis.position(place_of(metric)), axis.others(place_of(metric))
        if position is None:
            continue
        key = str(metric["name"]), others
        found.setdefault(key, {})[position] = metric
        labels[key] = str(metric["label"]) + (f" ({condition(others)})" if others else "")
    return [
        Series(labels[key], tuple(sorted(points.items(), key=lambda point: point[0])))
        for key, points in found.items()
        if len(points) > 1
    ]


def decimals_for(values: Iterable[float | None]) -> int:
    """Decimals that give the largest of the values four significant digits, three below 1."""
    sizes = [abs(value) for value in values if value is not None and math.isfinite(value) and value]
    if not sizes:
        return 3
    exponent = math.floor(math.log10(max(sizes)))
    return max(0, 3 - exponent) if exponent >= 0 else min(6, 2 - exponent)


def fixed(value: float | None, decimals: int) -> str:
    """A value with so many decimals; a dash if it is missing."""
    if value is None:
        return _MISSING
    return f"{value:.{decimals}f}" if math.isfinite(value) else f"{value:g}"


def number(metric: MetricFields) -> float | None:
    """The value as a float; JSON null is None."""
    value = metric.get("value")
    return None if value is None else float(value)


def readable(value: Any) -> str:
    """Any JSON value on one line, as a person would write it."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {readable(item)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(readable(item) for item in value)
    return str(value)


def flat(mapping: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """A nested mapping as ``{"guidance.scale": "1.5"}``."""
    found: dict[str, str] = {}
    for key, value in mapping.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            found |= flat(value, f"{name}.")
        else:
            found[name] = readable(value)
    return found


def _hashable(at: Mapping[str, Any]) -> list[tuple[str, Any]]:
    return [
        (str(key), value if isinstance(value, int | float | str) else readable(value))
        for key, value in at.items()
    ]


def _rank(word: str, known: tuple[str, ...]) -> int:
    return known.index(word) if word in known else len(known)


def _place_order(place: Place) -> tuple[tuple[str, float, str], ...]:
    return tuple(
        (key, value, "") if isinstance(value, int | float) else (key, math.inf, str(value))
        for key, value in place
    )
