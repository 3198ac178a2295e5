"""Stage ``latents`` with ``latents.folder`` or ``latents.statistics``: no image is encoded."""

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
from pae_framework.interop.provenance import describe_file, record_source, require_file
from pae_framework.recipe.derived import latent_shape
from pae_framework.runs.record import StageRecord


def adopt_latents_folder(context: StageContext) -> None:
    """Check the latents in ``latents.folder`` and write their statistics as this run's.

    Reads no image and writes nothing into the folder. Writes ``latents_stats`` (safetensors and
    ``.pt``), measured if the folder has none, and ``latents.json``, which describes the folder. If
    the statistics name no tokenizer, as LightningDiT's do not, the framework cannot verify that the
    latents belong to this run's tokenizer.

    Raises:
        DataError: there are no latents, or the run that writes them has not finished; a file is
            damaged; or channels, side or labels do not fit the recipe.
        CheckpointError: the latents belong to another tokenizer.
    """
    folder = latents_folder(context)
    _require_finished(folder)
    require_own_tokenizer(context, folder, "set latents.folder=<latents of this run's tokenizer>")
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


def adopt_statistics_file(context: StageContext, file: str) -> None:
    """Write the statistics in ``file`` as those of this run's latents. Reads no image.

    Writes ``latents_stats`` (safetensors and ``.pt``) and ``statistics.json``, which describes the
    file. The framework cannot verify that the statistics belong to this tokenizer's latents.

    Raises:
        DataError: the file is missing or damaged, holds no valid statistics, or is for latents
            with another number of channels.
    """
    path = require_file(file, "latents.statistics")
    statistics = load_statistics_for(latent_shape(context.recipe), path)
    statistics.save(context.directory, tokenizer_identity(context))
    record_source(context, "statistics.json", describe_file(path))


def _require_finished(folder: Path) -> None:
    """Reject a folder that another run has not finished writing."""
    record = StageRecord(folder)
    if record.file.is_file() and not record.done:
        raise DataError(
            f"{folder}: stage `latents` of the run that writes it is not finished "
            f"({record.info.get('state')}); finish that run first"
        )


def _statistics(context: StageContext, folder: Path) -> tuple[LatentStatistics, str]:
    """Statistics of the latents, and the name of their file or ``measured``."""
    for name in (SAFE_NAME, BARE_NAME, TORCH_NAME):
        if (folder / name).is_file():
            return load_statistics_for(latent_shape(context.recipe), folder / name), name
    return compute_statistics(folder), "measured"
