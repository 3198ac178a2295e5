"""``pae compare``: metrics of runs, samples and cards side by side."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pae_framework.cli.arguments import JsonOption, PluginOption
from pae_framework.cli.output import (
    command_line,
    installed_registry,
    print_answer,
    print_table,
    warn,
    wrapped,
)
from pae_framework.cli.shell_completion import complete_run
from pae_framework.errors import UsageError
from pae_framework.system.printing import print_line

if TYPE_CHECKING:
    from pae_framework.report.side_by_side import Compared, Line, Reason, SideCell
    from pae_framework.runs.cards import NamedCard
    from pae_framework.runs.seed_groups import SeedGroup


def compare(
    what: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN|FILE...",
            autocompletion=complete_run,
            help="runs, sweeps, card files (`pae cards --json`, `pae evaluate --out`), or npz "
            "files of samples with their cards beside them",
        ),
    ],
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="also write an HTML page")
    ] = None,
    plugin: PluginOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show metrics side by side: one line for all values that are comparable.

    Values whose protocols differ are on lines of their own, with a number, and the reason is
    printed. Runs that differ only by their seeds are one column: mean, half the range, and the best
    value. How the recipes differ is listed below.

    Examples:
        pae compare runs/a runs/b

        pae compare runs/fashion_mnist_ablation --out comparison.html

        pae compare runs/a theirs.json samples.npz --json
    """
    from pae_framework.report.side_by_side import cautions, side_by_side
    from pae_framework.runs.seed_groups import group_by_seed

    if out is not None:
        from pae_framework.cli.extraction import PAGE, require_writable

        require_writable(out, PAGE)
    groups = group_by_seed(_cards(what), installed_registry(plugin or ()), warn)
    columns = [_column(group) for group in groups]
    lines, reasons = side_by_side(columns)
    for text in cautions(lines):
        warn(text)
    if as_json:
        print_answer("compare", _plain(groups, lines, reasons))
    else:
        _print(groups, columns, lines, reasons)
    if out is not None:
        _write_page(out, groups, columns)
        if not as_json:
            print_line(f"page: {out}")


def _cards(paths: list[Path]) -> list[NamedCard]:
    """The cards of all paths, with different names.

    Raises:
        UsageError: one is named twice, or there is none at a path.
    """
    from dataclasses import replace

    from pae_framework.runs.cards import open_cards

    found = [(path, named) for path in paths for named in open_cards(path)]
    places = Counter((_place(path, named).resolve(), named.name) for path, named in found)
    for (_, name), count in places.items():
        if count > 1:
            raise UsageError(f"{name} is named more than once")
    names = Counter(named.name for _, named in found)
    return [
        named if names[named.name] == 1 else replace(named, name=_whole_name(path, named))
        for path, named in found
    ]


def _place(path: Path, named: NamedCard) -> Path:
    return named.run or path


def _whole_name(path: Path, named: NamedCard) -> str:
    place = _place(path, named)
    return str(place) if place.stem == named.name else f"{place}: {named.name}"


def _column(group: SeedGroup) -> Compared:
    from pae_framework.report.side_by_side import Compared

    return Compared(group.name, {named.name: named.card["metrics"] for named in group.cards})


def _print(
    groups: list[SeedGroup],
    columns: list[Compared],
    lines: list[Line],
    reasons: list[Reason],
) -> None:
    rows = [
        (line.heading, line.at, *(cell.text if cell else "-" for cell in line.cells))
        for line in lines
    ]
    print_table(("metric", "at", *(column.name for column in columns)), rows)
    for line in _explanation(groups, lines, reasons):
        print_line(line)


def _explanation(
    groups: list[SeedGroup], lines: list[Line], reasons: list[Reason]
) -> Iterator[str]:
    """What is below the table, in lines of 80 columns."""
    reasons = [reason for reason in reasons if reason.shown]
    if reasons:
        yield "Values of one metric with different numbers do not compare:"
    for reason in reasons:
        yield from wrapped("; ".join(reason.headings), "  ")
        for words in reason.words:
            yield from wrapped(words, "    ")
        for key, texts in reason.others.items():
            told = "  ".join(f"[{i}] {text}" for i, text in enumerate(texts, start=1))
            yield from wrapped(f"{key}: {told}", "    ")
    for seeds in dict.fromkeys(line.seeds for line in lines if line.seeds):
        yield from wrapped(f"seeds: {seeds}")
    for group in groups:
        for text in _facts(group, groups[0]):
            yield from wrapped(f"{group.name}: {text}")


def _facts(group: SeedGroup, first: SeedGroup) -> list[str]:
    """The seeds of a column, and how its recipe differs."""
    facts = []
    if group.seeds:
        facts.append(f"{len(group.cards)} runs, seeds {'; '.join(group.seeds)}")
    if group is not first and group.changes is not None:
        changes = ", ".join(map(str, group.changes)) or "does not differ"
        facts.append(f"recipe, from {first.name}: {changes}")
    if group.apart is not None:
        facts.append(group.apart)
    return facts


def _plain(groups: list[SeedGroup], lines: list[Line], reasons: list[Reason]) -> dict[str, Any]:
    from pae_framework.report.side_by_side import cautions

    return {
        "comparison": 1,
        "columns": [
            {
                "name": group.name,
                "cards": [{"name": named.name, "of": named.card["of"]} for named in group.cards],
                "seeds": list(group.seeds),
                "recipe_changes": None
                if group.changes is None
                else [str(change) for change in group.changes],
                "apart": group.apart,
            }
            for group in groups
        ],
        "lines": [
            {
                "group": line.group,
                "label": line.label,
                "at": line.at,
                "higher_is_better": line.higher_is_better,
                "mark": line.mark,
                "seeds": line.seeds,
                "cells": [None if cell is None else _plain_cell(cell) for cell in line.cells],
            }
            for line in lines
        ],
        "not_comparable": [
            {
                "metrics": list(reason.headings),
                "differs": dict(reason.differs),
                "words": list(reason.words),
            }
            for reason in reasons
        ],
        "cautions": cautions(lines),
    }


def _plain_cell(cell: SideCell) -> dict[str, Any]:
    return {
        "values": [{"run": value.run, **value.metric} for value in cell.values],
        "count": len(cell.numbers),
        "mean": cell.mean,
        "half_range": (max(cell.numbers) - min(cell.numbers)) / 2 if cell.numbers else None,
        "min": min(cell.numbers, default=None),
        "max": max(cell.numbers, default=None),
    }


def _write_page(out: Path, groups: list[SeedGroup], columns: list[Compared]) -> None:
    from pae_framework.report.comparison_page import ComparisonContent, render_comparison
    from pae_framework.system.files import write_text

    sources = {
        named.name: ", ".join(str(x) for x in named.card["of"].values()) or named.name
        for group in groups
        for named in group.cards
    }
    changes = {
        group.name: list(map(str, group.changes))
        for group in groups[1:]
        if group.changes is not None
    }
    title = " and ".join(group.name for group in groups)
    apart = {group.name: group.apart for group in groups if group.apart is not None}
    content = ComparisonContent(title, columns, sources, changes, apart, [command_line()])
    write_text(out, render_comparison(content))
