"""Stage ``sample``: draw the recipe's sample sets, each an npz as the ADM evaluator reads it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from pae_framework.contracts import SampleSet
from pae_framework.execution.context import StageContext
from pae_framework.files import read_json, write_json
from pae_framework.flow.flow_settings import SampleSettings
from pae_framework.flow.sampling import EvaluationCount, label_plan
from pae_framework.interop.provenance import original_name
from pae_framework.recipe.components import GeneratorComponent
from pae_framework.sampling.parallel import PlannedSet, draw_parts
from pae_framework.sampling.reuse import SETS, take_finished
from pae_framework.sampling.sample_set import draw_set, open_set
from pae_framework.sampling.sampler import Sampler
from pae_framework.sampling.set_identity import set_identity


def run(context: StageContext) -> None:
    """Draw every set that is not there yet, each an npz; one that was begun goes on.

    A set that the sample stage of an earlier recipe has drawn of the same things is taken from it.
    Where several processes share the work, the parts of all sets are drawn first, then joined.

    Raises:
        StoppedError: several processes were asked to stop; the parts under way are written.
        RunError: one of several processes failed; parts that are there stay.
    """
    settings = context.recipe.sample
    assert settings is not None
    sampler = Sampler.of(context)
    labels = label_plan(settings.count, sampler.model.num_classes, settings.seed, settings.labels)
    planned = list(_planned(context, settings, sampler, labels))
    there = [_take(context, entry, labels) for entry in planned]
    lacking = [one for one, is_there in zip(planned, there, strict=True) if not is_there]
    if lacking and settings.processes > 1:  # what follows finds all parts, and joins them
        draw_parts(context, settings, [_planned_set(context, settings, one) for one in lacking])
    with context.progress(len(planned) * settings.count) as progress:
        for number, entry in enumerate(planned):
            before = number * settings.count
            if not there[number]:
                sampler.load(context.require("generator") / entry["weights"])
                drawn = settings.model_copy(update={"steps": entry["steps"]})
                counted = replace(sampler, count=EvaluationCount())
                for done in _draw(counted, labels, drawn, context.directory, entry):
                    progress.update(before + done)
                entry["protocol"] |= counted.describe(drawn)
                there[number] = True
            finished = [one for one, is_there in zip(planned, there, strict=True) if is_there]
            write_json(context.directory / SETS, finished)
            progress.update(before + settings.count)


def _take(context: StageContext, entry: dict[str, Any], labels: Tensor) -> bool:
    """Whether the set is there, or was found in another stage; then the console says so."""
    folder = take_finished(context.directory, entry, labels)
    if folder is not None and folder != context.directory:
        text = f"{'':<10} {entry['file']} was drawn before: taken from {folder.name}"
        context.console.print(text, highlight=False)
    return folder is not None or (context.directory / entry["file"]).exists()


def _planned(
    context: StageContext, settings: SampleSettings, sampler: Sampler, labels: Tensor
) -> Iterator[dict[str, Any]]:
    component = context.recipe.generator
    assert component is not None
    last, origin = _last_step(context, component), _origin(context, component)

    def entry(role: str, step: int, steps: int) -> dict[str, Any]:
        weights = "weights.safetensors" if step == last else f"weights-step{step:06d}.safetensors"
        drawn = settings.model_copy(update={"steps": steps})
        protocol = {
            **sampler.describe(drawn),
            "generator_step": step,
            "labels": f"{settings.labels}, shuffled",
        }
        protocol["weights"] = origin
        name = f"samples-step{step:06d}-{settings.solver}{steps:03d}.npz"
        return {
            "file": name,
            "role": role,
            "generator_step": step,
            "steps": steps,
            "weights": weights,
            "identity": set_identity(
                context, context.require("generator") / weights, labels, drawn
            ),
            "protocol": protocol,
        }

    yield entry("main", last, settings.steps)
    for step in settings.at_steps:
        if step != last:
            yield entry("checkpoint", step, settings.steps)
    for steps in settings.few_steps:
        if steps != settings.steps:
            yield entry("few_steps", last, steps)


def _planned_set(
    context: StageContext, settings: SampleSettings, entry: dict[str, Any]
) -> PlannedSet:
    return PlannedSet(
        context.directory / entry["file"],
        entry["identity"],
        context.require("generator") / entry["weights"],
        settings.model_copy(update={"steps": entry["steps"]}),
    )


def _last_step(context: StageContext, component: GeneratorComponent) -> int:
    """Step of the weights that are drawn from; 0: they were loaded, trained elsewhere."""
    if component.weights is not None:
        return 0
    return component.train.total_steps(len(context.train_source))


def _origin(context: StageContext, component: GeneratorComponent) -> str:
    """Which weights of a training they are, or of which file."""
    if component.weights is None:
        return "ema" if component.train.ema else "last"
    found = read_json(context.require("generator") / "weights.json")
    entry = f" ({found['entry']})" if found["entry"] else ""
    return f"{original_name(found)}{entry}"


def _draw(
    sampler: Sampler,
    labels: Tensor,
    settings: SampleSettings,
    directory: Path,
    entry: dict[str, Any],
) -> Iterator[int]:
    """Draw one set and write it; yields the number of images done."""

    def draw(indices: Tensor) -> Tensor:
        return sampler.images(labels[indices], indices, settings)

    path = directory / entry["file"]
    return draw_set(path, labels, draw, settings.batch_size, entry["identity"])


def read_sets(directory: Path) -> list[SampleSet]:
    """The sets a sample stage wrote."""
    sets = []
    for entry in read_json(directory / SETS):
        images, labels = open_set(directory / entry["file"])
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
