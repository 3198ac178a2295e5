"""Start a recipe, from the command line or a notebook. No torch before a stage runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pae_framework.distributed.place import place_of_process
from pae_framework.errors import Problem, RecipeError, UsageError
from pae_framework.launch.again import outdate_stages, require_stages
from pae_framework.launch.executors import require_slurm
from pae_framework.launch.launcher import choose_launcher
from pae_framework.launch.local import try_components
from pae_framework.launch.ranks import Ranks, count_processes, ranks_for
from pae_framework.launch.run_sweep import run_sweep
from pae_framework.launch.submission import (
    JobsOfLabel,
    by_label,
    chain_jobs,
    planned_run,
    sweep_jobs,
    whole_job,
    whole_sweep_job,
)
from pae_framework.launch.submitter import Submitter
from pae_framework.preflight.continuations import impossible_continuations
from pae_framework.preflight.download import fetch_at_first_use
from pae_framework.preflight.image_checks import unusable_images
from pae_framework.preflight.processes import Sharing, processes_of, settings_without_effect
from pae_framework.preflight.profile_checks import examine_jobs
from pae_framework.preflight.requirements import (
    low_memory,
    missing_requirements,
    unfinished_stages,
)
from pae_framework.preflight.resources import RUNS, lacking_resources, scarce_resources
from pae_framework.recipe.load import load_recipe, read_recipe
from pae_framework.recipe.loaded import LoadedRecipe
from pae_framework.recipe.profiles import FoundProfile, chosen_profile
from pae_framework.recipe.smoke import smoke_recipe
from pae_framework.recipe.sweep import Member, chosen_members
from pae_framework.registry import Registry
from pae_framework.runs.cleaning import new_smoke_folder
from pae_framework.runs.directory import RunDirectory, require_folder, stages_dir_of
from pae_framework.runs.job_status import JobsView
from pae_framework.runs.jobs import RunJobs
from pae_framework.runs.looking import looking_once, only_looking
from pae_framework.runs.opened import knowing_gone_plugins
from pae_framework.runs.plan import PlannedStage
from pae_framework.system.console import PlainConsole
from pae_framework.system.standard_streams import lasting_output

if TYPE_CHECKING:
    from pae_framework.dry_run.summary import DryRun


@dataclass(frozen=True)
class RunOptions:
    """How to run a recipe; the defaults are the same as for ``pae run``. Paths may be text."""

    run_dir: Path | None = None
    """Directory of the run; None: ``runs/<recipe name>``, or a new temporary folder for smoke."""
    stages: Path | None = None
    """Folder that holds the stages, to share another run's; None: the run's own."""
    only: str | None = None
    """Sweeps only: run the members whose names match this pattern (``ssr-*``); None: all."""
    smoke: bool = False
    """Run the smoke version: small untrained models, generated images, a few steps, CPU."""
    command: str = "run_recipe"
    """The command that started the run, for ``run.json``."""
    again: tuple[str, ...] = ()
    """Stages to run anew, with all that depend on them, although they are done."""
    processes: str | int | None = None
    """Number of processes to start on this machine, or ``auto``: one per visible GPU; None: one,
    or those that a launcher such as torchrun has started."""
    on: str | None = None
    """Name of the profile with which the stages run; None: that of the recipe's ``launch``."""

    def __post_init__(self) -> None:
        for name in ("run_dir", "stages"):
            if isinstance(path := getattr(self, name), str):
                object.__setattr__(self, name, Path(path))


def load_for_run(
    reference: str | Path,
    overrides: Sequence[str],
    registry: Registry,
    plugins: Sequence[Path] = (),
    run_dir: Path | None = None,
) -> LoadedRecipe:
    """Load a recipe as :func:`~pae_framework.recipe.load.load_recipe` does, to run it.

    If a component is unknown, the error also names the plugins that the run in the directory had
    and that are no longer installed.
    """
    try:
        return load_recipe(reference, overrides, registry, plugins)
    except RecipeError:
        name = (read_recipe(reference, overrides).root.map or {}).get("name")
        path = run_dir or RUNS / str(name.value if name else "")
        if (known := knowing_gone_plugins(registry, path)).gone:
            load_recipe(reference, overrides, known, plugins)
        raise


@lasting_output()
@looking_once()
def run_recipe(
    loaded: LoadedRecipe,
    options: RunOptions | None = None,
    console: PlainConsole | None = None,
    warn: Callable[[str], None] | None = None,
    ranks: Ranks | None = None,
) -> RunDirectory:
    """Run every unfinished stage of a recipe, or of the members of its sweep.

    With a profile of the executors slurm and local, the stages are submitted instead, and this
    returns at once; ``jobs.json`` in the directory lists the jobs.

    Missing weights are downloaded if nothing else is missing. If standard output can no longer be
    written, the run goes on. In a notebook::

        from pae_framework.launch.start import RunOptions, run_recipe
        from pae_framework.recipe.load import load_recipe

        run = run_recipe(load_recipe("quickstart"), RunOptions(smoke=True))
        print((run.path / "evaluate" / "results.json").read_text())

    Args:
        loaded: the recipe.
        options: how to run it; None: the defaults.
        console: shows progress; None: standard output.
        warn: called with each warning that this machine may not suffice; None: print on the
            console.
        ranks: the processes, if they wait already; None: those of the options.

    Returns:
        The directory of the run, or of the sweep.

    Raises:
        UsageError: an option does not fit the recipe, or the directory holds something else.
        ProfileError: the profile, or one that it extends, is missing or invalid.
        RunError: a stage failed, or a file of the run is missing or damaged.
        RecipeError: this machine lacks something that the recipe needs; lists everything.
        StoppedError: stopped on request. A call with the same directory resumes.
    """
    options, console = options or RunOptions(), console or PlainConsole()
    profile = profile_of(loaded, options)
    if ranks is not None:
        return _run(loaded, options, profile, ranks, console, warn)
    with ranks_for(options.processes, console) as ranks:
        return _run(loaded, options, profile, ranks, console, warn)


def profile_of(loaded: LoadedRecipe, options: RunOptions) -> FoundProfile | None:
    """The profile with which :func:`run_recipe` runs the stages; None: in these processes.

    ``options.on`` goes before what else the command line says: ``processes``, ``smoke`` and the
    processes that torchrun has started stay on this machine, whatever the recipe's ``launch`` is.

    Raises:
        UsageError: ``options.on`` contradicts ``options.processes``, ``options.smoke`` or torchrun.
        ProfileError: the profile, or one that it extends, is missing or invalid.
    """
    started = place_of_process() is not None
    if options.on is not None and options.smoke and options.run_dir is None:
        raise UsageError(
            "a smoke run is in a temporary folder, which other machines may not see; with --on, "
            "add --run-dir"
        )
    if options.on is None:
        here = started or options.smoke or options.processes is not None
        return None if here else chosen_profile(loaded, None)
    if options.processes is not None:
        raise UsageError(
            "--processes is for this machine; with --on, the profile sets their number"
        )
    if started:
        raise UsageError("--on starts processes itself; start `pae run` once, not with torchrun")
    return chosen_profile(loaded, options.on)


def _run(
    loaded: LoadedRecipe,
    options: RunOptions,
    profile: FoundProfile | None,
    ranks: Ranks,
    console: PlainConsole,
    warn: Callable[[str], None] | None,
) -> RunDirectory:
    if profile is not None:
        require_slurm(profile)
    loaded, members = _prepare(loaded, options)
    path = options.run_dir or _default_path(loaded, options.smoke)
    require_folder(path, "--run-dir")
    if options.stages is not None:
        require_folder(options.stages, "--stages")
    directory = _directory(path, options)
    recipes, store, again = _recipes(loaded, members), directory.store, options.again
    missing, warnings = _lacks(recipes, store, ranks, profile, again)
    if problems := fetch_at_first_use(recipes, missing, console.print):
        raise RecipeError(problems)
    for problem in warnings:
        (warn or console.print)(str(problem))
    if again:
        _require_components(recipes, store, again, here=profile is None)
    directory.claim(loaded.recipe.name, sweep=bool(members))
    if again:
        with directory.lock():
            outdate_stages(again, recipes, directory.store)
    if profile is None:
        _tell_queued(directory, warn or console.print)
    if profile is not None:
        _submit(loaded, directory, members, profile, options.command, console)
    elif members:
        launcher = choose_launcher(console, ranks)
        run_sweep(loaded, directory, members, launcher, options.command, console)
    else:
        choose_launcher(console, ranks).run(loaded, directory, options.command)
    return directory


def _require_components(
    recipes: Sequence[LoadedRecipe], store: Path, again: tuple[str, ...], here: bool
) -> None:
    """Check that the components can be used, before finished stages are marked as not begun.

    Args:
        recipes: that run.
        store: folder of their stages.
        again: the stages to run anew.
        here: whether they run on this machine, so that attention kernels are tried, too.

    Raises:
        PluginError: a component cannot be imported.
        UsageError: a kernel cannot be used here.
    """
    for recipe in recipes:
        try_components(recipe, unfinished_stages(recipe, store, again) if here else ())


def _tell_queued(directory: RunDirectory, warn: Callable[[str], None]) -> None:
    """Say which jobs of the run have not ended: this process takes stages from them."""
    if not RunJobs(directory.path).submitted:
        return
    view = JobsView(directory.path)
    jobs = [job for job, stages in view.by_job.items() if view.status(stages[-1]).ended is False]
    if jobs:
        warn(
            f"job {', '.join(jobs)} of the run has not ended; the stages now run here, and it uses "
            f"what is done: `pae cancel {directory.path}` ends it"
        )


def _lacks(
    recipes: Sequence[LoadedRecipe],
    store: Path,
    ranks: Ranks,
    profile: FoundProfile | None,
    again: tuple[str, ...],
) -> tuple[list[Problem], list[Problem]]:
    """What keeps the stages from running where they will run, and what is tight there."""
    impossible = impossible_continuations(recipes, store, again)
    without_effect = settings_without_effect(recipes)
    unfinished = [recipe for recipe in recipes if unfinished_stages(recipe, store, again)]
    unusable = unusable_images(unfinished)
    if profile is not None and profile.profile.executor == "slurm":
        found = examine_jobs(recipes, profile, store, again)
        missing = [*found.missing, *unusable, *found.refused, *impossible]
        return missing, [*found.tight, *without_effect]
    processes = ranks.size if profile is None else profile
    sharing = Sharing(recipes, store, processes, again)
    return [
        *missing_requirements(recipes, store, again=again, processes=ranks.size),
        *unusable,
        *lacking_resources(recipes, store, again=again),
        *sharing.impossible(),
        *impossible,
    ], [
        *low_memory(recipes, store, again=again, processes=ranks.size),
        *scarce_resources(recipes, store, again),
        *sharing.uneven(),
        *without_effect,
    ]


def _submit(
    loaded: LoadedRecipe,
    directory: RunDirectory,
    members: list[Member],
    profile: FoundProfile,
    command: str,
    console: PlainConsole,
) -> None:
    submitter = Submitter(directory, profile, loaded.registry, command, console)
    if members:
        submitter.submit_sweep(loaded, members)
    else:
        submitter.submit_run(loaded)


@only_looking()
def dry_run_recipe(loaded: LoadedRecipe, options: RunOptions) -> dict[str, DryRun]:
    """What :func:`run_recipe` would do, for the recipe or each member of its sweep, by name.

    Needs no data and no weights, and writes nothing. Stages whose images `pae run` has not read
    yet are planned by the path of the images; a note says so.

    Raises:
        UsageError: an option does not fit the recipe.
    """
    from pae_framework.dry_run.summary import dry_run  # imports torch

    loaded, members = _prepare(loaded, options)
    directory = _directory(options.run_dir or _default_path(loaded), options)
    recipes = {member.name: member.loaded for member in members} or {loaded.recipe.name: loaded}
    told = profile_of(loaded, options) or count_processes(options.processes)

    def processes(stage: str) -> int:
        if isinstance(told, int):
            return told
        return processes_of(told.profile, told.profile.for_stage(stage))

    return {
        name: dry_run(recipe, directory, options.again, processes)
        for name, recipe in recipes.items()
    }


@only_looking()
def planned_submissions(
    loaded: LoadedRecipe, options: RunOptions, profile: FoundProfile
) -> list[JobsOfLabel]:
    """The jobs that :func:`run_recipe` would submit with a profile, in the order they run.

    Jobs of the run that are in the queue already are not looked up.

    Raises:
        UsageError: an option does not fit the recipe.
    """
    loaded, members = _prepare(loaded, options)
    store = _directory(options.run_dir or _default_path(loaded), options).store
    recipes = {member.name: member.loaded for member in members} or {"": loaded}
    runs = {name: planned_run(each, store, options.again) for name, each in recipes.items()}
    asked = profile.profile
    if asked.executor != "slurm":
        if not members and not runs[""].unfinished:
            return []
        whole = whole_sweep_job(runs, asked) if members else whole_job(runs[""], asked)
        return by_label([whole], asked)
    if members:
        return by_label(sweep_jobs(runs, asked, _no_job), asked)
    return by_label(chain_jobs(runs[""], asked, _no_job), asked)


def _no_job(stage: PlannedStage, inputs: object) -> None:
    """Of a dry run, no stage is in a job already."""


def _prepare(loaded: LoadedRecipe, options: RunOptions) -> tuple[LoadedRecipe, list[Member]]:
    """The recipe to run and, for a sweep, its members to run."""
    if loaded.recipe.sweep and options.stages:
        raise UsageError("--stages is for single runs; a sweep shares its stages already")
    if options.only and not loaded.recipe.sweep:
        raise UsageError(f"--only is for sweeps; {loaded.recipe.name} has no `sweep:`")
    if options.smoke:
        loaded = smoke_recipe(loaded, options.only)
    members = chosen_members(loaded, options.only) if loaded.recipe.sweep else []
    require_stages(options.again, _recipes(loaded, members))
    return loaded, members


def _recipes(loaded: LoadedRecipe, members: list[Member]) -> list[LoadedRecipe]:
    """The recipes that run: the members of a sweep, or the recipe itself."""
    return [member.loaded for member in members] or [loaded]


def _directory(path: Path, options: RunOptions) -> RunDirectory:
    return RunDirectory.at(path, options.stages or stages_dir_of(path))


def _default_path(loaded: LoadedRecipe, smoke: bool = False) -> Path:
    """``runs/<name>``, or a new folder for a smoke run, so that no stage is cached."""
    name = loaded.recipe.name
    return new_smoke_folder(name) if smoke else RUNS / name
