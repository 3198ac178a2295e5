"""Stage ``latents`` of a recipe with ``latents.folder``: what others wrote, tied to this run."""

from __future__ import annotations

from pathlib import Path

from pae_framework.data.statistics import (
    BARE_NAME,
    SAFE_NAME,
    TORCH_NAME,
    LatentStatistics,
    compute_statistics,
)
from pae_framework.errors import DataError
from pae_framework.execution.context import StageContext
from pae_framework.execution.run_latents import (
    latents_folder,
    load_statistics_for,
    require_own_tokenizer,
    run_latents,
    tokenizer_identity,
)
from pae_framework.files import write_json
from pae_framework.recipe.derived import latent_shape
from pae_framework.runs.record import StageRecord


def take_folder(context: StageContext) -> None:
    """Check the latents and write their statistics as those of this run. No image is read.

    ``latents_stats`` in both forms, and ``latents.json``, which says what the folder was. Nothing
    is written into the folder; statistics that it lacks are measured. Latents whose statistics name
    no tokenizer, as LightningDiT's, are of this one by the recipe's word.

    Raises:
        DataError: there are no latents or not all of them yet; a file is damaged; or they do not
            fit the recipe: channels, side, labels.
        CheckpointError: they are of another tokenizer.
    """
    folder = latents_folder(context)
    _require_finished(folder)
    require_own_tokenizer(context, folder, "name latents of this run's tokenizer in latents.folder")
    dataset = run_latents(context)
    statistics, origin = _statistics(context, folder)
    statistics.save(context.directory, tokenizer_identity(context))
    description = {
        "folder": str(folder.absolute()),
        "shards": len(dataset.paths),
        "latents": len(dataset),
        "shape": str(dataset.shape),
        "statistics": origin,
    }
    write_json(context.directory / "latents.json", description)
    context.update_record(weights=folder.name)


def _require_finished(folder: Path) -> None:
    """Another run's latents are all there only when its stage says so."""
    record = StageRecord(folder)
    if record.file.is_file() and not record.done:
        raise DataError(
            f"{folder}: the run that writes these latents is not done with them "
            f"({record.info.get('state')}); finish it first"
        )


def _statistics(context: StageContext, folder: Path) -> tuple[LatentStatistics, str]:
    """Statistics of the latents, and the file they are from."""
    for name in (SAFE_NAME, BARE_NAME, TORCH_NAME):
        if (folder / name).is_file():
            return load_statistics_for(latent_shape(context.recipe), folder / name), name
    return compute_statistics(folder), "measured"
