"""``pae report``: rewrite the report of a run or a sweep."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pae_framework.errors import UsageError
from pae_framework.files import read_json


def report(
    run: Annotated[Path, typer.Argument(help="directory of a finished run or a sweep")],
    markdown: Annotated[
        bool,
        typer.Option("--markdown", help="print the results table as Markdown, write nothing"),
    ] = False,
) -> None:
    """Write report.html from the results of the run's stages, or print its table.

    For a sweep, compares the members finished so far.

    Examples:
        pae report runs/quickstart

        pae report runs/fashion_mnist_ablation --markdown
    """
    from pae_framework.runs.directory import REPORT, RunDirectory

    is_sweep = "members" in RunDirectory.at(run).info
    if markdown:
        typer.echo(_markdown(run, is_sweep))
        return
    if is_sweep:
        _write_sweep(run)
    else:
        _write_run(run)
    typer.echo(str(run / REPORT))


def _write_run(run: Path) -> None:
    from rich.console import Console

    from pae_framework.plugins import load_registry
    from pae_framework.runs.opened import open_run

    opened = open_run(run, load_registry())
    from pae_framework.execution.context import StageContext
    from pae_framework.stages import report as stage

    stage.run(StageContext.of_finished_run(opened, "report", Console(stderr=True)))


def _write_sweep(run: Path) -> None:
    from pae_framework.launch.run_sweep import compare_members
    from pae_framework.plugins import load_registry
    from pae_framework.recipe.load import load_recipe
    from pae_framework.runs.directory import RunDirectory

    loaded = load_recipe(run / "resolved.yaml", (), load_registry())
    compare_members(loaded, RunDirectory.at(run))


def _markdown(run: Path, is_sweep: bool) -> str:
    from pae_framework.report.table import MemberMetrics, comparison_table, result_rows
    from pae_framework.report.text import comparison_markdown, results_markdown

    results = run / "results.json" if is_sweep else run / "evaluate" / "results.json"
    if not results.is_file():
        raise UsageError(f"{run} has no results yet; see `pae status {run}`")
    found = read_json(results)
    if not is_sweep:
        return results_markdown(result_rows(found))
    members = [MemberMetrics(m["variant"], m["seed"], m["metrics"]) for m in found]
    return comparison_markdown(*comparison_table(members))
