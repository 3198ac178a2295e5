"""What ``pae sample`` does: labels and settings from its options, images into a folder."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from pydantic import ValidationError
from torch import Tensor

from pae_framework.errors import DataError, UsageError
from pae_framework.execution.context import StageContext
from pae_framework.execution.output_folder import add, go_on, is_listed
from pae_framework.flow.flow_settings import SampleSettings
from pae_framework.recipe.consistency import inconsistencies
from pae_framework.recipe.models import Recipe
from pae_framework.recipe.validate import explain_value
from pae_framework.report.pictures import grid, save_png
from pae_framework.runs.autoguidance_run import guiding_fault
from pae_framework.sampling.reuse import COUNTED
from pae_framework.sampling.sample_set import draw_set, drop_other_parts
from pae_framework.sampling.sampler import Sampler, describe
from pae_framework.sampling.set_identity import set_identity

DEFAULT_COUNT = 64
COLUMNS = 8
MOST_IN_GRID = 64
GRID = "grid.png"
NPZ = "images.npz"
RECORD = "drawn.json"
WRITTEN = r"\d{6,}\.png|images\.npz"
"""Names of the images, one by one and together."""


def sampling_settings(
    recipe: Recipe, guidance: float | None, given: Mapping[str, Any]
) -> SampleSettings:
    """The recipe's settings with what the command line gives in their place.

    Guidance 1 is none at all: a run that would guide (autoguidance) is left out, too.

    Raises:
        UsageError: a value is not possible, does not go with the run's generator, or needs what is
            not here.
    """
    values = (recipe.sample or SampleSettings()).model_dump()
    values |= {"at_steps": (), "few_steps": ()}  # further sets, of the sample stage only
    values |= {key: value for key, value in given.items() if value is not None}
    if guidance is not None:
        values["guidance"]["scale"] = guidance
        if guidance == 1:
            values["guidance"]["autoguidance"] = None
    try:
        settings = SampleSettings.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        message, hint = explain_value([first])
        option = f"--{first['loc'][0]}: " if first["loc"] else ""
        raise UsageError(f"{option}{message}{f'; {hint}' if hint else ''}") from None
    for fault in inconsistencies(recipe.model_copy(update={"sample": settings})):
        if fault.path[0] == "sample":
            raise UsageError(f"{fault.message}; {fault.hint}")
    if (missing := settings.missing()) is not None:
        raise UsageError(missing)
    return settings


def choose_labels(text: str | None, count: int | None, class_names: Sequence[str]) -> list[int]:
    """Labels of the images: those of ``text`` (numbers or names) in turn, or all classes in turn.

    Raises:
        UsageError: a label the data do not have, and says which there are; or fewer images than
            labels given.
    """
    chosen = list(range(len(class_names)))
    if text is not None:
        chosen = [_label(word.strip(), class_names) for word in text.split(",")]
        if count is not None and count < len(chosen):
            raise UsageError(f"--count {count} is less than the {len(chosen)} labels given")
    total = count or (len(chosen) if text is not None else DEFAULT_COUNT)
    return [chosen[index % len(chosen)] for index in range(total)]


def _label(word: str, class_names: Sequence[str]) -> int:
    if word in class_names:
        return list(class_names).index(word)
    if word.isdecimal() and int(word) < len(class_names):
        return int(word)
    raise UsageError(
        f"--labels: there is no class {word!r}; classes are 0 to {len(class_names) - 1} "
        f"({', '.join(class_names[:10])}{', ...' if len(class_names) > 10 else ''})"
    )


def draw_to_folder(
    context: StageContext,
    labels: Sequence[int],
    settings: SampleSettings,
    folder: Path,
    npz: bool = False,
) -> None:
    """Draw one image per label into ``folder``: ``000000.png`` and so on, grid.png, drawn.json.

    Images are written as they are drawn: interrupted and asked for the same again, it goes on.
    Asked for others, what an earlier call left there is removed; files of others are not. With
    ``npz``, ``images.npz`` holds all of them as the ADM evaluator reads them.

    Raises:
        UsageError: the npz would overwrite one that was not written here; or the run that is to
            guide cannot.
        DataError: an image that was written here cannot be read back.
    """
    if npz and (folder / NPZ).exists() and not is_listed(folder, RECORD, NPZ):
        raise UsageError(
            f"{folder / NPZ} was not written by `pae sample`; move it away, or choose another --out"
        )
    context = _drawing_with(settings, context)
    names, classes = [f"{index:06d}.png" for index in range(len(labels))], torch.tensor(labels)
    weights = context.require("generator") / "weights.safetensors"
    identity = set_identity(context, weights, classes, settings)
    protocol = describe(settings)
    if settings.adaptive:  # known, and added to the record, when they are drawn
        protocol = {key: value for key, value in protocol.items() if key not in COUNTED}
    generator = context.plan["generator"].fingerprint
    facts = {"labels": list(labels), "generator": generator, "identity": identity, **protocol}
    left = go_on(folder, RECORD, WRITTEN, names, facts, _is_readable)
    drop_other_parts(folder / NPZ, identity)
    if left:
        indices = torch.tensor([int(Path(name).stem) for name in left])
        _draw(context, classes, indices, settings, folder)

    def drawn(indices: Tensor) -> Tensor:
        return torch.stack([_read_png(folder / names[index]) for index in indices.tolist()])

    save_png(grid(drawn(torch.arange(min(len(names), MOST_IN_GRID))), COLUMNS), folder / GRID)
    if npz and not (folder / NPZ).exists():
        add(folder, RECORD, [NPZ])
        for _ in draw_set(folder / NPZ, classes, drawn, settings.batch_size, identity):
            pass


def _drawing_with(settings: SampleSettings, context: StageContext) -> StageContext:
    """The run with these settings in place of its recipe's: another run may guide, or none."""
    recipe = context.recipe.model_copy(update={"sample": settings})
    if (fault := guiding_fault(recipe, context.registry)) is not None:
        raise UsageError(fault)
    return replace(context, recipe=recipe)


def _draw(
    context: StageContext, classes: Tensor, indices: Tensor, settings: SampleSettings, folder: Path
) -> None:
    """Draw the images at ``indices`` (n,) of ``classes`` (M,), batch by batch."""
    sampler, before = Sampler.of(context), len(classes) - len(indices)
    start, done = time.monotonic(), 0
    with context.progress(len(classes), before) as progress:
        for batch in indices.split(settings.batch_size):
            images = sampler.images(classes[batch], batch, settings)
            for index, image in zip(batch.tolist(), images, strict=True):
                save_png(grid(image[None], columns=1, scale=1), folder / f"{index:06d}.png")
            done += len(batch)
            rate = done / max(1e-9, time.monotonic() - start)
            progress.update(before + done, f"{rate:.1f} images/s")
    if settings.adaptive:
        cost = describe(settings, sampler.count)
        add(folder, RECORD, images_counted=done, **{key: cost[key] for key in COUNTED})


def _is_readable(path: Path) -> bool:
    """Whether a PNG is there and its check sums hold to its end."""
    try:
        with Image.open(path) as image:
            image.verify()
    except (OSError, SyntaxError, ValueError):
        return False
    return True


def _read_png(path: Path) -> Tensor:
    """An image (3, S, S) uint8 that was written here.

    Raises:
        DataError: it is gone or damaged.
    """
    try:
        with Image.open(path) as image:
            return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)
    except (OSError, SyntaxError, ValueError) as error:
        raise DataError(
            f"{path} cannot be read: {error}; the same command draws it again"
        ) from None
