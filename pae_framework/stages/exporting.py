"""What ``pae export`` does: a run's tokenizer as a file in the layout of the released ones."""

from __future__ import annotations

from pathlib import Path

import torch

from pae_framework import __version__
from pae_framework.errors import CheckpointError
from pae_framework.files import replacing
from pae_framework.stages.context import StageContext
from pae_framework.stages.parts import trained_tokenizer
from pae_framework.tensor_files import save_tensors
from pae_framework.tokenizer.released import released_state


def export_tokenizer(context: StageContext, file: Path, as_torch: bool, with_encoder: bool) -> int:
    """Write the tokenizer of a run in the layout of :mod:`pae_framework.tokenizer.released`.

    A torch file is ``{"model": weights, "metadata": texts}``; safetensors hold the weights and the
    same texts as their metadata: what wrote them, and the recipe's name, encoder, image size and
    stage. Returns how many tensors there are.

    Raises:
        CheckpointError: the encoder has no place in such a file.
    """
    tokenizer = trained_tokenizer(context).cpu()
    try:
        state = released_state(tokenizer, with_encoder)
    except CheckpointError as error:
        raise CheckpointError(f"{error}; --no-encoder leaves it out") from error
    metadata = _metadata(context)
    if as_torch:
        content = {"model": {name: x.contiguous() for name, x in state.items()}}
        with replacing(file) as aside:
            torch.save({**content, "metadata": metadata}, aside)
    else:
        save_tensors(state, file, metadata)
    return len(state)


def _metadata(context: StageContext) -> dict[str, str]:
    recipe = context.recipe
    encoder = recipe.tokenizer.encoder
    model = getattr(encoder.config, "model", None)
    return {
        "format": "pt",
        "written_by": f"pae-framework {__version__}",
        "recipe": recipe.name,
        "encoder": encoder.use if model is None else f"{encoder.use} {model}",
        "image_size": str(recipe.data.image_size),
        "stage": context.plan["tokenizer"].folder,
    }
