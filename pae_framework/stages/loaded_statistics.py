"""Stage ``latents`` of a recipe with ``latents.statistics``: no latents, their statistics alone."""

from __future__ import annotations

from pae_framework.files import write_json
from pae_framework.recipe.latent import latent_shape
from pae_framework.stages.context import StageContext
from pae_framework.stages.loaded_file import describe_file, existing, first_name
from pae_framework.stages.normalisation import fitting_statistics, tokenizer_identity


def take_statistics(context: StageContext, file: str) -> None:
    """Write the statistics in ``file`` as those of this run's latents. No image is read.

    ``latents_stats`` as safetensors and ``.pt``, and ``statistics.json``, which says what the file
    was. That they are of this tokenizer's latents is the recipe's word.

    Raises:
        DataError: there is no such file, it is damaged, its figures are no statistics, or they are
            of latents with other channels.
    """
    path = existing(file, "latents.statistics")
    statistics = fitting_statistics(path, latent_shape(context.recipe))
    statistics.save(context.directory, tokenizer_identity(context))
    description = describe_file(path)
    write_json(context.directory / "statistics.json", description)
    context.beat(weights=first_name(description))
