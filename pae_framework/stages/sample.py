"""Stage ``sample``: draw the recipe's sample sets, each an npz as evaluators everywhere read it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pae_framework.contracts import SampleSet
from pae_framework.files import read_json, replacing, write_json
from pae_framework.flow.sampling import label_plan
from pae_framework.settings import SampleSettings
from pae_framework.stages.context import StageContext
from pae_framework.stages.sampling import Sampler, describe

SETS = "sets.json"


def run(context: StageContext) -> None:
    """Draw every set that is not there yet: ``samples-<role>-....npz`` with images and labels.

    ``arr_0`` is uint8 (M, S, S, 3), the layout of the ADM evaluator, and ``arr_1`` the labels.
    """
    settings = context.recipe.sample
    assert settings is not None
    sampler = Sampler.of(context)
    planned = list(_planned(context, settings))
    batches = -(-settings.count // settings.batch_size)
    with context.progress(len(planned) * batches) as progress:
        for number, entry in enumerate(planned):
            path = context.directory / entry["file"]
            if not path.exists():
                sampler.load(context.require("generator") / entry["weights"])
                drawn = settings.model_copy(update={"steps": entry["steps"]})
                for batch in _draw(sampler, drawn, path):
                    progress.update(number * batches + batch)
            progress.update((number + 1) * batches)
    write_json(context.directory / SETS, planned)


def _planned(context: StageContext, settings: SampleSettings) -> Iterator[dict[str, Any]]:
    component = context.recipe.generator
    assert component is not None
    last = component.train.total_steps(len(context.train_source))

    def entry(role: str, step: int, steps: int) -> dict[str, Any]:
        weights = "weights.safetensors" if step == last else f"weights-step{step:06d}.safetensors"
        drawn = settings.model_copy(update={"steps": steps})
        protocol = {**describe(drawn), "generator_step": step, "labels": "balanced, shuffled"}
        protocol["weights"] = "ema" if component.train.ema else "last"
        name = f"samples-step{step:06d}-{settings.solver}{steps:03d}.npz"
        return {
            "file": name,
            "role": role,
            "generator_step": step,
            "steps": steps,
            "weights": weights,
            "protocol": protocol,
        }

    yield entry("main", last, settings.steps)
    for step in settings.at_steps:
        if step != last:
            yield entry("checkpoint", step, settings.steps)
    for steps in settings.few_steps:
        if steps != settings.steps:
            yield entry("few_steps", last, steps)


def _draw(sampler: Sampler, settings: SampleSettings, path: Path) -> Iterator[int]:
    """Draw one set and write it; yields the number of batches done."""
    labels = label_plan(settings.count, sampler.model.num_classes, settings.seed)
    images = []
    for start in range(0, settings.count, settings.batch_size):
        indices = torch.arange(start, min(start + settings.batch_size, settings.count))
        images.append(sampler.images(labels[indices], indices, settings))
        yield len(images)
    with replacing(path) as aside, aside.open("wb") as file:
        np.savez(file, torch.cat(images).permute(0, 2, 3, 1).numpy(), labels.numpy())


def read_sets(directory: Path) -> list[SampleSet]:
    """The sets a sample stage wrote."""
    sets = []
    for entry in read_json(directory / SETS):
        with np.load(directory / entry["file"], allow_pickle=False) as file:
            images = torch.from_numpy(file["arr_0"]).permute(0, 3, 1, 2).contiguous()
            labels = torch.from_numpy(file["arr_1"])
        sets.append(
            SampleSet(
                images,
                labels,
                generator_step=entry["generator_step"],
                steps=entry["steps"],
                role=entry["role"],
                protocol=entry["protocol"],
            )
        )
    return sets
