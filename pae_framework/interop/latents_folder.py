"""Stage ``latents`` with ``latents.folder`` or ``latents.statistics``: no image is encoded."""

from __future__ import annotations

from pathlib import Path

from pae_framework.data.latent_dataset import LatentDataset, shard_name, shard_numbers
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
    DESCRIPTION,
    latents_folder,
    load_statistics_for,
    open_latents,
    require_own_tokenizer,
    tokenizer_identity,
)
from pae_framework.interop.provenance import describe_file, record_source, require_file
from pae_framework.recipe.derived import latent_shape
from pae_framework.runs.record import StageRecord
from pae_framework.runs.results import StageResults, describe_files
from pae_framework.system.files import write_json


def adopt_latents_folder(context: StageContext) -> None:
    """Check the latents in ``latents.folder`` and write their statistics as this run's.

    Reads no image and writes nothing into the folder. Writes ``latents_stats`` (safetensors and
    ``.pt``), measured if the folder has none, and ``latents.json``, which describes the folder and
    lists its shards. If the statistics name no tokenizer, as LightningDiT's do not, the framework
    cannot verify that the latents belong to this run's tokenizer.

    Raises:
        DataError: there are no latents, or the run that writes them has not finished; a file is
            damaged or missing; or channels, side, labels or their number do not fit the recipe.
        RunError: a run wrote the folder, and a file has changed since.
        CheckpointError: the latents belong to another tokenizer.
    """
    folder = latents_folder(context)
    _require_finished(folder)
    require_own_tokenizer(context, folder, "set latents.folder=<latents of this run's tokenizer>")
    dataset = open_latents(context)
    _require_all_shards(dataset, _training_images(context))
    statistics, origin = _statistics(context, folder)
    statistics.save(context.directory, tokenizer_identity(context))
    description = {
        "folder": str(folder.absolute()),
        "shards": len(dataset.paths),
        "latents": len(dataset),
        "shape": str(dataset.shape),
        "statistics": origin,
        "files": describe_files(folder, [path.name for path in dataset.paths]),
    }
    write_json(context.directory / DESCRIPTION, description)
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
    """Reject a folder that another run has not finished writing, or that has changed since."""
    record = StageRecord(folder)
    if record.file.is_file() and not record.done:
        raise DataError(
            f"{folder}: stage `latents` of the run that writes it is not finished "
            f"({record.info.get('state')}); finish that run first"
        )
    remedy = "copy the folder again, or run the stage that wrote it again with --again latents"
    StageResults(folder, record.info.get("results"), remedy).files()


def _training_images(context: StageContext) -> int | None:
    """Number of training images, if the recipe states it or the images are on this machine."""
    config = context.recipe.data.train.config
    if (stated := config.expected()) is not None:
        return stated[0]
    return len(context.train_source) if config.missing() is None else None


def _require_all_shards(dataset: LatentDataset, images: int | None) -> None:
    """Reject a folder in which shards are missing or left from elsewhere.

    The numbers of ranks and of the shards of each rank must have no gap, and all ranks must have
    the same number of latents, up to one: each took every so-many-th image, and LightningDiT
    repeats a few images so that they share equally. If the number of training images is known,
    the latents must be as many.
    """
    folder = dataset.paths[0].parent
    rows: dict[int, dict[int, int]] = {}
    for path, size in zip(dataset.paths, dataset.sizes, strict=True):
        rank, shard = shard_numbers(path)
        rows.setdefault(rank, {})[shard] = size
    for rank in range(max(rows) + 1):
        shards = rows.get(rank, {})
        for shard in range(max(shards, default=0) + 1):
            if shard not in shards:
                raise DataError(
                    f"{folder / shard_name(rank, shard)} is missing; copy the folder again"
                )
    totals = {rank: sum(shards.values()) for rank, shards in sorted(rows.items())}
    if max(totals.values()) - min(totals.values()) > 1:
        counts = ", ".join(f"rank {rank}: {total}" for rank, total in totals.items())
        raise DataError(
            f"{folder}: the ranks have different numbers of latents ({counts}); shards are missing "
            "or belong to other latents; copy the folder again"
        )
    if images is not None and not 0 <= len(dataset) - images < len(totals):
        raise DataError(
            f"{folder} has {len(dataset)} latents, but data.train has {images} images; copy the "
            "folder again if shards are missing, or name in data.train the images that were encoded"
        )


def _statistics(context: StageContext, folder: Path) -> tuple[LatentStatistics, str]:
    """Statistics of the latents, and the name of their file or ``measured``."""
    for name in (SAFE_NAME, BARE_NAME, TORCH_NAME):
        if (folder / name).is_file():
            return load_statistics_for(latent_shape(context.recipe), folder / name), name
    return compute_statistics(folder), "measured"
