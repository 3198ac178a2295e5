"""What ``pae sample`` does: labels and settings from its options, images into a folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from pae_framework.errors import UsageError
from pae_framework.recipe.models import Recipe
from pae_framework.report.pictures import grid, save_png
from pae_framework.settings import SampleSettings
from pae_framework.stages.context import StageContext
from pae_framework.stages.drawn_folder import start_again
from pae_framework.stages.sampling import Sampler, describe

DEFAULT_COUNT = 64
COLUMNS = 8
RECORD = "drawn.json"
WRITTEN = r"\d{6,}\.png"
"""Names of the images."""


def sampling_settings(
    recipe: Recipe, guidance: float | None, given: Mapping[str, Any]
) -> SampleSettings:
    """The recipe's settings with what the command line gives in their place.

    Raises:
        UsageError: a value is not possible.
    """
    values = (recipe.sample or SampleSettings()).model_dump()
    values |= {key: value for key, value in given.items() if value is not None}
    if guidance is not None:
        values["guidance"]["scale"] = guidance
    try:
        return SampleSettings.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        option = "--" + str(first["loc"][0]) if first["loc"] else "options"
        raise UsageError(f"{option} {first['input']!r}: {first['msg']}") from None


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
    context: StageContext, labels: Sequence[int], settings: SampleSettings, folder: Path
) -> None:
    """Draw one image per label into ``folder``: ``000000.png`` and so on, grid.png, drawn.json.

    Images that an earlier call left there are removed, other files are not.
    """
    sampler = Sampler.of(context)
    classes, size = torch.tensor(labels), settings.batch_size
    parts = []
    with context.progress(len(labels)) as progress:
        for start in range(0, len(labels), size):
            indices = torch.arange(start, min(start + size, len(labels)))
            parts.append(sampler.images(classes[indices], indices, settings))
            progress.update(int(indices[-1]) + 1)
    images = torch.cat(parts)
    names = [f"{index:06d}.png" for index in range(len(images))]
    start_again(folder, RECORD, WRITTEN, names, {"labels": list(labels), **describe(settings)})
    for name, image in zip(names, images, strict=True):
        save_png(grid(image[None], columns=1, scale=1), folder / name)
    save_png(grid(images, columns=COLUMNS), folder / "grid.png")
