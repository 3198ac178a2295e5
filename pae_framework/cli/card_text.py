"""A card as text: its values, what they have in common, and what each has of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pae_framework.cli.output import print_table
from pae_framework.system.printing import print_line


def print_card(card: Mapping[str, Any]) -> None:
    """Print a card, see :mod:`pae_framework.runs.cards`."""
    from pae_framework.report.metrics import at_of, condition, flat, number, readable

    metrics = card["metrics"]
    headings = ("metric", "at", "value", "deviation")
    rows = [
        (
            metric["label"],
            condition(at_of(metric)),
            _number(number(metric)),
            "" if metric.get("std") is None else _number(metric["std"]),
        )
        for metric in metrics
    ]
    print_table(headings, rows)
    for label, reason in card.get("not_available", {}).items():
        print_line(f"{label}: not available: {reason}")
    subjects = [flat(metric.get("subject") or {}, "subject.") for metric in metrics]
    protocols = [flat(metric.get("protocol") or {}) for metric in metrics]
    machines = [flat(metric.get("environment") or {}, "environment.") for metric in metrics]
    told = [
        subject | protocol | machine
        for subject, protocol, machine in zip(subjects, protocols, machines, strict=True)
    ]
    common = _common(told)
    _print_pairs(common, "")
    for (label, at, *_), pairs in zip(rows, told, strict=True):
        own = {key: value for key, value in pairs.items() if key not in common}
        if own:
            print_line(f"{label}, {at}" if at else label)
            _print_pairs(own, "  ")
    if "tool" in card:
        environment = {key: readable(x) for key, x in card.get("environment", {}).items()}
        _print_pairs({"tool version": card["tool"], **environment}, "")


def _common(told: list[dict[str, str]]) -> dict[str, str]:
    """What no two metrics say differently and at least two say."""
    keys = dict.fromkeys(key for pairs in told for key in pairs)
    found = {key: [pairs[key] for pairs in told if key in pairs] for key in keys}
    return {key: x[0] for key, x in found.items() if len(x) > 1 and len(set(x)) == 1}


def _print_pairs(pairs: Mapping[str, str], indent: str) -> None:
    for key, value in pairs.items():
        print_line(f"{indent}{key.replace('_', ' ')}: {value}")


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.6g}"
