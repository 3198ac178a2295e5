"""Stage ``sample``: sample the recipe's sets, each an npz in the format of the ADM evaluator."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from torch import Tensor

from pae_framework.execution.context import StageContext
from pae_framework.flow.flow_settings import SampleSettings
from pae_framework.flow.sampling import EvaluationCount, label_plan
from pae_framework.interop.provenance import WEIGHTS, original_name, read_source
from pae_framework.recipe.components import GeneratorComponent
from pae_framework.sampling.parallel import PlannedSet, sample_chunks
from pae_framework.sampling.reuse import is_intact, reuse_finished, set_identity
from pae_framework.sampling.sample_set import CHUNK, SETS, write_set
from pae_framework.sampling.sampler import Sampler
from pae_framework.system.files import write_json


def run(
    context: StageContext,
    make_sampler: Callable[[StageContext], Sampler] = Sampler.of,
    chunk_size: int = CHUNK,
) -> None:
    """Sample every missing set; an interrupted set resumes.

    A set that another recipe's sample stage has sampled from the same inputs is reused. With
    several processes, the chunks of all sets are sampled first and joined afterwards; then
    ``make_sampler`` must be importable by name.

    Raises:
        StoppedError: a signal asked several processes to stop; chunks in progress were finished.
        RunError: one of several processes failed; finished chunks are kept.
    """
    settings = context.recipe.sample
    assert settings is not None
    sampler = make_sampler(context)
    labels = label_plan(settings.count, sampler.model.num_classes, settings.seed, settings.labels)
    sets = list(_planned_sets(context, settings, sampler, labels))
    missing = [planned for planned in sets if not _reuse(context, planned, labels)]
    if missing and settings.processes > 1:  # then _sample_set only joins the chunks
        sample_chunks(context, settings, missing, make_sampler, chunk_size)
    with context.progress(len(sets) * settings.count) as progress:
        for number, planned in enumerate(sets):
            if planned in missing:
                for images in _sample_set(planned, sampler, labels, chunk_size):
                    progress.update(number * settings.count + images)
                missing.remove(planned)
            finished = [planned.entry for planned in sets if planned not in missing]
            write_json(context.directory / SETS, finished)
            progress.update((number + 1) * settings.count)


def _planned_sets(
    context: StageContext, settings: SampleSettings, sampler: Sampler, labels: Tensor
) -> Iterator[PlannedSet]:
    """The sets that the recipe asks for."""
    component = context.recipe.generator
    assert component is not None
    last, origin = _last_step(context, component), _origin(context, component)

    def planned(role: str, step: int, steps: int) -> PlannedSet:
        name = "weights.safetensors" if step == last else f"weights-step{step:06d}.safetensors"
        weights = context.file("generator", name)
        own = settings.model_copy(update={"steps": steps})
        file = f"samples-step{step:06d}-{settings.solver}{steps:03d}.npz"
        entry = {
            "file": file,
            "role": role,
            "generator_step": step,
            "steps": steps,
            "weights": name,
            "identity": set_identity(context, weights, labels, own),
            "protocol": {
                **sampler.describe(own),
                "generator_step": step,
                "labels": f"{settings.labels}, shuffled",
                "weights": origin,
            },
        }
        return PlannedSet(context.directory / file, weights, own, entry)

    yield planned("main", last, settings.steps)
    for step in settings.at_steps:
        if step != last:
            yield planned("checkpoint", step, settings.steps)
    for steps in settings.few_steps:
        if steps != settings.steps:
            yield planned("few_steps", last, steps)


def _reuse(context: StageContext, planned: PlannedSet, labels: Tensor) -> bool:
    """Whether the set is there or could be reused from another stage; prints the latter."""
    folder = reuse_finished(context.directory, planned.entry, labels)
    if folder is not None and folder != context.directory:
        text = f"{'':<10} {planned.path.name} reused from {folder.name}"
        context.console.print(text)
    return folder is not None or is_intact(planned.path, labels)


def _sample_set(
    planned: PlannedSet, sampler: Sampler, labels: Tensor, chunk_size: int
) -> Iterator[int]:
    """Sample one set and complete its protocol; yields the number of images done."""
    sampler.load(planned.weights)
    counting = replace(sampler, count=EvaluationCount())
    sample = counting.for_set(labels, planned.settings)
    batch_size, identity = planned.settings.batch_size, planned.entry["identity"]
    yield from write_set(planned.path, labels, sample, batch_size, identity, chunk_size)
    planned.entry["protocol"] |= counting.describe(planned.settings)


def _last_step(context: StageContext, component: GeneratorComponent) -> int:
    """Training step of the generator's final weights; 0 for imported weights."""
    if component.weights is not None:
        return 0
    return component.train.total_steps(len(context.train_source))


def _origin(context: StageContext, component: GeneratorComponent) -> str:
    """``ema`` or ``last``, or the file that imported weights come from."""
    if component.weights is None:
        return "ema" if component.train.ema else "last"
    source = read_source(context.file("generator", WEIGHTS))
    entry = f" ({source['entry']})" if source["entry"] else ""
    return f"{original_name(source)}{entry}"
