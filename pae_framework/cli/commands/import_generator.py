"""``pae import generator``: load generator weights trained elsewhere into a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pae_framework.cli.arguments import (
    OverridesArgument,
    PluginOption,
    TokenizerRunArgument,
    WeightsArgument,
)
from pae_framework.cli.output import (
    command_line,
    installed_registry,
    progress_console,
    tell_loading,
)
from pae_framework.system.printing import print_line


def import_generator(
    file: WeightsArgument,
    run: TokenizerRunArgument,
    overrides: OverridesArgument = None,
    statistics: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="statistics of the latents it was trained on: latents_stats.pt or .safetensors; "
            "default: those of the run's latents, computed if needed",
        ),
    ] = None,
    plugin: PluginOption = None,
) -> None:
    """Load a generator trained elsewhere into a run, as if this run had trained it.

    Reads LightningDiT's files, our own and those of similar programs: the average (`ema`,
    `model_ema`), or `model` if there is none; otherwise the whole file is the state dict. Prints
    what was read. Only tensors and plain values are unpickled.

    The whole file is checked before anything is written. If it is for another network, the error
    lists the differences. The run keeps copies of the files. Stages that were trained earlier stay
    in its `stages` folder. With --statistics no images are needed.

    Examples:
        pae import generator 0100000.pt runs/full --statistics stats.pt

        pae import generator 1000000.pt runs/full generator.qk_norm=true

        pae sample runs/full --labels 207,360 --steps 10 --guidance 2.5
    """
    from pae_framework.launch.import_run import import_generator

    tell_loading()
    console, registry = progress_console(), installed_registry(plugin or ())
    import_generator(
        file, run, statistics, overrides or (), registry, command_line(), console, plugin or ()
    )
    print_line(f"imported into {run}; sample from it, or run the remaining stages:")
    print_line(f"  pae sample {run} --count 16")
    print_line(f"  pae run {run / 'resolved.yaml'} --run-dir {run}")
