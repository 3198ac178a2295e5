"""``pae check``: validate a recipe, and list what this machine lacks to run it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import typer

from pae_framework.cli.arguments import (
    JsonOption,
    OnOption,
    OverridesArgument,
    PluginOption,
    RecipeArgument,
)
from pae_framework.cli.output import installed_registry, plain_problem, print_answer
from pae_framework.errors import Problem, ProfileError, RecipeError
from pae_framework.system.printing import print_line

if TYPE_CHECKING:
    from pae_framework.preflight.profile_checks import JobsPreflight
    from pae_framework.recipe.loaded import LoadedRecipe
    from pae_framework.recipe.profiles import FoundProfile
    from pae_framework.runs.sweep_size import SweepSize


def check(
    recipe: RecipeArgument,
    overrides: OverridesArgument = None,
    plugin: PluginOption = None,
    on: OnOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check a recipe without running it: names, types, and whether shapes agree.

    Also lists everything this machine lacks to run it: data, weights, a GPU, memory, disk space,
    a compiler. That is not an error. With a profile, `--on` or the recipe's `launch`, it lists what
    the profile's jobs lack instead, and what the Slurm site would refuse, which is an error.
    Stages that are done in runs/<recipe name> need nothing. Writes nothing.
    """
    from pae_framework.preflight.requirements import members_of
    from pae_framework.recipe.components import require_targets
    from pae_framework.recipe.load import load_recipe
    from pae_framework.recipe.profiles import chosen_profile
    from pae_framework.runs.looking import only_looking

    try:
        loaded = load_recipe(recipe, overrides or (), installed_registry(), plugin or ())
        profile = chosen_profile(loaded, on)
    except RecipeError as error:
        if not as_json:
            raise
        print_answer("check", _answer(problems=error.problems))
        raise typer.Exit(error.exit_code) from None
    for member in members_of(loaded):
        require_targets(member.recipe, loaded.registry)
    with only_looking():
        found, size = _found(loaded, profile), _sweep_size(loaded)
    if as_json:
        answer = _answer((), found.missing, found.tight)
        if profile is not None:
            refused = [plain_problem(problem) for problem in found.refused]
            answer |= {"profile": profile.name, "site": found.site, "refused": refused}
        if size is not None:
            answer["sweep"] = asdict(size)
        print_answer("check", answer)
    else:
        _print(loaded, profile, found, size)
    if found.refused:
        if as_json:
            raise typer.Exit(ProfileError.exit_code)
        raise ProfileError(found.refused)


def _found(loaded: LoadedRecipe, profile: FoundProfile | None) -> JobsPreflight:
    """What the unfinished stages of the recipe's run lack where they will run."""
    from pae_framework.preflight.processes import Sharing
    from pae_framework.preflight.profile_checks import JobsPreflight, examine_jobs
    from pae_framework.preflight.requirements import low_memory, members_of, missing_requirements
    from pae_framework.preflight.resources import RUNS, lacking_resources, scarce_resources
    from pae_framework.runs.directory import RunDirectory, stages_dir_of

    members, path = members_of(loaded), RUNS / loaded.recipe.name
    store = RunDirectory.at(path, stages_dir_of(path)).store if path.is_dir() else None
    if profile is not None and profile.profile.executor == "slurm":
        return examine_jobs(members, profile, store)
    sharing = Sharing(members, store, 1 if profile is None else profile)
    executor = "" if profile is None else f"not asked: the executor is {profile.profile.executor}"
    return JobsPreflight(
        missing=(*missing_requirements(members, store), *lacking_resources(members, store)),
        refused=tuple(sharing.impossible()),
        tight=(
            *low_memory(members, store),
            *scarce_resources(members, store),
            *sharing.uneven(),
        ),
        site=executor,
    )


def _sweep_size(loaded: LoadedRecipe) -> SweepSize | None:
    from pae_framework.preflight.requirements import members_of
    from pae_framework.preflight.resources import RUNS
    from pae_framework.runs.directory import RunDirectory, stages_dir_of
    from pae_framework.runs.sweep_size import planned_size

    if loaded.recipe.sweep is None:
        return None
    path = RUNS / loaded.recipe.name
    return planned_size(members_of(loaded), RunDirectory.at(path, stages_dir_of(path)).store)


def _print(
    loaded: LoadedRecipe,
    profile: FoundProfile | None,
    found: JobsPreflight,
    size: SweepSize | None,
) -> None:
    from pae_framework.preflight.processes import settings_without_effect
    from pae_framework.preflight.requirements import images_left_out, members_of

    members = members_of(loaded)
    needs = f"; to run it {_place(profile)} you still need:" if found.missing else ""
    of = "" if size is None else f", a sweep of {size}"
    print_line(f"{loaded.recipe.name}: valid{of}{needs}")
    for line in (*found.missing, *images_left_out(members), *settings_without_effect(members)):
        print_line(f"  {line}")
    if found.tight:
        print_line("this machine may not suffice:" if profile is None else "warnings:")
    for problem in found.tight:
        print_line(f"  {problem}")
    if found.site:
        print_line(f"site: {found.site}")


def _place(profile: FoundProfile | None) -> str:
    return "here" if profile is None else f"with profile {profile.name}"


def _answer(
    problems: Sequence[Problem] = (), missing: Sequence[Problem] = (), tight: Sequence[Problem] = ()
) -> dict[str, Any]:
    lists = {"problems": problems, "missing": missing, "tight": tight}
    plain = {name: [plain_problem(problem) for problem in found] for name, found in lists.items()}
    return {"valid": not problems, **plain}
