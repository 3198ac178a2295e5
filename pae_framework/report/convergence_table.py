"""Convergence of several runs as rows of text and as JSON. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pae_framework.report.comparing import why_not
from pae_framework.report.convergence import (
    INTERPOLATION,
    Convergence,
    Curve,
    Reached,
    Speedup,
    reached,
)
from pae_framework.report.metrics import decimals_for, fixed
from pae_framework.report.table import arrow

Row = tuple[str, ...]

CURVES = ("run", "measured at steps", "epochs", "last value")
SPEEDUPS = ("run", "reaches the last of", "value", "at step", "the other's step", "fewer steps")
REACH = ("run", "reaches", "at step", "epochs", "images")


def title(convergence: Convergence) -> str:
    """``gFD (generation/fd_small_cnn, protocol convergence) ↓``."""
    what = ", ".join(text for text in (convergence.name, convergence.condition) if text)
    return f"{convergence.label} ({what}) {arrow(convergence.higher_is_better)}"


def curve_rows(convergence: Convergence) -> list[Row]:
    """A row per run, as in :data:`CURVES`."""
    return [
        (
            convergence.mark(curve),
            ", ".join(str(step) for step, _ in curve.points),
            _number(curve.run.epochs(curve.last[0])),
            _value(convergence, curve.last[1]),
        )
        for curve in convergence.curves
    ]


def speedup_rows(convergence: Convergence) -> list[Row]:
    """A row per pair of runs that compare, as in :data:`SPEEDUPS`."""
    return [
        (
            pair.run.run.label,
            pair.other.run.label,
            _value(convergence, pair.other.last[1]),
            _step(pair.needed, pair.run),
            _step(pair.other_needed, pair.other),
            _factor(pair),
        )
        for pair in convergence.speedups()
    ]


def reach_rows(convergence: Convergence, targets: Sequence[float]) -> list[Row]:
    """A row per value and run, as in :data:`REACH`."""
    return [
        (convergence.mark(curve), f"{target:g}", _step(found, curve), *_seen(found, curve))
        for target in targets
        for curve in convergence.curves
        for found in [reached(curve.points, target, convergence.higher_is_better)]
    ]


def notes(convergence: Convergence) -> list[str]:
    """What a reader of the rows must know."""
    found = []
    first_protocol, *others = convergence.protocols
    for number, protocol in enumerate(others, 2):
        words, entries = why_not([[first_protocol], [protocol]])
        values = (f"{key}: {own}, not {first}" for key, (first, own) in entries.items())
        text = "; ".join((*words, *values))
        found.append(f"protocol {number} does not compare with protocol 1: {text}")
    if not all(convergence.protocols):
        found.append("runs whose metric states no protocol are not compared")
    runs = [curve.run.label for curve in convergence.curves]
    for key, seeds in convergence.seeds().items():
        each = ", ".join(f"{seed} ({run})" for seed, run in zip(seeds, runs, strict=True))
        found.append(f"{key} differs: {each}")
    batches = {curve.run.batch_size for curve in convergence.curves} - {None}
    if len(batches) > 1:
        found.append("batch sizes differ, so fewer steps are not fewer images; compare epochs")
    if convergence.without:
        found.append(f"not measured in {', '.join(convergence.without)}")
    return found


def plain(convergence: Convergence, targets: Sequence[float]) -> dict[str, Any]:
    """The curves, their protocols, and what was computed from them, as JSON."""
    return {
        "metric": convergence.name,
        "label": convergence.label,
        "condition": convergence.condition,
        "higher_is_better": convergence.higher_is_better,
        "interpolation": INTERPOLATION,
        "protocols": [dict(protocol) for protocol in convergence.protocols],
        "differences": {str(n): entries for n, entries in convergence.differences().items()},
        "curves": [_plain_curve(convergence, curve) for curve in convergence.curves],
        "speedups": [_plain_speedup(pair) for pair in convergence.speedups()],
        "reach": [
            {"run": curve.run.label, "value": target, "reached": _plain_reached(found, curve)}
            for target in targets
            for curve in convergence.curves
            for found in [reached(curve.points, target, convergence.higher_is_better)]
        ],
    }


def _plain_curve(convergence: Convergence, curve: Curve) -> dict[str, Any]:
    return {
        "run": curve.run.label,
        "protocol": convergence.number_of(curve),
        "points": [
            {
                "step": step,
                "images_seen": curve.run.images_seen(step),
                "epochs": curve.run.epochs(step),
                "value": value,
            }
            for step, value in curve.points
        ],
    }


def _plain_speedup(pair: Speedup) -> dict[str, Any]:
    return {
        "run": pair.run.run.label,
        "other": pair.other.run.label,
        "value": pair.other.last[1],
        "reached": _plain_reached(pair.needed, pair.run),
        "reached_by_other": _plain_reached(pair.other_needed, pair.other),
        "factor": pair.factor,
        "factor_in_images": pair.factor_in_images,
        "bound": pair.bound,
    }


def _plain_reached(found: Reached | None, curve: Curve) -> dict[str, Any]:
    if found is None:
        return {"step": None, "not_within": curve.last[0]}
    run = curve.run
    return {
        "step": found.step,
        "or_earlier": not found.exact,
        "images_seen": run.images_seen(found.step),
        "epochs": run.epochs(found.step),
    }


def _step(found: Reached | None, curve: Curve) -> str:
    if found is None:
        return f"not reached within {curve.last[0]}"
    return ("" if found.exact else "<= ") + _number(found.step)


def _seen(found: Reached | None, curve: Curve) -> Row:
    """Epochs and images up to a step."""
    if found is None:
        return "", ""
    bound, run = "" if found.exact else "<= ", curve.run
    texts = (_number(run.epochs(found.step)), _number(run.images_seen(found.step)))
    return tuple(text and bound + text for text in texts)


def _factor(pair: Speedup) -> str:
    if pair.factor is None:
        return "" if pair.needed is None else "unknown"
    return f"{pair.bound} {pair.factor:.3g} x".lstrip()


def _value(convergence: Convergence, value: float) -> str:
    values = [value for curve in convergence.curves for _, value in curve.points]
    return fixed(value, decimals_for(values))


def _number(value: float | None) -> str:
    """Four significant digits, and no exponent for whole numbers."""
    if value is None:
        return ""
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.4g}"
