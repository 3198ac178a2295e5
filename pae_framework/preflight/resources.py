"""Checks of what a run takes from this machine besides data and memory. No torch.

Disk space, shared memory, locks, a temporary folder, a compiler. The checks write nothing.
"""

from __future__ import annotations

import importlib.util
import math
import os
import shutil
import sys
import sysconfig
import tempfile
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pae_framework.errors import Problem
from pae_framework.flow.flow_settings import Role
from pae_framework.preflight.machine import Machine, this_machine
from pae_framework.preflight.memory import training_memory
from pae_framework.preflight.requirements import unfinished_stages
from pae_framework.recipe.derived import latent_shape
from pae_framework.recipe.loaded import LoadedRecipe
from pae_framework.recipe.models import Recipe
from pae_framework.recipe.nodes import KeyPath, dotted
from pae_framework.recipe.stage_table import STAGES, trainings
from pae_framework.runs.locks import has_locks
from pae_framework.system.file_errors import existing_folder, folder_problem, free_space, gib

RUNS = Path("runs")
"""Where runs are, unless a command line says otherwise."""
SHARED_MEMORY = Path("/dev/shm")
CHECKPOINTS = 3
"""Checkpoints of a training on the disk at once: two are kept while the next is written."""
INCEPTION_FEATURES = 2048 + 2023
"""Pooled and spatial features of an image, in float32."""
PREFETCHED = 2
"""Batches that a process reads ahead."""


def lacking_resources(
    recipes: Sequence[LoadedRecipe],
    stages_dir: Path | None = None,
    machine: Machine | None = None,
    again: Collection[str] = (),
) -> list[Problem]:
    """What keeps the recipes from running here. Arguments as in :func:`scarce_resources`."""
    machine, folder = machine or this_machine(), stages_dir or RUNS
    problems: list[Problem] = []
    for loaded, stages in _unfinished(recipes, stages_dir, again):
        problems += _compilers(loaded, stages, machine)
        problems += _disk(loaded.recipe, stages, folder, above=2)
        problems += _temporary_folder()
        if stages_dir is None and (found := folder_problem(folder)) is not None:
            problems.append(Problem(found, hint="choose another place with --run-dir"))
    return list(dict.fromkeys(problems))


def scarce_resources(
    recipes: Sequence[LoadedRecipe], stages_dir: Path | None = None, again: Collection[str] = ()
) -> list[Problem]:
    """What may not suffice, or is replaced by something slower; worth a warning.

    Args:
        recipes: the recipes to run.
        stages_dir: folder of their stages; None: a new run in ``runs/``.
        again: stages that run anew, with all that depend on them.
    """
    folder = stages_dir or RUNS
    problems: list[Problem] = []
    for loaded, stages in _unfinished(recipes, stages_dir, again):
        problems += _disk(loaded.recipe, stages, folder, above=1, up_to=2)
        problems += _shared_memory(loaded, stages)
        problems += _locks(folder)
    return list(dict.fromkeys(problems))


def _unfinished(
    recipes: Sequence[LoadedRecipe], stages_dir: Path | None, again: Collection[str]
) -> Iterator[tuple[LoadedRecipe, Collection[str]]]:
    """The recipes that have something left to run, with the names of those stages."""
    for loaded in recipes:
        if stages := unfinished_stages(loaded, stages_dir, again):
            yield loaded, stages


# --- compiler -------------------------------------------------------------------------------------


def _compilers(
    loaded: LoadedRecipe, stages: Collection[str], machine: Machine
) -> Iterator[Problem]:
    device = loaded.recipe.runtime.device
    on_gpu = device == "cuda" or (device == "auto" and bool(machine.gpus))
    sample = loaded.recipe.sample
    compiled = {
        name: (*(STAGES[name].train_path or ()), "compile")
        for name, train in trainings(loaded.recipe).items()
        if train.compile
    } | ({"sample": ("sample", "compile")} if sample and sample.compile else {})
    for name, path in compiled.items():
        if name in stages and (lack := lacking_compiler(on_gpu)):
            hint = (
                f"install it, or set {dotted(path)}=false, which changes results only by rounding"
            )
            yield Problem(lack, dotted(path), loaded.root.position(path), hint)


def lacking_compiler(on_gpu: bool) -> str | None:
    """What torch.compile lacks here, if anything: torch looks for the same programs and files."""
    if on_gpu and importlib.util.find_spec("triton") is None:
        return "torch.compile needs the package triton on a GPU"
    if on_gpu:
        wanted = [os.environ["CC"]] if "CC" in os.environ else ["gcc", "clang"]
    else:
        wanted = [os.environ.get("CXX", "clang++" if sys.platform == "darwin" else "g++")]
    if not any(map(shutil.which, wanted)):
        return f"torch.compile needs a compiler, but {' or '.join(wanted)} is not found"
    header = Path(sysconfig.get_path("include"), "Python.h")
    if not header.is_file():
        return f"torch.compile needs Python's header files, but {header} does not exist"
    return None


# --- disk -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Files:
    """What a stage writes, and its size in bytes."""

    stage: str
    what: str
    size: int


def _disk(
    recipe: Recipe, stages: Collection[str], folder: Path, above: float, up_to: float = math.inf
) -> Iterator[Problem]:
    """Whether the stages write more than ``above`` and at most ``up_to`` times the free space."""
    free = free_space(folder)
    if free is None:
        return
    files = [part for part in _written(recipe) if part.stage in stages]
    needed = sum(part.size for part in files) - _present(folder, stages)
    if above < (needed / free if free else math.inf) <= up_to and needed > 0:
        largest = sorted(files, key=lambda part: part.size, reverse=True)[:3]
        parts = ", ".join(f"{gib(p.size)} for {p.stage}{p.what}" for p in largest)
        message = (
            f"the run writes about {gib(needed)} ({parts}); {existing_folder(folder).absolute()} "
            f"has {gib(free)} free"
        )
        yield Problem(message, hint="make room, or write to another disk with --run-dir")


def _written(recipe: Recipe) -> Iterator[_Files]:
    """Estimates of the large files of the stages; components of unknown size are left out."""
    settings = trainings(recipe)
    for stage in training_memory(recipe):
        train = settings[stage.stage]
        saved = CHECKPOINTS
        if train.steps is not None:
            saved = min(CHECKPOINTS, -(-train.steps // train.checkpoint_every))
        yield _Files(stage.stage, " checkpoints", saved * stage.checkpoint)
        kept = 1 + len(train.keep_steps)
        yield _Files(stage.stage, " weights", kept * 4 * stage.trained)
        if train.ema_snapshots and train.steps is not None:
            taken = -(-train.steps // train.ema_snapshots.every) * len(train.ema_snapshots.lengths)
            yield _Files(stage.stage, " EMA snapshots", taken * 4 * stage.trained)
    expected = recipe.data.train.config.expected()
    if expected is not None and _caches_features(recipe):
        encoder, views = recipe.tokenizer_section.encoder.config, 2 if recipe.data.flip else 1
        values = encoder.token_grid(recipe.data.image_size) ** 2 * encoder.token_width()
        yield _Files("tokenizer", " features", 4 * views * expected[0] * values)
    if expected is not None and recipe.latents.written:
        latent = latent_shape(recipe)
        values = latent.channels * latent.side**2
        width = 4 if recipe.latents.dtype == "float32" else 2
        yield _Files("latents", "", 2 * expected[0] * values * width)
    if recipe.sample is not None:
        counts = [wanted.settings.count for wanted in recipe.sample.sets(last=None)]
        pixels = 3 * recipe.data.image_size**2
        # While a set is joined, its chunks are there, too.
        yield _Files("sample", " images", (sum(counts) + max(counts)) * pixels)
    yield _Files("evaluate", " features", _extracted(recipe))


def _caches_features(recipe: Recipe) -> bool:
    return recipe.composed is not None and recipe.composed.cache_features


def _extracted(recipe: Recipe) -> int:
    """Bytes of the features that evaluators extract and keep."""
    size = 4 * INCEPTION_FEATURES * _evaluated(recipe, "inception", ("checkpoint", "few_steps"))
    if recipe.extractor is not None:
        width = recipe.extractor.config.token_width()
        size += 8 * width * _evaluated(recipe, "extractor")
    return size


def _evaluated(recipe: Recipe, network: str, without: Collection[Role] = ()) -> int:
    """Number of images whose features in a network evaluators need, of each set once.

    Args:
        recipe: the recipe; test images of unknown number are left out.
        network: in :data:`~pae_framework.config.EVALUATION_NEEDS`.
        without: roles of the sample sets that no evaluator with this network measures.
    """
    chosen = [component.config.needs for component in recipe.evaluate.values()]
    read = frozenset[str]().union(*(needs for needs in chosen if network in needs))
    if network not in read:
        return 0
    expected = recipe.data.test.config.expected()
    test = recipe.data.test_images or (0 if expected is None else expected[0])
    sets = () if recipe.sample is None else recipe.sample.sets(last=None)
    samples = [wanted.settings.count for wanted in sets if wanted.role not in without]
    # Interpolations between latents are decoded, one for each test image.
    made_of_test_images = len(read & {"reconstructions", "train_latents"})
    return test * (1 + made_of_test_images) + ("samples" in read) * sum(samples)


def _present(folder: Path, stages: Collection[str]) -> int:
    """Bytes that the stages have written already."""
    kept = {"tokenizer": "features/**/*", "evaluate": "extracted/**/*"}
    patterns = (
        *(f"{name}-*/**/*" for name in stages),
        *(pattern for name, pattern in kept.items() if name in stages),
    )
    found = (path for pattern in patterns for path in folder.glob(pattern))
    return sum(path.stat().st_size for path in found if path.is_file())


# --- shared memory, locks, temporary files --------------------------------------------------------


def _shared_memory(loaded: LoadedRecipe, stages: Collection[str]) -> Iterator[Problem]:
    if not SHARED_MEMORY.is_dir() or (free := free_space(SHARED_MEMORY)) is None:
        return
    for path, workers, batch in _batches(loaded.recipe):
        needed = workers * PREFETCHED * batch
        if path[0] in stages and needed > free:
            message = (
                f"{workers} processes that read batches of {gib(batch)} ahead need {gib(needed)} "
                f"of shared memory; {SHARED_MEMORY} has {gib(free)} free, so they may have to send "
                "batches through pipes, which is slower"
            )
            where = loaded.root.position(path)
            hint = f"enlarge {SHARED_MEMORY} (docker run --shm-size), or set {dotted(path)} lower"
            yield Problem(message, dotted(path), where, hint)


def _batches(recipe: Recipe) -> Iterator[tuple[KeyPath, int, int]]:
    """Key path of each setting `workers`, its value, and the bytes of one batch."""
    image, latent = 3 * recipe.data.image_size**2, latent_shape(recipe)
    for name, train in trainings(recipe).items():
        reads_latents = name == "generator" and recipe.latents.stored
        crop = 3 * (train.crop_from or 0) ** 2
        item = 4 * latent.channels * latent.side**2 if reads_latents else max(image, crop)
        path = (*(STAGES[name].train_path or ()), "workers")
        yield path, train.workers, train.batch_size * item
    latents = recipe.latents
    if latents.written:
        yield (
            ("latents", "workers"),
            latents.workers,
            latents.batch_size * image,
        )


def _locks(folder: Path) -> Iterator[Problem]:
    inside = existing_folder(folder)
    if not has_locks(inside):
        message = f"the file system of {inside.absolute()} has no locks; files mark what is in use"
        yield Problem(message, hint="do not run one recipe from two machines at once")


def _temporary_folder() -> Iterator[Problem]:
    try:
        tempfile.gettempdir()
    except OSError as error:
        message = f"no temporary folder can be written ({error.strerror})"
        yield Problem(message, hint="set TMPDIR to a folder that can be written")
