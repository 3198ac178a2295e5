"""Export a run's weights to files that other projects can read."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from torch import Tensor

from pae_framework import __version__
from pae_framework.errors import CheckpointError
from pae_framework.execution.artifacts import trained_generator, trained_tokenizer
from pae_framework.execution.context import StageContext
from pae_framework.execution.run_latents import run_statistics, tokenizer_identity
from pae_framework.flow.flow_settings import SampleSettings
from pae_framework.interop.tokenizer_weights import released_state
from pae_framework.recipe.components import EncoderComponent, TokenizerComponent
from pae_framework.recipe.derived import latent_shape
from pae_framework.recipe.models import Recipe
from pae_framework.system.file_errors import writing
from pae_framework.system.files import follow_umask
from pae_framework.tensor_files import safetensors_system_errors, save_tensors, save_torch_file
from pae_framework.tokenizer.model import ComposedTokenizer


def export_tokenizer(context: StageContext, file: Path, as_torch: bool, with_encoder: bool) -> int:
    """Write a run's tokenizer in the released layout (see :mod:`..tokenizer_weights`).

    A torch file is ``{"model": weights, "metadata": texts}``; a safetensors file has the same texts
    as metadata: the version that wrote it, the recipe's name, encoder, image size and stage.
    Returns the number of tensors.

    Raises:
        CheckpointError: the released layout has no names for the encoder, or the tokenizer is one
            component.
        UsageError: an encoder that was trained with the tokenizer is to be left out.
    """
    tokenizer = trained_tokenizer(context).cpu()
    if not isinstance(tokenizer, ComposedTokenizer):
        raise CheckpointError(
            f"released PAE tokenizers have no names for {type(tokenizer).__name__}; its weights "
            "are in the file tokenizer.safetensors of stage tokenizer"
        )
    try:
        state = released_state(tokenizer, with_encoder)
    except CheckpointError as error:
        raise CheckpointError(f"{error}; export without it: --no-encoder") from error
    _write(state, file, ("model",) if as_torch else None, _metadata(context, "tokenizer"))
    return len(state)


def export_generator(context: StageContext, file: Path, as_torch: bool) -> int:
    """Write a run's generator in the layout of official LightningDiT files.

    A torch file is ``{"model": weights, "ema": weights, "metadata": texts}``. Both entries are the
    weights the run samples with (the average, if the recipe has one), stored once: official
    programs sample with ``ema`` and start training from ``model``. A safetensors file has the texts
    as metadata. Returns the number of tensors.

    Raises:
        CheckpointError: this kind of generator has no official layout.
    """
    state = trained_generator(context).cpu().to_official()
    entries = ("model", "ema") if as_torch else None
    _write(state, file, entries, _metadata(context, "generator"))
    return len(state)


def export_diffusers(context: StageContext, folder: Path) -> None:
    """Write a run's generator as a folder that Diffusers loads, replacing an existing folder.

    The folder includes the statistics of the latents and the recipe's shift of sampling times, but
    not its steps and guidance.

    Raises:
        UsageError: Diffusers is not installed.
        CheckpointError: this kind of generator cannot be converted to Diffusers.
    """
    statistics = run_statistics(context)
    sampling = (context.recipe.sample or SampleSettings()).for_latent(latent_shape(context.recipe))
    generator = trained_generator(context).cpu()
    with _replacing_folder(folder) as temporary:
        generator.save_diffusers(temporary, statistics.mean, statistics.std, sampling.shift)
        statistics.save(temporary, tokenizer_identity(context))
        for file in list(temporary.rglob("*")):
            if file.is_file():
                follow_umask(file)


@contextmanager
def _replacing_folder(folder: Path) -> Iterator[Path]:
    """Write a folder under a temporary name; on success it replaces ``folder``."""
    temporary, old = (
        folder.with_name(f".{folder.name}.{os.getpid()}.{suffix}") for suffix in ("new", "old")
    )
    try:
        with writing(folder), safetensors_system_errors():
            temporary.mkdir(parents=True)
            yield temporary
            if folder.exists():
                folder.replace(old)
            temporary.replace(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    shutil.rmtree(old, ignore_errors=True)


def _write(
    state: Mapping[str, Tensor],
    file: Path,
    entries: tuple[str, ...] | None,
    metadata: dict[str, str],
) -> None:
    """Write a torch file with the state under each of ``entries``, or safetensors for None."""
    if entries is None:
        save_tensors(state, file, metadata)
        return
    plain = {name: value.contiguous() for name, value in state.items()}
    save_torch_file({**dict.fromkeys(entries, plain), "metadata": metadata}, file)


def _named_part(recipe: Recipe) -> tuple[str, EncoderComponent | TokenizerComponent]:
    """What names the tokenizer: a composed one's encoder, or the component."""
    if isinstance(recipe.tokenizer, TokenizerComponent):
        return "tokenizer", recipe.tokenizer
    return "encoder", recipe.tokenizer.encoder


def _metadata(context: StageContext, stage: str) -> dict[str, str]:
    recipe = context.recipe
    part, component = _named_part(recipe)
    model = getattr(component.config, "model", None)
    texts = {
        "format": "pt",
        "written_by": f"pae-framework {__version__}",
        "recipe": recipe.name,
        part: component.use if model is None else f"{component.use} {model}",
        "image_size": str(recipe.data.image_size),
        "stage": context.plan[stage].folder,
    }
    if stage == "generator" and recipe.generator is not None:
        preset = getattr(recipe.generator.config, "preset", None)
        texts["generator"] = f"{recipe.generator.use} {preset or ''}".strip()
        texts["latents"] = str(latent_shape(recipe))
        texts["classes"] = str(context.num_classes)
    return texts
