"""The command ``pae sample``: its settings and labels, and images into a folder."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import ValidationError
from torch import Tensor

from pae_framework.data.image_files import decoding, open_image
from pae_framework.errors import DataError, UsageError
from pae_framework.execution.context import StageContext, pick_device
from pae_framework.execution.output_folder import add_to_record, is_listed, resume_or_restart
from pae_framework.flow.flow_settings import SampleSettings
from pae_framework.preflight.resources import lacking_compiler
from pae_framework.recipe.consistency import inconsistencies
from pae_framework.recipe.models import Recipe
from pae_framework.recipe.validate import explain_value
from pae_framework.registry import Registry
from pae_framework.report.pictures import grid, save_png
from pae_framework.runs.autoguidance_run import autoguidance_problem
from pae_framework.sampling.reuse import set_identity
from pae_framework.sampling.sample_set import remove_other_chunks, write_set
from pae_framework.sampling.sampler import COUNTED_KEYS, Sampler, describe
from pae_framework.system.background import Background
from pae_framework.system.cores import usable_cores

DEFAULT_COUNT = 64
COLUMNS = 8
MOST_IN_GRID = 64
MOST_WRITERS = 8
SHOWN = 10
"""Classes that are named after sampling."""
GRID = "grid.png"
NPZ = "images.npz"
RECORD = "drawn.json"
WRITTEN = r"\d{6,}\.png|images\.npz"
"""Names of the image files and of the npz."""


def sampling_settings(
    recipe: Recipe, registry: Registry, guidance: float | None, options: Mapping[str, Any]
) -> SampleSettings:
    """The recipe's settings with those of the command line.

    Guidance 1 turns guidance off, including autoguidance. Nothing is compiled unless the command
    line says so: it takes longer than a few images, and other machines may lack a compiler.

    Args:
        recipe: of the run.
        registry: loads the recipe of the autoguidance run.
        guidance: the option ``--guidance``.
        options: other options by their key in ``sample``; None where not given.

    Raises:
        UsageError: a value is invalid or unsuitable for the run's generator, a package is missing,
            or the run for autoguidance cannot be used.
    """
    values = (recipe.sample or SampleSettings()).alone.model_dump()
    values |= {"compile": False}
    values |= {key: value for key, value in options.items() if value is not None}
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
    changed = recipe.model_copy(update={"sample": settings})
    for fault in inconsistencies(changed):
        if fault.path[0] == "sample":
            raise UsageError(f"{fault.message}; {fault.hint}")
    if (missing := settings.missing()) is not None:
        raise UsageError(missing)
    on_gpu = pick_device(recipe.runtime).type == "cuda"
    if settings.compile and (lack := lacking_compiler(on_gpu)):
        raise UsageError(f"--compile: {lack}")
    if (problem := autoguidance_problem(changed, registry)) is not None:
        raise UsageError(f"sample.guidance.autoguidance: {problem}")
    return settings


def choose_labels(text: str | None, count: int | None, class_names: Sequence[str]) -> list[int]:
    """Labels of the images: the classes in ``text``, or all classes, repeated.

    A word is the name of a class; else a number or ``#`` and a number, counted from 0. A number
    that is also the name of a class means that class.

    Raises:
        UsageError: a word is not a class of the data, or there are more labels than ``count``.
    """
    chosen = list(range(len(class_names)))
    if text is not None:
        chosen = [_label(word, class_names) for word in _words(text, set(class_names))]
        if count is not None and count < len(chosen):
            raise UsageError(f"--count {count} is less than the {len(chosen)} labels of --labels")
    total = count or (len(chosen) if text is not None else DEFAULT_COUNT)
    return [chosen[index % len(chosen)] for index in range(total)]


def _words(text: str, names: Set[str]) -> Iterator[str]:
    """The words between commas; a name that has commas itself is one word."""
    parts = text.split(",")
    while parts:
        joined = (",".join(parts[:count]) for count in range(len(parts), 0, -1))
        word = next((word for word in joined if word in names), parts[0].strip())
        yield word
        parts = parts[word.count(",") + 1 :]


def _label(word: str, class_names: Sequence[str]) -> int:
    number = word.removeprefix("#")
    is_number = number.isascii() and number.isdecimal() and int(number[:9]) < len(class_names)
    if word.startswith("#") and is_number:
        return int(number)
    if word in class_names:
        return list(class_names).index(word)
    if is_number:
        return int(number)
    raise UsageError(
        f"--labels: there is no class {word!r}; classes are 0 to {len(class_names) - 1} "
        f"({', '.join(class_names[:10])}{', ...' if len(class_names) > 10 else ''})"
    )


def drawn_classes(labels: Sequence[int], class_names: Sequence[str]) -> str:
    """Names, numbers and counts of the classes of some labels, in words."""
    counts = Counter(labels)
    shown = [f"{class_names[x]} (#{x}) x {count}" for x, count in list(counts.items())[:SHOWN]]
    more = f", and {len(counts) - SHOWN} more classes" if len(counts) > SHOWN else ""
    return ", ".join(shown) + more


def sample_to_folder(
    context: StageContext,
    labels: Sequence[int],
    settings: SampleSettings,
    folder: Path,
    npz: bool = False,
    make_sampler: Callable[[StageContext], Sampler] = Sampler.of,
) -> None:
    """Sample one image per label into ``folder``: ``000000.png`` etc., grid.png and drawn.json.

    Images are written while the next ones are sampled; the same call resumes after an interruption.
    A call for other images first removes those of earlier calls, but no other files. With ``npz``,
    all images are also written to ``images.npz`` in the format of the ADM evaluator.

    Raises:
        UsageError: the folder has an ``images.npz`` from elsewhere.
        DataError: an image that was written here cannot be read back.
    """
    if npz and (folder / NPZ).exists() and not is_listed(folder, RECORD, NPZ):
        raise UsageError(
            f"{folder / NPZ} was not written by `pae sample`; move it away, or choose another --out"
        )
    at_once = min(settings.batch_size, len(labels))  # compiled networks would fill up a batch
    settings = settings.model_copy(update={"batch_size": at_once})
    context = replace(context, recipe=context.recipe.model_copy(update={"sample": settings}))
    names, classes = [f"{index:06d}.png" for index in range(len(labels))], torch.tensor(labels)
    weights = context.file("generator", "weights.safetensors")
    identity = set_identity(context, weights, classes, settings)
    protocol = describe(settings)
    if settings.adaptive:  # counted while sampling, then added to the record
        protocol = {key: value for key, value in protocol.items() if key not in COUNTED_KEYS}
    generator = context.plan["generator"].fingerprint
    facts = {"labels": list(labels), "generator": generator, "identity": identity, **protocol}
    missing = resume_or_restart(folder, RECORD, WRITTEN, names, facts, _is_readable)
    remove_other_chunks(folder / NPZ, identity)
    if missing:
        indices = torch.tensor([int(Path(name).stem) for name in missing])
        _sample_missing(make_sampler(context), context, classes, indices, settings, folder)

    def read(indices: Tensor) -> Tensor:
        return torch.stack([_read_png(folder / names[index]) for index in indices.tolist()])

    save_png(grid(read(torch.arange(min(len(names), MOST_IN_GRID))), COLUMNS), folder / GRID)
    if npz and not (folder / NPZ).exists():
        add_to_record(folder, RECORD, [NPZ])
        for _ in write_set(folder / NPZ, classes, read, settings.batch_size, identity):
            pass


def _sample_missing(
    sampler: Sampler,
    context: StageContext,
    classes: Tensor,
    indices: Tensor,
    settings: SampleSettings,
    folder: Path,
) -> None:
    """Sample the images at ``indices`` (n,), given ``classes`` (M,) of all images."""
    before = len(classes) - len(indices)
    start, done = time.monotonic(), 0
    with (
        context.progress(len(classes), before) as progress,
        Background(partial(_write_images, folder)) as writing,
    ):
        for batch in indices.split(settings.batch_size):
            images = sampler.images(classes[batch], batch, settings)
            writing.take()
            writing.start(batch.tolist(), images)
            done += len(batch)
            rate = done / max(1e-9, time.monotonic() - start)
            progress.update(before + done, f"{rate:.1f} images/s")
        writing.take()
    if settings.adaptive:
        cost = describe(settings, sampler.count)
        counted = {key: cost[key] for key in COUNTED_KEYS}
        add_to_record(folder, RECORD, images_counted=done, **counted)


def _write_images(folder: Path, indices: list[int], images: Tensor) -> None:
    """Write images (n, 3, S, S), one PNG each; compressing them takes a core each."""

    def write(index: int, image: Tensor) -> None:
        save_png(grid(image[None], columns=1, scale=1), folder / f"{index:06d}.png")

    with ThreadPoolExecutor(min(len(indices), usable_cores(), MOST_WRITERS)) as pool:
        list(pool.map(write, indices, images))


def _is_readable(path: Path) -> bool:
    """Whether a PNG exists and all its checksums are valid."""
    try:
        with open_image(path) as image, decoding(path):
            image.verify()
    except DataError:
        return False
    return True


def _read_png(path: Path) -> Tensor:
    """An image (3, S, S) uint8."""
    try:
        with open_image(path) as image, decoding(path):
            return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)
    except DataError as error:
        raise DataError(f"{error}; run the same command to sample it again") from None
