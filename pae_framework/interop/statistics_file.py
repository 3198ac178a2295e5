"""Stage ``latents`` of a recipe with ``latents.statistics``: no latents, their statistics alone."""

from __future__ import annotations

from pae_framework.execution.context import StageContext
from pae_framework.execution.run_latents import load_statistics_for, tokenizer_identity
from pae_framework.files import write_json
from pae_framework.interop.provenance import describe_file, existing, first_name
from pae_framework.recipe.derived import latent_shape


def take_statistics(context: StageContext, file: str) -> None:
    """Write the statistics in ``file`` as those of this run's latents. No image is read.

    ``latents_stats`` as safetensors and ``.pt``, and ``statistics.json``, which says what the file
    was. That they are of this tokenizer's latents is the recipe's word.

    Raises:
        DataError: there is no such file, it is damaged, its figures are no statistics, or they are
            of latents with other channels.
    """
    path = existing(file, "latents.statistics")
    statistics = load_statistics_for(latent_shape(context.recipe), path)
    statistics.save(context.directory, tokenizer_identity(context))
    description = describe_file(path)
    write_json(context.directory / "statistics.json", description)
    context.update_record(weights=first_name(description))
