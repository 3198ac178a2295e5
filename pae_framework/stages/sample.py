"""Stage ``sample``: sample the recipe's sets, each an npz as the ADM evaluator reads it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from torch import Tensor

from pae_framework.execution.context import StageContext
from pae_framework.files import read_json, write_json
from pae_framework.flow.flow_settings import SampleSettings
from pae_framework.flow.sampling import EvaluationCount, label_plan
from pae_framework.interop.provenance import original_name
from pae_framework.recipe.components import GeneratorComponent
from pae_framework.sampling.parallel import PlannedSet, sample_chunks
from pae_framework.sampling.sample_set import CHUNK, SETS, reuse_finished, set_identity, write_set
from pae_framework.sampling.sampler import Sampler


def run(
    context: StageContext,
    make_sampler: Callable[[StageContext], Sampler] = Sampler.of,
    chunk_size: int = CHUNK,
) -> None:
    """Sample every set that is missing; a set that was interrupted resumes.

    A set that the sample stage of another recipe has sampled from the same inputs is reused. With
    several processes, the chunks of all sets are sampled first and then joined.

    Raises:
        StoppedError: a signal asked several processes to stop; started chunks are finished.
        RunError: one of several processes failed; finished chunks stay.
    """
    settings = context.recipe.sample
    assert settings is not None
    sampler = make_sampler(context)
    labels = label_plan(settings.count, sampler.model.num_classes, settings.seed, settings.labels)
    entries = list(_planned_entries(context, settings, sampler, labels))
    done = [_reuse(context, entry, labels) for entry in entries]
    missing = [
        _planned_set(context, settings, entry)
        for entry, is_done in zip(entries, done, strict=True)
        if not is_done
    ]
    if missing and settings.processes > 1:  # write_set below only joins the chunks
        sample_chunks(context, settings, missing, chunk_size)
    with context.progress(len(entries) * settings.count) as progress:
        for number, entry in enumerate(entries):
            before = number * settings.count
            if not done[number]:
                planned = _planned_set(context, settings, entry)
                sampler.load(planned.weights)
                counting = replace(sampler, count=EvaluationCount())
                for images in _write(counting, labels, planned, chunk_size):
                    progress.update(before + images)
                entry["protocol"] |= counting.describe(planned.settings)
                done[number] = True
            finished = [entry for entry, is_done in zip(entries, done, strict=True) if is_done]
            write_json(context.directory / SETS, finished)
            progress.update(before + settings.count)


def _reuse(context: StageContext, entry: dict[str, Any], labels: Tensor) -> bool:
    """Whether the set exists or could be reused from another stage, which is then printed."""
    folder = reuse_finished(context.directory, entry, labels)
    if folder is not None and folder != context.directory:
        text = f"{'':<10} {entry['file']} was sampled before: reused from {folder.name}"
        context.console.print(text, highlight=False)
    return folder is not None or (context.directory / entry["file"]).exists()


def _planned_entries(
    context: StageContext, settings: SampleSettings, sampler: Sampler, labels: Tensor
) -> Iterator[dict[str, Any]]:
    """One entry of ``sets.json`` per set that the recipe asks for."""
    component = context.recipe.generator
    assert component is not None
    last, origin = _last_step(context, component), _origin(context, component)

    def entry(role: str, step: int, steps: int) -> dict[str, Any]:
        weights = "weights.safetensors" if step == last else f"weights-step{step:06d}.safetensors"
        own = settings.model_copy(update={"steps": steps})
        return {
            "file": f"samples-step{step:06d}-{settings.solver}{steps:03d}.npz",
            "role": role,
            "generator_step": step,
            "steps": steps,
            "weights": weights,
            "identity": set_identity(context, context.require("generator") / weights, labels, own),
            "protocol": {
                **sampler.describe(own),
                "generator_step": step,
                "labels": f"{settings.labels}, shuffled",
                "weights": origin,
            },
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
    """Training step of the generator's final weights; 0 if they were trained elsewhere."""
    if component.weights is not None:
        return 0
    return component.train.total_steps(len(context.train_source))


def _origin(context: StageContext, component: GeneratorComponent) -> str:
    """``ema`` or ``last``, or the file that trained weights were loaded from."""
    if component.weights is None:
        return "ema" if component.train.ema else "last"
    found = read_json(context.require("generator") / "weights.json")
    entry = f" ({found['entry']})" if found["entry"] else ""
    return f"{original_name(found)}{entry}"


def _write(sampler: Sampler, labels: Tensor, planned: PlannedSet, chunk_size: int) -> Iterator[int]:
    """Sample one set; yields the number of images done."""
    settings = planned.settings

    def sample(indices: Tensor) -> Tensor:
        return sampler.images(labels[indices], indices, settings)

    identity, size = planned.identity, settings.batch_size
    return write_set(planned.path, labels, sample, size, identity, chunk_size)
