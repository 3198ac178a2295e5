"""``pae tune-guidance``: which guidance scale, interval and shift give the smallest distance."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pae_framework.cli.arguments import (
    GeneratorRunArgument,
    InceptionOption,
    JsonOption,
    PluginOption,
    ProcessesOption,
    finished_context,
)
from pae_framework.cli.output import print_answer, print_table, progress_console, resumable, warn
from pae_framework.cli.shell_completion import complete_solver
from pae_framework.errors import UsageError
from pae_framework.system.printing import print_line

if TYPE_CHECKING:
    from pae_framework.evaluation.tune_guidance import Measured, Tuning
    from pae_framework.execution.context import StageContext
    from pae_framework.flow.flow_settings import SampleSettings

FOLDER = "guidance"
LOGS = "logs"


class Distance(StrEnum):
    """The features that are compared."""

    FD = "fd"
    FID = "fid"


@resumable()
def tune_guidance(
    run: GeneratorRunArgument,
    scales: Annotated[
        str, typer.Option(metavar="NUMBERS", help="guidance scales; 1: no guidance")
    ] = "1,1.25,1.5,2,3",
    intervals: Annotated[
        str | None,
        typer.Option(
            metavar="LOW:HIGH,...",
            help="times with guidance (0 noise, 1 data): 0:1,0.1:1; default: the recipe's",
        ),
    ] = None,
    shifts: Annotated[
        str | None,
        typer.Option(metavar="NUMBERS", help="shifts of times: 0.4,1; default: the recipe's"),
    ] = None,
    images: Annotated[
        int, typer.Option(min=2, metavar="N", help="images sampled per point")
    ] = 1000,
    metric: Annotated[
        Distance | None,
        typer.Option(
            help="fd: Frechet distance in the features of the run's extractor; fid: in those of "
            "Inception; default: fd if the run has an extractor"
        ),
    ] = None,
    weights: InceptionOption = "default",
    steps: Annotated[int | None, typer.Option(min=1, metavar="N", help="integration steps")] = None,
    solver: Annotated[
        str | None,
        typer.Option(
            metavar="SOLVER",
            autocompletion=complete_solver,
            help="euler, heun, ab2, euler_maruyama, sde_heun, dopri5",
        ),
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, metavar="N", help="seed of the noise")] = None,
    precision: Annotated[
        str | None, typer.Option(metavar="TYPE", help="float32, or bf16: faster on a GPU")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help=f"folder for the results; default: RUN/{FOLDER}"),
    ] = None,
    processes: ProcessesOption = None,
    plugin: PluginOption = None,
    as_json: JsonOption = False,
) -> None:
    """Sample a run over a grid of guidance settings, and list their distances to the test images.

    Every combination of scale, interval and shift is sampled with the same noise and labels, with
    the recipe's other settings. The results are kept: the same command resumes, and a larger grid
    computes only the new points. The last line is the recipe's `sample` section with the settings
    of the best point.

    Distances of few images are too large, and the least of many values is too small for its
    setting. Measure the best points again with more images and another seed.

    Example:
        pae tune-guidance runs/quickstart --scales 1,1.5,2 --images 1000
    """
    from pae_framework.distributed.place import place_of_process
    from pae_framework.launch.ranks import ranks_for

    if (place := place_of_process()) is not None and place.rank > 0:
        from pae_framework.launch.follower import follow

        raise typer.Exit(follow(place))
    with ranks_for(processes, progress_console()) as ranks:
        context = finished_context(run, "generator", plugin)
        from functools import partial

        from pae_framework.evaluation.tune_guidance import (
            measured,
            prepare_folder,
            reading_extractor,
            tune,
        )
        from pae_framework.flow.flow_settings import SampleSettings

        chosen = metric or (Distance.FID if context.recipe.extractor is None else Distance.FD)
        if chosen is Distance.FD:
            context = reading_extractor(context)
        options = {"steps": steps, "solver": solver, "seed": seed, "precision": precision}
        grid, folder = (scales, intervals, shifts), out or run / FOLDER
        tuning = _tuning(context, grid, options, images, chosen, weights, folder)
        prepare_folder(tuning.folder)
        ranks.run(context, partial(tune, tuning=tuning), tuning.folder / LOGS)
    own = context.recipe.sample or SampleSettings()
    _print(measured(context, tuning), tuning, own, as_json)


def _tuning(
    context: StageContext,
    grid: tuple[str, str | None, str | None],
    options: dict[str, int | str | None],
    images: int,
    metric: Distance,
    weights: str,
    folder: Path,
) -> Tuning:
    from pae_framework.evaluation.tune_guidance import Tuning
    from pae_framework.flow.flow_settings import SampleSettings
    from pae_framework.flow.guidance_grid import (
        grid_points,
        parse_intervals,
        parse_scales,
        parse_shifts,
    )
    from pae_framework.sampling.sample_to_folder import sampling_settings

    scales = parse_scales(grid[0])
    own = context.recipe.sample or SampleSettings()
    points = grid_points(
        scales,
        [own.guidance.interval] if grid[1] is None else parse_intervals(grid[1]),
        [None] if grid[2] is None else parse_shifts(grid[2]),
    )
    if own.labels == "balanced" and images < context.num_classes:
        raise UsageError(f"--images {images} is less than the {context.num_classes} classes")
    options = {**options, "count": images}
    base = sampling_settings(context.recipe, context.registry, max(scales), options)
    return Tuning(tuple(points), base, metric.value, weights, folder)


def _print(found: list[Measured], tuning: Tuning, own: SampleSettings, as_json: bool) -> None:
    from pae_framework.evaluation.tune_guidance import best_line, cautions
    from pae_framework.report.metrics import decimals_for, fixed

    label, line = found[0].label, best_line(own, found[0].point.settings(tuning.base))
    told = cautions(tuning.base.count, found)
    if as_json:
        points = [
            {"value": entry.value, "sample": entry.point.changes, "protocol": dict(entry.protocol)}
            for entry in found
        ]
        print_answer(
            "tune-guidance",
            {"tune_guidance": 1, "metric": label, "points": points, "best": line, "cautions": told},
        )
        return
    decimals = decimals_for(entry.value for entry in found)
    rows = [
        (
            fixed(entry.value, decimals),
            f"{entry.point.scale:g}",
            "" if entry.point.scale == 1 else ":".join(f"{t:g}" for t in entry.point.interval),
            *([] if entry.point.shift is None else [f"{entry.point.shift:g}"]),
            f"{entry.protocol['evaluations']} ({entry.protocol.get('guided_evaluations', 0)})",
        )
        for entry in found
    ]
    shift = [] if found[0].point.shift is None else ["shift"]
    print_table((label, "scale", "interval", *shift, "evaluations (guided)"), rows)
    for text in told:
        warn(text)
    print_line("best; replaces the `sample` section of the recipe:")
    print_line(line)
