"""The verdict on a run, from its metrics. No torch."""

from __future__ import annotations

from pae_framework.recipe.smoke import is_smoke
from pae_framework.report.verdict import Verdict, judge
from pae_framework.runs.directory import RunDirectory
from pae_framework.runs.run_metrics import read_metrics


def read_verdict(directory: RunDirectory) -> Verdict | None:
    """Whether the latent space of a run is easy to diffuse in.

    It is computed when it is read, so better rules also apply to earlier runs.

    Returns:
        The verdict; None if the run has no diagnostics, or not yet.

    Raises:
        RunError: the file of metrics is missing, damaged or not the one that the stage wrote.
    """
    metrics = read_metrics(directory)
    return None if metrics is None else judge(metrics, smoke=is_smoke(directory.info["name"]))
