"""Stage ``sample``: sample the recipe's sets, each an npz in the format of the ADM evaluator."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from pae_framework.execution.context import StageContext
from pae_framework.execution.items import do_items
from pae_framework.flow.flow_settings import SampleSettings
from pae_framework.flow.sampling import label_plan
from pae_framework.interop.provenance import WEIGHTS, original_name, read_source
from pae_framework.recipe.components import GeneratorComponent
from pae_framework.sampling.chunks import ChunkSampler, PlannedSet, SampleSets
from pae_framework.sampling.reuse import is_intact, reuse_finished, set_identity
from pae_framework.sampling.sample_set import (
    CHUNK,
    prepare_chunks,
    remove_other_chunks,
    split_chunks,
)
from pae_framework.sampling.sampler import Sampler


def run(
    context: StageContext,
    make_sampler: Callable[[StageContext], Sampler] = Sampler.of,
    chunk_size: int = CHUNK,
) -> None:
    """Sample every missing set; an interrupted set resumes.

    The processes share the chunks of all sets; the main process joins those of a set when all are
    there. A set that another recipe's sample stage has sampled from the same inputs is reused.

    Raises:
        StoppedError: a signal asked to stop; chunks under way were finished.
    """
    settings = context.recipe.sample
    assert settings is not None
    sampler = make_sampler(context)
    sets = context.world.on_main(lambda: _sample_sets(context, settings, sampler, chunk_size))
    chunks = [(planned, chunk) for planned in sets.missing for chunk in planned.chunks]
    total = sum(planned.settings.count for planned in sets.all)
    reused = total - sum(planned.settings.count for planned in sets.missing)
    with context.progress(total) as progress:
        done = reused

        def show(chunks_done: int) -> None:
            nonlocal done
            done = reused + sum(len(chunk) for _, chunk in chunks[:chunks_done])
            progress.update(done)

        sample_chunk = ChunkSampler(sampler, chunks, lambda images: progress.update(done + images))

        def work(number: int) -> None:
            if chunks[number][0] in sets.missing:
                sample_chunk(number)
            if context.world.is_main:
                sets.join_complete(sampler)

        do_items(context, work, len(chunks), "chunks", show)
        if context.world.is_main:
            sets.write_list()
            progress.update(total)


def _sample_sets(
    context: StageContext, settings: SampleSettings, sampler: Sampler, chunk_size: int
) -> SampleSets:
    """The sets that the recipe asks for; prepares the folders for the chunks of missing ones."""
    sets = SampleSets(context.directory, [], [])
    for planned in _planned_sets(context, settings, sampler, chunk_size):
        sets.all.append(planned)
        remove_other_chunks(planned.path, planned.entry["identity"])
        if not _reuse(context, planned, sampler):
            count, identity = planned.settings.count, planned.entry["identity"]
            prepare_chunks(planned.path, count, identity, chunk_size)
            sets.missing.append(planned)
    return sets


def _planned_sets(
    context: StageContext, settings: SampleSettings, sampler: Sampler, chunk_size: int
) -> Iterator[PlannedSet]:
    """The sets that the recipe asks for."""
    component = context.recipe.generator
    assert component is not None
    last, origin = _last_step(context, component), _origin(context, component)
    for role, step, own, variant in settings.sets(last):
        assert step is not None
        name = "weights.safetensors" if step == last else f"weights-step{step:06d}.safetensors"
        weights = context.file("generator", name)
        labels = label_plan(own.count, sampler.model.num_classes, own.seed, own.labels)
        prefix = "convergence" if role == "convergence" else "samples"
        if variant is not None:
            prefix += f"-{variant}"
        file = f"{prefix}-step{step:06d}-{own.solver}{own.steps:03d}.npz"
        seen = _seen(context, component, step) if role == "convergence" else {}
        entry = {
            "file": file,
            "role": role,
            **({"variant": variant} if variant else {}),
            "generator_step": step,
            "steps": own.steps,
            "weights": name,
            "identity": set_identity(context, weights, labels, own),
            "protocol": {
                **sampler.describe(own),
                "generator_step": step,
                **seen,
                "labels": f"{own.labels}, shuffled",
                "weights": origin,
            },
        }
        chunks = split_chunks(own.count, chunk_size)
        yield PlannedSet(context.directory / file, labels, chunks, weights, own, entry)


def _seen(context: StageContext, component: GeneratorComponent, step: int) -> dict[str, float]:
    """Images and epochs that the generator was trained on at a step; empty for loaded weights."""
    if component.weights is not None:
        return {}
    epochs = component.train.epochs_at(step, len(context.train_source))
    return {"images_seen": step * component.train.batch_size, "epochs": round(epochs, 4)}


def _reuse(context: StageContext, planned: PlannedSet, sampler: Sampler) -> bool:
    """Whether the set is there or could be reused from another stage; prints the latter."""
    labels = planned.labels
    folder = reuse_finished(context.directory, planned.entry, labels)
    if folder is not None and folder != context.directory:
        text = f"{'':<10} {planned.path.name} reused from {folder.name}"
        context.console.print(text)
    if folder is not None:
        return True
    return is_intact(planned.path, labels) and planned.add_evaluations(sampler)


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
