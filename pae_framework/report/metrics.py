"""Metrics as a run's JSON holds them: order, wording, series. No torch.

A metric here is a mapping with the fields of :class:`pae_framework.contracts.Metric`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

MetricFields = Mapping[str, Any]
At = tuple[tuple[str, Any], ...]
"""A metric's ``at`` (what varies between values of one name), sorted, as a dictionary key."""

_GROUPS = (
    *("reconstruction", "interpolation", "manifold", "generation", "few_steps", "adm", "fidelity"),
)
_LABELS = (
    *("rFID", "rFD", "PSNR", "PSNR (pooled error)", "SSIM", "LPIPS", "Perceptual distance"),
    *("iFID", "iFD"),
    *("SSC", "SSC encoder", "LPC", "GSQ", "GSQ encoder", "eRank", "gFID", "gFD"),
    *("FID", "sFID", "KID", "IS", "Precision", "Recall"),
)
_OF_OTHER_SAMPLES = frozenset({"protocol", "samples"})
"""Keys of ``at`` of metrics of the sample sets of ``sample.convergence`` and ``variants``."""
_MISSING = "–"  # noqa: RUF001 - an en dash


def group_of(metric: MetricFields) -> str:
    """The name before the slash."""
    return str(metric["name"]).partition("/")[0]


def group_title(group: str) -> str:
    """``few_steps`` as a heading: ``Few steps``."""
    words = group.replace("_", " ").strip()
    return words[:1].upper() + words[1:]


def at_of(metric: MetricFields) -> At:
    """The metric's ``at`` as a hashable key."""
    return tuple(sorted(_hashable(metric.get("at") or {})))


def generator_words(step: Any) -> str:
    """``generator step 250``; step 0 is a loaded generator."""
    return "loaded generator" if step == 0 else f"generator step {readable(step)}"


def condition(at: At) -> str:
    """``at`` in words: ``generator step 250``, ``5 sampling steps``; empty if nothing varies."""
    rest, words = dict(at), []
    if "generator_step" in rest:
        words.append(generator_words(rest.pop("generator_step")))
    if "steps" in rest:
        steps = rest.pop("steps")
        words.append(f"{readable(steps)} sampling step{'' if steps == 1 else 's'}")
        if rest.get("evaluations") == steps:
            del rest["evaluations"]
    if "samples" in rest:
        words.append(f"{readable(rest.pop('samples'))} samples")
    if "weights" in rest:
        words.append(f"{readable(rest.pop('weights'))} weights")
    words += [f"{key.replace('_', ' ')} {readable(value)}" for key, value in rest.items()]
    return ", ".join(words)


def ordered(metrics: Iterable[MetricFields]) -> list[MetricFields]:
    """Metrics in reading order: reconstruction, latents, generation, then those of plugins."""
    return sorted(metrics, key=_reading_order)


def _reading_order(metric: MetricFields) -> tuple[Any, ...]:
    group, label = group_of(metric), str(metric["label"])
    return (
        _rank(group, _GROUPS),
        group,
        _rank(label, _LABELS),
        str(metric["name"]),
        _at_order(at_of(metric)),
    )


def headline(metrics: Sequence[MetricFields]) -> list[MetricFields]:
    """One metric per name: without ``at``, else most trained and with fewest evaluations.

    Those of the protocol for convergence and of variants of the samples come last.
    """
    chosen: dict[str, tuple[tuple[bool, bool, float, float], MetricFields]] = {}
    for metric in ordered(metrics):
        at = at_of(metric)
        trained = GENERATOR_STEPS.position(at) or 0.0
        others = bool(dict(at).keys() & _OF_OTHER_SAMPLES)
        key = (others, bool(at), -trained, EVALUATIONS.position(at) or 0.0)
        name = str(metric["name"])
        if name not in chosen or key < chosen[name][0]:
            chosen[name] = (key, metric)
    return [metric for _, metric in chosen.values()]


@dataclass(frozen=True)
class Axis:
    """An axis along which metrics are measured.

    ``keys`` are the keys of ``at`` that vary along it. The first of them that ``at`` has gives the
    position.
    """

    label: str
    keys: tuple[str, ...]
    doubling: bool = False
    """Whether positions double, so that a logarithmic axis spaces them evenly."""

    def position(self, at: At) -> float | None:
        """Position on the axis, or None."""
        values = dict(at)
        position = next((values[key] for key in self.keys if key in values), None)
        return float(position) if isinstance(position, int | float) else None

    def others(self, at: At) -> At:
        """``at`` without the keys of this axis."""
        return tuple((key, value) for key, value in at if key not in self.keys)


GENERATOR_STEPS = Axis("generator steps", ("generator_step",))
EVALUATIONS = Axis("network evaluations", ("evaluations", "steps"), doubling=True)


@dataclass(frozen=True)
class Series:
    """One metric along an axis: ``points`` are (position, metric) in ascending order."""

    label: str
    points: tuple[tuple[float, MetricFields], ...]


def series_along(metrics: Iterable[MetricFields], axis: Axis) -> list[Series]:
    """Metrics measured at two or more positions of ``axis``, all else equal."""
    series: dict[tuple[str, At], dict[float, MetricFields]] = {}
    labels: dict[tuple[str, At], str] = {}
    for metric in ordered(metrics):
        position, others = axis.position(at_of(metric)), axis.others(at_of(metric))
        if position is None:
            continue
        key = str(metric["name"]), others
        series.setdefault(key, {})[position] = metric
        labels[key] = str(metric["label"]) + (f" ({condition(others)})" if others else "")
    return [
        Series(labels[key], tuple(sorted(points.items(), key=lambda point: point[0])))
        for key, points in series.items()
        if len(points) > 1
    ]


def decimals_for(values: Iterable[float | None]) -> int:
    """Decimals that show four significant digits of the largest value, three if it is below 1."""
    sizes = [abs(value) for value in values if value is not None and math.isfinite(value) and value]
    if not sizes:
        return 3
    exponent = math.floor(math.log10(max(sizes)))
    return max(0, 3 - exponent) if exponent >= 0 else min(6, 2 - exponent)


def fixed(value: float | None, decimals: int) -> str:
    """A value with this number of decimals; a dash if it is missing."""
    if value is None:
        return _MISSING
    return f"{value:.{decimals}f}" if math.isfinite(value) else f"{value:g}"


def number(metric: MetricFields) -> float | None:
    """The value as a float; JSON null is None."""
    value = metric.get("value")
    return None if value is None else float(value)


def readable(value: Any) -> str:
    """A JSON value in words, on one line."""
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
    flattened: dict[str, str] = {}
    for key, value in mapping.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            flattened |= flat(value, f"{name}.")
        else:
            flattened[name] = readable(value)
    return flattened


def _hashable(at: Mapping[str, Any]) -> list[tuple[str, Any]]:
    return [
        (str(key), value if isinstance(value, int | float | str) else readable(value))
        for key, value in at.items()
    ]


def _rank(word: str, known: tuple[str, ...]) -> int:
    return known.index(word) if word in known else len(known)


def _at_order(at: At) -> tuple[tuple[str, float, str], ...]:
    return tuple(
        (key, value, "") if isinstance(value, int | float) else (key, math.inf, str(value))
        for key, value in at
    )
