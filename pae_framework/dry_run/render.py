"""Prints a dry run as tables, for terminals of 80 columns or more."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.text import Text

from pae_framework.dry_run.summary import ComponentSize, DryRun, StageDryRun
from pae_framework.dry_run.sweep_cost import SweepCost, total
from pae_framework.system.console import PlainTable
from pae_framework.system.file_errors import gib

Line = str | Text | PlainTable


def dry_run_lines(dry_run: DryRun) -> Iterator[Line]:
    """Lines and tables of a dry run, from top to bottom."""
    channels, side, _ = dry_run.latent
    grid, width = f"{dry_run.grid} x {dry_run.grid}", dry_run.token_width
    tokens = "" if width is None else f"{grid} tokens of width {width} -> "
    yield Text.assemble(
        (dry_run.name, "bold"),
        f": images {dry_run.image_size} px -> {tokens}latents {channels} x {side} x {side}",
    )
    if dry_run.train_images is not None:
        yield f"{dry_run.train_images:,} training images of {dry_run.classes} classes"
    if dry_run.parts:
        yield _components_table(dry_run.parts)
    yield _lengths_table(dry_run.stages)
    yield _work_table(dry_run.stages)
    yield (
        "FLOPs: one multiply-add is two; a trained network counts three times its forward pass. "
        "Memory is an estimate, right within a factor of two."
    )
    for note in dry_run.notes:
        yield f"note: {note}"


def sweep_lines(name: str, cost: SweepCost) -> Iterator[Line]:
    """Lines and a table on all members of a sweep, which has this name."""
    done = f", {cost.done} done" if cost.done else ""
    yield Text.assemble((name, "bold"), f": {cost.size}{done}")
    facts = [f"FLOPs {number(cost.flops)}"] if cost.flops is not None else []
    facts += [f"hours {_hours(cost.hours)}"] if cost.hours is not None else []
    facts += [f"not counted: {', '.join(cost.not_counted)}"] if cost.not_counted else []
    if facts:
        yield f"in total, each shared stage once: {'; '.join(facts)}"
    yield _members_table(cost)


def _members_table(cost: SweepCost) -> PlainTable:
    """Stages that run for each member of a sweep, without those that are cached or shared."""
    hours = ["hours>"] if cost.hours is not None else []
    table = _table("member", "FLOPs>", *hours, "stages that run")
    for name, stages in cost.own.items():
        table.add_row(
            Text(name),
            number(total([stage.flops for stage in stages])),
            *([_hours(total([stage.hours for stage in stages]))] if hours else []),
            Text(" ".join(stage.stage for stage in stages) or "none"),
        )
    return table


def _components_table(sizes: Sequence[ComponentSize]) -> PlainTable:
    table = _table("part", "component", "trained>", "frozen>", "trained in")
    for size in sizes:
        table.add_row(
            size.part,
            Text(size.component),
            number(size.trained or None),
            number(size.frozen or None),
            size.trained_in or "pretrained",
        )
    trained, frozen = sum(size.trained for size in sizes), sum(size.frozen for size in sizes)
    table.add_section()
    table.add_row("all", "", number(trained or None), number(frozen or None), "")
    return table


def _lengths_table(stages: Sequence[StageDryRun]) -> PlainTable:
    table = _table("stage", "", "steps>", "epochs>", "batch>", "at once>", "images>")
    for stage in stages:
        table.add_row(
            stage.stage,
            "resumes" if stage.state == "goes on" else stage.state,
            _count(stage.steps),
            "" if stage.epochs is None else f"{stage.epochs:.4g}",
            _count(stage.batch_size),
            _count(stage.at_once),
            number(stage.images),
        )
    return table


def _work_table(stages: Sequence[StageDryRun]) -> PlainTable:
    hours = ["hours>"] if any(stage.hours for stage in stages) else []
    table = _table("stage", "memory>", "FLOPs per image>", "FLOPs in total>", *hours, "not counted")
    for stage in stages:
        trains = stage.batch_size is not None
        if stage.memory_bytes is None and stage.flops_per_image is None and not trains:
            continue
        not_counted = ["memory"] if trains and stage.memory_bytes is None else stage.memory_without
        bound = "> " if stage.memory_without else ""
        table.add_row(
            stage.stage,
            "" if stage.memory_bytes is None else bound + gib(stage.memory_bytes),
            number(stage.flops_per_image),
            number(stage.flops),
            *([_hours(stage.hours)] if hours else []),
            ", ".join(not_counted),
        )
    return table


def _table(*headings: str) -> PlainTable:
    """A table whose headings with a final ``>`` are right-aligned, for numbers."""
    return PlainTable(
        *(Text(x.rstrip(">"), justify="right" if x.endswith(">") else "left") for x in headings)
    )


def _hours(value: float | None) -> str:
    return "" if value is None else "< 0.1" if value < 0.1 else f"{value:,.1f}"


def _count(value: int | None) -> str:
    return "" if value is None else f"{value:,}"


def number(value: float | None) -> str:
    """Three digits and a unit, e.g. 104 M or 1.28 M; 3.4e+20 beyond the largest unit."""
    if value is None:
        return ""
    for unit, size in (("E", 1e18), ("P", 1e15), ("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{value / size:.3g} {unit}" if value < 1000 * size else f"{value:.2e}"
    return f"{value:.3g}"
