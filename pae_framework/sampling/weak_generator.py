"""The second network of autoguidance: the generator of another finished run."""

from __future__ import annotations

from pathlib import Path

from pae_framework.build import build_generator
from pae_framework.config import LatentShape
from pae_framework.contracts import Generator
from pae_framework.data.statistics import load_statistics
from pae_framework.errors import UsageError
from pae_framework.execution.context import StageContext
from pae_framework.recipe.derived import latent_shape
from pae_framework.runs.autoguidance_run import other_latents
from pae_framework.runs.opened import OpenedRun, open_run
from pae_framework.tensor_files import load_weights

TOLERANCE = 0.05
"""How far means, in deviations, and deviations, relatively, of the same latents may lie apart: they
are measured on some thousand images, which need not be the same."""


def load_weak_generator(
    context: StageContext, latent: LatentShape, num_classes: int
) -> Generator | None:
    """The generator of the run that ``sample.guidance.autoguidance`` names, frozen, on the device.

    None where the recipe names none.

    Raises:
        UsageError: there is no such run, it is not finished, or its generator works on latents of
            another shape or of another tokenizer.
        CheckpointError: its weights do not fit: it knows another number of classes.
    """
    settings = context.recipe.sample
    if settings is None or settings.guidance.autoguidance is None:
        return None
    other = open_run(Path(settings.guidance.autoguidance).expanduser(), context.registry)
    weights = _folder(other, "generator") / "weights.safetensors"
    _require_same_latents(context, other, latent)
    component = other.loaded.recipe.generator
    assert component is not None
    model = build_generator(component, latent, num_classes, context.registry)
    load_weights(model, weights)
    return model.requires_grad_(False).eval().to(context.device)


def _folder(run: OpenedRun, stage: str) -> Path:
    """Folder of a stage that is done."""
    return run.directory.stage(run.finished(stage)).path


def _require_same_latents(context: StageContext, other: OpenedRun, latent: LatentShape) -> None:
    """Latents of one shape, but made or normalised otherwise, are other coordinates altogether."""
    folder, found = _folder(other, "latents"), latent_shape(other.loaded.recipe)
    if (fault := other_latents(other.directory.path, found, latent)) is not None:
        raise UsageError(fault)
    ours, theirs = load_statistics(context.require("latents")), load_statistics(folder)
    means = (ours.mean - theirs.mean).abs() / ours.std
    deviations = (theirs.std / ours.std - 1).abs()
    if max(means.max().item(), deviations.max().item()) > TOLERANCE:
        raise UsageError(
            f"autoguidance: the latents of {other.directory.path} have other means and deviations "
            "than this run's: they are of another tokenizer, or of other images; name a run that "
            "shares this one's `latents` stage"
        )
