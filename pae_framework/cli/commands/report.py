"""``pae report``: rewrite the report of a run or a sweep, or compare how runs converge."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pae_framework.cli.arguments import JsonOption, PluginOption, finished_context
from pae_framework.cli.output import (
    command_line,
    installed_registry,
    print_answer,
    print_table,
    warn,
)
from pae_framework.cli.shell_completion import complete_run
from pae_framework.errors import PaeError, UsageError
from pae_framework.system.printing import print_line

if TYPE_CHECKING:
    from pae_framework.recipe.loaded import LoadedRecipe
    from pae_framework.registry import Registry
    from pae_framework.report.convergence import Convergence

DEFAULT_PAGE = Path("convergence.html")


def report(
    runs: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN...",
            autocompletion=complete_run,
            help="directory of a run or a sweep; or several runs",
        ),
    ],
    markdown: Annotated[
        bool, typer.Option("--markdown", help="only print the tables of results, as Markdown")
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help=f"of several runs: the page to write; default: {DEFAULT_PAGE}, none with --json",
        ),
    ] = None,
    reach: Annotated[
        list[float] | None,
        typer.Option(
            metavar="VALUE",
            help="also list when each run first reaches this value; may be given several times",
        ),
    ] = None,
    plugin: PluginOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write report.html from the results of a run, or compare how several runs converge.

    The report of a sweep compares the members that are finished, beside the values of a paper if
    the recipe states some.

    Several runs, or one with --reach, --out or --json, are compared over the steps of their
    generators: charts, how many times fewer steps a run needs to reach the last value of another,
    and when each reaches a value. Steps between measured ones are interpolated linearly; nothing is
    extrapolated. Runs with other protocols are marked.

    Examples:
        pae report runs/quickstart

        pae report runs/fashion_mnist_ablation --markdown

        pae report runs/a runs/b --reach 2.0 --out a_and_b.html
    """
    from pae_framework.runs.directory import REPORT, RunDirectory

    if len(runs) > 1 or out is not None or reach or as_json:
        if markdown:
            raise UsageError("--markdown takes one run, and no --reach, --out or --json")
        _compare_convergence(runs, out, reach or [], as_json, installed_registry(plugin or ()))
        return
    (run,) = runs
    is_sweep = "members" in RunDirectory.at(run).info
    if markdown:
        print_line(_markdown(run, is_sweep, plugin))
        return
    if is_sweep:
        _write_sweep(run, plugin)
    else:
        _write_run(run, plugin)
    print_line(str(run / REPORT))


def _compare_convergence(
    runs: list[Path],
    out: Path | None,
    targets: list[float],
    as_json: bool,
    registry: Registry,
) -> None:
    from pae_framework.cli.extraction import PAGE, require_writable
    from pae_framework.report.convergence import convergences, has_steps
    from pae_framework.report.convergence_table import plain
    from pae_framework.runs.learning_curves import trained_runs

    if not all(map(math.isfinite, targets)):
        raise UsageError("--reach takes numbers, not nan or inf")
    page = out or (None if as_json else DEFAULT_PAGE)
    if page is not None:
        require_writable(page, PAGE)
    trained = trained_runs(runs, registry)
    found = convergences(trained)
    if not found and not any(map(has_steps, trained)):
        raise UsageError(
            "no evaluator of these runs measures samples; add one, such as `generation`, to "
            "`evaluate` of the recipe"
        )
    if not found:
        raise UsageError(
            "no metric of these runs was measured at two steps of the generator; set "
            "generator.train.keep_steps and sample.at_steps, e.g. to [1000, 2000]"
        )
    if page is not None:
        from pae_framework.report.convergence_page import render_convergence
        from pae_framework.system.files import write_text

        write_text(page, render_convergence(found, targets, command_line()))
    if as_json:
        metrics = [plain(one, targets) for one in found]
        print_answer("report", {"convergence": 1, "metrics": metrics})
        return
    for one in found:
        _print(one, targets)
    print_line(str(page))


def _print(found: Convergence, targets: list[float]) -> None:
    from pae_framework.report import convergence_table as table
    from pae_framework.report.convergence import INTERPOLATION

    print_line(table.title(found))
    for heading, rows in (
        (table.CURVES, table.curve_rows(found)),
        (table.SPEEDUPS, table.speedup_rows(found)),
        (table.REACH, table.reach_rows(found, targets)),
    ):
        if rows:
            print_table(heading, rows)
            print_line("")
    for text in table.notes(found):
        print_line(text)
    print_line(f"interpolation: {INTERPOLATION}")
    print_line("")


def _write_run(run: Path, plugin: Sequence[Path] | None) -> None:
    context = finished_context(run, "report", plugin)
    from pae_framework.stages.report import rewrite

    rewrite(context)


def _write_sweep(run: Path, plugin: Sequence[Path] | None) -> None:
    from pae_framework.launch.run_sweep import compare_members
    from pae_framework.runs.directory import RunDirectory

    compare_members(_sweep_recipe(run, plugin), RunDirectory.at(run))


def _sweep_recipe(run: Path, plugin: Sequence[Path] | None) -> LoadedRecipe:
    from pae_framework.recipe.load import load_recipe
    from pae_framework.runs.directory import RESOLVED, RunDirectory

    RunDirectory.at(run).text(RESOLVED)
    return load_recipe(run / RESOLVED, (), installed_registry(plugin or ()))


def _markdown(run: Path, is_sweep: bool, plugin: Sequence[Path] | None) -> str:
    from pae_framework.report.table import comparison_table, result_rows, sweep_members
    from pae_framework.report.text import comparison_markdown, paper_markdown, results_markdown
    from pae_framework.runs.directory import RunDirectory
    from pae_framework.runs.opened import open_directory
    from pae_framework.runs.run_metrics import RESULTS, read_comparison, read_metrics
    from pae_framework.runs.sweep_paper import beside_paper

    if is_sweep and (run / RESULTS).exists():
        members = sweep_members(read_comparison(RunDirectory.at(run)))
        tables = [comparison_markdown(*comparison_table(members))]
        try:
            paper = beside_paper(_sweep_recipe(run, plugin), members)
        except PaeError as error:
            warn(f"published values are left out, because the recipe does not load: {error}")
        else:
            tables += [paper_markdown(paper)] if paper else []
        return "\n\n".join(tables)
    if not is_sweep and (metrics := read_metrics(open_directory(run))) is not None:
        return results_markdown(result_rows(metrics))
    raise UsageError(f"{run} has no results yet; see `pae status {run}`")
