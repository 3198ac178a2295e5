"""``pae report``: rewrite the report of a run or a sweep."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pae_framework.cli.arguments import RunArgument, finished_context
from pae_framework.cli.output import installed_registry
from pae_framework.errors import UsageError
from pae_framework.system.printing import print_line


def report(
    run: RunArgument,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="only print the table of results, as Markdown")
    ] = False,
) -> None:
    """Write report.html from the results of a run.

    The report of a sweep compares the members that are finished.

    Examples:
        pae report runs/quickstart

        pae report runs/fashion_mnist_ablation --markdown
    """
    from pae_framework.runs.directory import REPORT, RunDirectory

    is_sweep = "members" in RunDirectory.at(run).info
    if markdown:
        print_line(_markdown(run, is_sweep))
        return
    if is_sweep:
        _write_sweep(run)
    else:
        _write_run(run)
    print_line(str(run / REPORT))


def _write_run(run: Path) -> None:
    context = finished_context(run, "report")
    from pae_framework.stages.report import rewrite

    rewrite(context)


def _write_sweep(run: Path) -> None:
    from pae_framework.launch.run_sweep import compare_members
    from pae_framework.recipe.load import load_recipe
    from pae_framework.runs.directory import RESOLVED, RunDirectory

    sweep = RunDirectory.at(run)
    sweep.text(RESOLVED)
    loaded = load_recipe(run / RESOLVED, (), installed_registry())
    compare_members(loaded, sweep)


def _markdown(run: Path, is_sweep: bool) -> str:
    from pae_framework.report.table import comparison_table, result_rows, sweep_members
    from pae_framework.report.text import comparison_markdown, results_markdown
    from pae_framework.runs.directory import RunDirectory
    from pae_framework.runs.opened import open_directory
    from pae_framework.runs.run_metrics import RESULTS, read_comparison, read_metrics

    if is_sweep and (run / RESULTS).exists():
        members = sweep_members(read_comparison(RunDirectory.at(run)))
        return comparison_markdown(*comparison_table(members))
    if not is_sweep and (metrics := read_metrics(open_directory(run))) is not None:
        return results_markdown(result_rows(metrics))
    raise UsageError(f"{run} has no results yet; see `pae status {run}`")
