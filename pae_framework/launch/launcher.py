"""The interface of launchers, and the choice of the one that runs a recipe.

To add a launcher, such as one for Slurm, write a class with this ``run`` in a file beside
``local.py``, and return it from :func:`choose_launcher`. Everything that runs a recipe calls that
function: ``pae run``, sweeps, ``pae import`` and ``scripts/gpu_check.py``.
"""

from __future__ import annotations

from typing import Protocol

from pae_framework.launch.local import LocalLauncher
from pae_framework.launch.ranks import Ranks
from pae_framework.recipe.loaded import LoadedRecipe
from pae_framework.runs.directory import RunDirectory
from pae_framework.system.console import PlainConsole


class Launcher(Protocol):
    """Runs the stages of one recipe, here or elsewhere."""

    def run(
        self,
        loaded: LoadedRecipe,
        directory: RunDirectory,
        command: str,
        until: str | None = None,
    ) -> None:
        """Run every unfinished stage; see :meth:`pae_framework.launch.local.LocalLauncher.run`."""


def choose_launcher(console: PlainConsole, ranks: Ranks | None = None) -> Launcher:
    """The launcher that runs recipes in the processes of this command.

    With a profile, ``launch/submitter.py`` submits jobs instead, in which this launcher runs.

    Args:
        console: shows progress.
        ranks: the processes; None: this one.
    """
    return LocalLauncher(console, ranks)
