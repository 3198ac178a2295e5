"""A card as text: its values, and on request how each was measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pae_framework.cli.output import note, print_table
from pae_framework.system.printing import print_line

Pairs = dict[str, str]


def print_cards(cards: Mapping[str, Mapping[str, Any]], protocol: bool) -> None:
    """Print cards, see :mod:`pae_framework.runs.cards`: the values first.

    Args:
        cards: by name, which is printed if there are several.
        protocol: whether to print how each value was measured, too.
    """
    for name, card in cards.items():
        if len(cards) > 1:
            print_line(name)
        _print_card(card, protocol)
    if not protocol:
        note("--protocol also prints how each value was measured")


def _print_card(card: Mapping[str, Any], protocol: bool) -> None:
    metrics = card["metrics"]
    told = [_told(metric) for metric in metrics]
    common = _common(told)
    own = [{key: x for key, x in pairs.items() if key not in common} for pairs in told]
    notes = _distinct(own)
    rows = [_value_row(metric) for metric in metrics]
    if protocol:
        marks = [f"[{notes.index(pairs) + 1}]" if pairs else "" for pairs in own]
        numbered = [(*row, mark) for row, mark in zip(rows, marks, strict=True)]
        print_table(("metric", "value", "at", "protocol"), numbered)
    else:
        print_table(("metric", "value", "at"), rows)
    for label, reason in card.get("not_available", {}).items():
        print_line(f"{label}: not available: {reason}")
    if protocol:
        numbers = {f"[{i}]": pairs for i, pairs in enumerate(notes, start=1)}
        _print_parts({"all": common, **numbers, "ran with": _ran_with(card)})


def _value_row(metric: Mapping[str, Any]) -> tuple[str, str, str]:
    from pae_framework.report.metrics import at_of, condition, number

    value = number(metric)
    text = "none" if value is None else f"{value:.6g}"
    if metric.get("std") is not None:
        text += f" ± {metric['std']:.2g}"
    return metric["label"], text, condition(at_of(metric))


def _told(metric: Mapping[str, Any]) -> Pairs:
    """Subject, protocol and machine of a metric."""
    from pae_framework.report.metrics import flat

    return (
        flat(metric.get("subject") or {}, "subject.")
        | flat(metric.get("protocol") or {})
        | flat(metric.get("environment") or {}, "environment.")
    )


def _common(told: Sequence[Pairs]) -> Pairs:
    """What no two metrics say differently and at least two say."""
    keys = dict.fromkeys(key for pairs in told for key in pairs)
    found = {key: [pairs[key] for pairs in told if key in pairs] for key in keys}
    return {key: x[0] for key, x in found.items() if len(x) > 1 and len(set(x)) == 1}


def _distinct(own: Sequence[Pairs]) -> list[Pairs]:
    found: list[Pairs] = []
    for pairs in own:
        if pairs and pairs not in found:
            found.append(pairs)
    return found


def _ran_with(card: Mapping[str, Any]) -> Pairs:
    from pae_framework.report.metrics import flat

    tool = {"tool version": card["tool"]} if "tool" in card else {}
    return tool | flat(card.get("environment", {}))


def _print_parts(parts: Mapping[str, Pairs]) -> None:
    for name, pairs in parts.items():
        if pairs:
            print_line(f"\n{name}")
        for key, value in pairs.items():
            print_line(f"  {key.replace('_', ' ')}: {value}")
