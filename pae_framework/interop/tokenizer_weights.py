"""Stage ``tokenizer`` of a recipe with ``tokenizer.weights``: they are loaded, not trained."""

from __future__ import annotations

from typing import Any

from pae_framework.build import meta_tokenizer
from pae_framework.errors import CheckpointError
from pae_framework.execution.context import StageContext
from pae_framework.files import write_json
from pae_framework.interop.provenance import describe_file, existing, first_name
from pae_framework.interop.released_layout import (
    ReleasedTokenizer,
    TokenizerWeights,
    fit,
    read_released,
)
from pae_framework.plugins import Registry
from pae_framework.recipe.components import EncoderComponent
from pae_framework.recipe.models import Recipe
from pae_framework.tensor_files import save_tensors


def load_trained(context: StageContext) -> None:
    """Check the file against the recipe and write what it holds as this run's tokenizer.

    ``tokenizer.safetensors``; ``encoder.safetensors`` where the file brings the encoder's weights;
    ``weights.json``, which says what the file was. No image is read.

    Raises:
        DataError: there is no such file.
        CheckpointError: it is damaged, or made for another recipe; lists what differs.
    """
    recipe = context.recipe
    assert recipe.tokenizer.weights is not None
    path = existing(recipe.tokenizer.weights, "tokenizer.weights")
    released = read_released(path)
    weights = fitting(released, recipe, context.registry)
    save_tensors(weights.tokenizer, context.directory / "tokenizer.safetensors")
    if weights.encoder is not None:
        save_tensors(weights.encoder, context.directory / "encoder.safetensors")
    description = {**describe_file(path), **_contents(released)}
    write_json(context.directory / "weights.json", description)
    context.update_record(weights=first_name(description))


def fitting(released: ReleasedTokenizer, recipe: Recipe, registry: Registry) -> TokenizerWeights:
    """The weights as the recipe's tokenizer and encoder take them.

    Raises:
        CheckpointError: the file was made for another recipe; lists what differs.
    """
    encoder = recipe.tokenizer.encoder
    if released.encoder and encoder.train is not None:
        raise CheckpointError(
            f"{released.source} brings weights of an encoder, but the run trains its own "
            f"({encoder.use}: `tokenizer.encoder.train`)"
        )
    weights = fit(released, meta_tokenizer(recipe, registry))
    if not released.encoder and loads_nothing(encoder):
        raise CheckpointError(
            f"{released.source} brings no weights of the encoder, and `tokenizer.encoder.weights` "
            "is none: name those that the tokenizer was trained with"
        )
    return weights


def loads_nothing(encoder: EncoderComponent) -> bool:
    """Whether a pretrained encoder was told to stay random: ``weights: none``."""
    return getattr(encoder.config, "weights", None) == "none"


def _contents(released: ReleasedTokenizer) -> dict[str, Any]:
    layout = "tokenizer with encoder" if released.encoder else "tokenizer without encoder"
    counts = {"tensors": len(released.tokenizer), "encoder_tensors": len(released.encoder)}
    return {"layout": layout, **counts}
