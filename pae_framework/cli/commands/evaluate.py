"""``pae evaluate``: metrics of a finished run, or of anyone's samples."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pae_framework.cli.arguments import (
    BatchSizeOption,
    CacheOption,
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
_OF_A_TOKENIZER = ("tokenizer", "data", "images", "run_dir")
_OF_SAMPLES = ("samples", "reference", "metrics", "weights", "batch_size", "cache")


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
    tokenizer: Annotated[
        str | None,
        typer.Option(
            metavar="TOKENIZER",
            help="a map as in a recipe, such as '{use: diffusers_vae, model: FOLDER}', the name of "
            "a component, a run, or a recipe that trains no tokenizer",
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            metavar="SET",
            help="with --tokenizer: a folder of images, or RECIPE:train or RECIPE:test",
        ),
    ] = None,
    images: Annotated[
        int, typer.Option(min=2, help="with --tokenizer: the most images, chosen at random")
    ] = 500,
    run_dir: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="with --tokenizer: directory of the run  [default: runs/evaluate-<name>]",
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
    size: Annotated[
        int | None,
        typer.Option(
            metavar="PX",
            min=1,
            max=8192,
            help="center-crop images of folders and data sources to this side in px; default: as "
            "they are, or the recipe's; with --tokenizer and a folder whose images differ or are "
            "larger than 512 px: 256",
        ),
    ] = None,
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

    With --tokenizer and --data, a run without a generator measures reconstructions and the
    diagnostics of the latents, and writes a report with the verdict.

    With --samples and --reference, FID and related metrics of anyone's images are computed.
    Features are cached under the contents of the images and the weights, so the same command
    resumes after an interruption, and a second reference costs nothing. What a reference lacks is
    reported before anything is computed.

    Examples:
        pae evaluate runs/quickstart --only generation --again

        pae evaluate --samples samples.npz --reference imagenet256.npz

        pae evaluate --samples png/ --reference photos/ --metrics fidelity

        pae evaluate --samples runs/a --reference quickstart:test --out card.json

        pae evaluate --tokenizer '{use: diffusers_vae, model: vae/}' --data art/
    """
    from pae_framework.cli.extraction import CARD, require_writable

    _require_one_kind(context, run)
    if out is not None:
        require_writable(out, CARD)
    find_registry = partial(installed_registry, plugin or ())
    with _ranks(processes) as ranks:
        if tokenizer is not None:
            assert data is not None
            card = _of_tokenizer(tokenizer, data, images, size, run_dir, ranks, plugin or ())
        elif run is not None:
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
    """Check that the options are those of a run, of a tokenizer, or of samples.

    Raises:
        UsageError: they are of several, or some are missing.
    """
    given = [
        f"--{name.replace('_', '-')}"
        for name in (*_OF_A_RUN, *_OF_A_TOKENIZER, *_OF_SAMPLES, "size")
        if (source := context.get_parameter_source(name)) and source.name == "COMMANDLINE"
    ]
    if any(name[2:].replace("-", "_") in _OF_A_TOKENIZER for name in given):
        _require_tokenizer(given, run)
        return
    foreign = _OF_A_RUN if run is None else (*_OF_SAMPLES, "size")
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


def _require_tokenizer(given: list[str], run: Path | None) -> None:
    known = (*_OF_A_TOKENIZER, "size")
    wrong = [name for name in given if name[2:].replace("-", "_") not in known]
    if run is not None or wrong:
        raise UsageError(f"{', '.join(wrong) or run}: not with --tokenizer")
    if lacking := [name for name in ("--tokenizer", "--data") if name not in given]:
        raise UsageError(f"{', '.join(lacking)} missing: name a tokenizer and images")


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


def _of_tokenizer(
    tokenizer: str,
    data: str,
    images: int,
    size: int | None,
    run_dir: Path | None,
    ranks: Ranks,
    plugins: Sequence[Path],
) -> dict[str, Any]:
    from pae_framework.launch.start import RunOptions, run_recipe
    from pae_framework.launch.tokenizer_evaluation import tokenizer_evaluation
    from pae_framework.report.text import verdict_lines
    from pae_framework.runs.cards import stage_card
    from pae_framework.runs.directory import REPORT
    from pae_framework.runs.run_verdict import read_verdict

    registry = installed_registry(plugins)
    found = tokenizer_evaluation(tokenizer, data, images, size, registry, plugins)
    options = RunOptions(run_dir, found.store, command=command_line())
    console = progress_console()
    console.print(str(found), markup=False, highlight=False)
    directory = run_recipe(found.loaded, options, console, warn, ranks)
    if (verdict := read_verdict(directory)) is not None:
        for line in verdict_lines(verdict):
            console.print(line, markup=False, highlight=False)
    console.print(f"report: {directory.path / REPORT}", markup=False, highlight=False)
    return stage_card(directory, directory.plan["evaluate"])


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
