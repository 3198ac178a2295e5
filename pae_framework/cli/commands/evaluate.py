"""``pae evaluate``: metrics of a finished run, or of anyone's samples."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pae_framework.cli.arguments import (
    BatchSizeOption,
    CacheOption,
    CropOption,
    InceptionOption,
    JsonOption,
    PluginOption,
    ProcessesOption,
    ProtocolOption,
)
from pae_framework.cli.card_text import print_cards
from pae_framework.cli.output import (
    command_line,
    installed_registry,
    print_answer,
    progress_console,
    resumable,
    warn,
)
from pae_framework.cli.shell_completion import complete_run
from pae_framework.errors import UsageError
from pae_framework.system.printing import print_line

if TYPE_CHECKING:
    from pae_framework.launch.ranks import Ranks
    from pae_framework.registry import Registry

_OF_A_RUN = ("only", "again")
_OF_SAMPLES = ("samples", "reference", "metrics", "weights", "size", "batch_size", "cache")


class Convention(StrEnum):
    """Whose definitions of the metrics are used."""

    ADM = "adm"
    FIDELITY = "fidelity"


@resumable()
def evaluate(
    context: typer.Context,
    run: Annotated[
        Path | None,
        typer.Argument(
            metavar="RUN",
            autocompletion=complete_run,
            help="directory of a run, or of a member of a sweep, whose samples are done",
            show_default=False,
        ),
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(
            metavar="LABEL",
            help="with RUN: only this evaluator of the recipe; may be repeated",
        ),
    ] = None,
    again: Annotated[
        bool,
        typer.Option("--again", help="with RUN: run the evaluators anew although they are done"),
    ] = False,
    processes: ProcessesOption = None,
    samples: Annotated[
        str | None,
        typer.Option(
            metavar="SET",
            help="an npz file (arr_0: uint8, N x H x W x 3), a folder of images, a run, or "
            "RECIPE:train or RECIPE:test",
        ),
    ] = None,
    reference: Annotated[
        str | None,
        typer.Option(
            metavar="SET",
            help="a reference npz of the ADM evaluator, of pytorch-fid or of `pae reference "
            "build`, or a set of images as for --samples",
        ),
    ] = None,
    metrics: Annotated[
        Convention,
        typer.Option(
            help="adm: IS, FID, sFID, precision, recall as papers on ImageNet report them; "
            "fidelity: FID, KID, IS, precision, recall as torch-fidelity defines them, all in "
            "Inception's features"
        ),
    ] = Convention.ADM,
    weights: InceptionOption = "default",
    size: CropOption = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="also write the card as JSON")
    ] = None,
    batch_size: BatchSizeOption = 64,
    cache: CacheOption = None,
    protocol: ProtocolOption = False,
    plugin: PluginOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure a finished run by the evaluators of its recipe, or samples against a reference.

    With RUN, evaluators that are not done run. With --only, the others are left as they are; what
    is missing for them does not matter. Once all are done, the results and the report of the run
    are updated; until then, the folder of the results is printed.

    With --samples and --reference, FID and related metrics of anyone's images are computed.
    Features are cached under the contents of the images and the weights, so the same command
    resumes after an interruption, and a second reference costs nothing. What a reference lacks is
    reported before anything is computed.

    Examples:
        pae evaluate runs/quickstart --only generation --again

        pae evaluate --samples samples.npz --reference imagenet256.npz

        pae evaluate --samples png/ --reference photos/ --metrics fidelity

        pae evaluate --samples runs/a --reference quickstart:test --out card.json
    """
    from pae_framework.cli.extraction import CARD, require_writable

    _require_one_kind(context, run)
    if out is not None:
        require_writable(out, CARD)
    find_registry = partial(installed_registry, plugin or ())
    with _ranks(processes) as ranks:
        if run is not None:
            card = _of_run(run, tuple(only or ()), again, ranks, find_registry())
        else:
            from pae_framework.cli.extraction import extraction_of
            from pae_framework.evaluation.samples import evaluate_samples

            assert samples is not None
            assert reference is not None
            extraction = extraction_of(weights, cache, batch_size, ranks)
            measured = evaluate_samples(
                samples, reference, metrics.value, extraction, size, find_registry
            )
            card = measured.plain()
    _show(card, out, protocol, as_json)


def _require_one_kind(context: typer.Context, run: Path | None) -> None:
    """Check that the options are those of a run, or those of samples.

    Raises:
        UsageError: they are of both, or some are missing.
    """
    foreign = _OF_A_RUN if run is None else _OF_SAMPLES
    given = [
        f"--{name.replace('_', '-')}"
        for name in (*_OF_A_RUN, *_OF_SAMPLES)
        if (source := context.get_parameter_source(name)) and source.name == "COMMANDLINE"
    ]
    wrong = [name for name in given if name[2:].replace("-", "_") in foreign]
    if run is not None and wrong:
        raise UsageError(
            f"{', '.join(wrong)}: not with a run, whose recipe sets what is measured; for the "
            f"samples of a run against another reference: `--samples {run} --reference ...`"
        )
    if run is None and wrong:
        raise UsageError(f"{', '.join(wrong)}: name the run: `pae evaluate RUN {wrong[0]} ...`")
    lacking = [name for name in ("--samples", "--reference") if name not in given]
    if run is None and lacking:
        raise UsageError(f"name a run, or samples and a reference ({', '.join(lacking)} missing)")


@contextmanager
def _ranks(processes: str | None) -> Iterator[Ranks]:
    """The processes; one that a launcher started, other than the first, follows and ends here."""
    from pae_framework.distributed.place import place_of_process
    from pae_framework.launch.ranks import ranks_for

    if (place := place_of_process()) is not None and place.rank > 0:
        from pae_framework.launch.follower import follow

        raise typer.Exit(follow(place))
    with ranks_for(processes, progress_console()) as ranks:
        yield ranks


def _of_run(
    run: Path, only: tuple[str, ...], again: bool, ranks: Ranks, registry: Registry
) -> dict[str, Any]:
    from pae_framework.launch.evaluate_run import EvaluateOptions, evaluate_run

    console = progress_console()
    options = EvaluateOptions(only, again, command_line())
    return evaluate_run(run, options, registry, ranks, console, warn)


def _show(card: dict[str, Any], out: Path | None, protocol: bool, as_json: bool) -> None:
    from pae_framework.system.files import write_json

    if out is not None:
        write_json(out, card)
    if as_json:
        print_answer("evaluate", card)
    else:
        print_cards({"": card}, protocol)
        if out is not None:
            print_line(f"card: {out}")
    for caution in card["cautions"]:
        warn(caution)
