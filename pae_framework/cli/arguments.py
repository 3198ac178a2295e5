"""Arguments shared by commands, and how they are resolved: a finished run, a new file."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pae_framework.cli.output import installed_registry, progress_console, tell_loading, warn
from pae_framework.cli.shell_completion import (
    complete_override,
    complete_profile,
    complete_recipe,
    complete_run,
    complete_stage,
)
from pae_framework.errors import UsageError
from pae_framework.hub import default_or_file
from pae_framework.system.standard_streams import results_only

if TYPE_CHECKING:
    from pae_framework.execution.context import StageContext


def _inception_weights(weights: str) -> str:
    try:
        return str(Path(default_or_file(weights)).expanduser())
    except (ValueError, RuntimeError) as error:
        raise UsageError(f"--weights {weights}: {error}") from error


def _json_only(wanted: bool) -> bool:
    if wanted:
        results_only()
    return wanted


def json_option(text: str) -> Any:
    """The option ``--json`` of a command: nothing else is printed on standard output."""
    return typer.Option("--json", help=text, callback=_json_only, is_eager=True)


RecipeArgument = Annotated[
    str,
    typer.Argument(
        metavar="RECIPE",
        help="a recipe file, or the name of a shipped recipe",
        autocompletion=complete_recipe,
    ),
]
OverridesArgument = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="KEY.PATH=VALUE",
        help="set a value of the recipe; null removes the key",
        autocompletion=complete_override,
    ),
]
RunArgument = Annotated[
    Path,
    typer.Argument(
        metavar="RUN", help="directory of a run or a sweep", autocompletion=complete_run
    ),
]
StageArgument = Annotated[
    str | None,
    typer.Argument(
        metavar="STAGE",
        help="a stage of it",
        show_default=False,
        autocompletion=complete_stage,
    ),
]
TokenizerRunArgument = Annotated[
    Path,
    typer.Argument(
        metavar="RUN",
        help="directory of a run with a finished tokenizer",
        autocompletion=complete_run,
    ),
]
GeneratorRunArgument = Annotated[
    Path,
    typer.Argument(
        metavar="RUN",
        help="directory of a run with a finished generator",
        autocompletion=complete_run,
    ),
]
WeightsArgument = Annotated[
    Path,
    typer.Argument(
        metavar="FILE", help="weights to load: .pt or .safetensors, an index, or a folder"
    ),
]
OutputArgument = Annotated[
    Path, typer.Argument(metavar="FILE", help="file to write: .pt or .safetensors")
]
ForceOption = Annotated[bool, typer.Option("--force", help="replace an existing file")]
OnOption = Annotated[
    str | None,
    typer.Option(
        "--on",
        metavar="PROFILE",
        help="where the stages run: a profile (`pae profiles`), instead of the recipe's `launch`",
        autocompletion=complete_profile,
    ),
]
PluginOption = Annotated[
    list[Path] | None,
    typer.Option(
        "--plugin",
        metavar="FILE",
        help="a plugin of one Python file, which need not be installed; may be repeated",
    ),
]
ProcessesOption = Annotated[
    str | None,
    typer.Option(
        metavar="N|auto",
        help="processes on this machine; auto: one for each visible GPU; default: one, or those "
        "that torchrun started",
    ),
]
JsonOption = Annotated[bool, json_option("print JSON only")]
ProtocolOption = Annotated[
    bool,
    typer.Option("--protocol", help="also print how each value was measured"),
]
InceptionOption = Annotated[
    str,
    typer.Option(
        metavar="FILE",
        help="Inception weights: a local file; default: the published file in the cache of "
        "torch.hub; none: random weights, to test the wiring",
        callback=_inception_weights,
    ),
]
CropOption = Annotated[
    int | None,
    typer.Option(
        metavar="PX",
        min=1,
        max=8192,
        help="center-crop images of folders and data sources to this side in px; default: as they "
        "are, or the recipe's",
    ),
]
BatchSizeOption = Annotated[
    int, typer.Option(metavar="N", min=1, help="images at once; does not change the features")
]
CacheOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FOLDER", help="cache of features; default: ~/.cache/pae_framework/features"
    ),
]


class Format(StrEnum):
    """How weights are written."""

    SAFETENSORS = "safetensors"
    PT = "pt"


def check_output(file: Path, file_format: StrEnum | None, force: bool) -> bool:
    """Whether ``file`` is written as a torch file; otherwise it is written as safetensors.

    Raises:
        UsageError: the suffix is unknown or contradicts ``file_format``, or the file exists.
    """
    as_torch = file.suffix in (".pt", ".pth", ".ckpt", ".bin")
    if not as_torch and file.suffix != ".safetensors":
        raise UsageError(f"{file}: the file name must end in .safetensors or .pt")
    if file_format not in (None, Format.PT if as_torch else Format.SAFETENSORS):
        raise UsageError(f"--format {file_format} contradicts the file name {file.name}")
    if file.exists() and not force:
        raise UsageError(f"{file} exists; replace it with --force")
    return as_torch


def finished_context(run: Path, stage: str, plugins: Sequence[Path] | None = None) -> StageContext:
    """The context that reads ``stage`` of a run and the stages it depends on; prints on stderr.

    Torch is imported and configured by the recipe after the run was found. ``plugins`` are files
    besides those that the recipe names.

    Raises:
        UsageError: there is no such run, or one of these stages is not finished.
        RecipeError: the run's recipe no longer loads.
    """
    from pae_framework.runs.opened import open_run

    opened = open_run(run, installed_registry(plugins or ()))
    for file in opened.edited_plugins():
        warn(f"{file} was edited since the run, whose weights are those of the earlier code")
    tell_loading()
    from pae_framework.execution.context import StageContext, configure_torch

    configure_torch(opened.loaded.recipe.runtime)
    return StageContext.of_finished_run(opened, stage, progress_console())
