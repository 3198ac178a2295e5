"""Averages of a training that were not tracked, from the snapshots of others (EDM2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor

from pae_framework.errors import UsageError
from pae_framework.execution.context import StageContext
from pae_framework.runs.results import StageResults
from pae_framework.tensor_files import load_tensors, save_tensors
from pae_framework.training.power_profiles import Combination, Profile, combine
from pae_framework.training.train_settings import EmaSnapshots

LARGEST_ERROR = 0.05
"""Of a reconstructed profile, relative to its norm."""
SAVED: Mapping[str, tuple[str, str]] = {
    "generator": ("weights.safetensors", ""),
    "tokenizer": ("tokenizer.safetensors", "tokenizer."),
}
"""Stage -> the file that a recipe can load, and what its names lack of those in the training."""


def export_ema(context: StageContext, stage: str, length: float, file: Path) -> Combination:
    """Write the weights of a finished stage, averaged with the profile of a relative length.

    The file has the names, buffers and frozen weights of the one that the stage wrote, and loads
    like that as ``generator.weights`` or ``tokenizer.weights``.

    Args:
        context: may read the stage.
        stage: a key of :data:`SAVED`.
        length: relative length, as in :class:`EmaSnapshots`.
        file: safetensors to write.

    Returns:
        How the snapshots were combined.

    Raises:
        UsageError: the stage has no snapshots, or too few for this length.
        RunError: a file of the stage is missing or has changed.
        CheckpointError: one of them cannot be read.
    """
    results = context.results(stage)
    loaded = getattr(getattr(context.recipe, stage), "weights", None)
    stored = stored_profiles(results, stage, loaded)
    combination = combination_of(stored, length, stage)
    averages = weighted_sum(results, dict(zip(stored, combination.factors, strict=True)))
    name, prefix = SAVED[stage]
    saved = load_tensors(results.file(name))
    averaged = {
        key: averages.get(prefix + key, value).to(value.dtype) for key, value in saved.items()
    }
    save_tensors(averaged, file, {"format": "pt", "ema_length": repr(length)})
    return combination


def stored_profiles(results: StageResults, stage: str, loaded: str | None = None) -> list[Profile]:
    """The profiles of the snapshots of a stage, sorted.

    Args:
        results: of the stage.
        stage: its name.
        loaded: the weights file that it loaded; None: it trained.

    Raises:
        UsageError: there are none; names the folders of other trainings that have some.
    """
    found = [EmaSnapshots.read_name(name) for name in results.names()]
    if stored := sorted(Profile(*one) for one in found if one):
        return stored
    message = f"{results.folder} has no snapshots"
    if loaded is not None:
        message += f", because {stage}.weights={loaded} was loaded and not trained"
    setting = f"{stage}.train.ema_snapshots={{every: <steps>}}"
    remedy = f"set {setting} and train it again"
    if others := _with_snapshots(results.folder.resolve().parent, stage):
        remedy = (
            f"{' and '.join(map(str, others))} has some: run the recipe with the settings of that "
            f"training ({stage}.weights=null), which takes it as it is, and export again"
        )
    raise UsageError(f"{message}; {remedy}")


def _with_snapshots(store: Path, stage: str) -> list[Path]:
    """Folders of a stage, among all stages of a run, that have snapshots."""
    return sorted({file.parent.parent for file in store.glob(f"{stage}-*/snapshots/ema-*")})


def combination_of(stored: Sequence[Profile], length: float, stage: str) -> Combination:
    """The combination for a length at the last of the stored steps.

    Raises:
        UsageError: its error is above :data:`LARGEST_ERROR`.
    """
    found = combine(stored, Profile(length, max(profile.step for profile in stored)))
    if found.error <= LARGEST_ERROR:
        return found
    lengths = " or ".join(str(x) for x in sorted({profile.length for profile in stored}))
    raise UsageError(
        f"{len(stored)} snapshots cannot reproduce length {length:g}: the nearest combination is "
        f"{found.error:.1%} from its profile (at most {LARGEST_ERROR:.0%}); choose a length nearer "
        f"to {lengths}, or train with a smaller {stage}.train.ema_snapshots.every"
    )


def weighted_sum(results: StageResults, factors: Mapping[Profile, float]) -> dict[str, Tensor]:
    """The sum of snapshots, each times its factor; float64."""
    total: dict[str, Tensor] = {}
    for profile, factor in factors.items():
        tensors = load_tensors(results.file(EmaSnapshots.file(profile.length, profile.step)))
        for name, value in tensors.items():
            total[name] = total.get(name, 0.0) + factor * value.double()
    return total
