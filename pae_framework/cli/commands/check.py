"""``pae check``: validate a recipe, and list what this machine lacks to run it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import typer

from pae_framework.cli.arguments import (
    JsonOption,
    OnOption,
    OverridesArgument,
    RecipeArgument,
)
from pae_framework.cli.output import installed_registry, print_json
from pae_framework.errors import Problem, ProfileError, RecipeError
from pae_framework.system.printing import print_line

if TYPE_CHECKING:
    from pae_framework.recipe.loaded import LoadedRecipe
    from pae_framework.recipe.profiles import FoundProfile


def check(
    recipe: RecipeArgument,
    overrides: OverridesArgument = None,
    on: OnOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check a recipe without running it: names, types, and whether shapes agree.

    Also lists everything this machine lacks to run it: data, weights, a GPU, memory, disk space,
    a compiler. That is not an error. With a profile, `--on` or the recipe's `launch`, it lists what
    the profile's jobs lack instead, and what the Slurm site would refuse, which is an error.
    Writes nothing.
    """
    from pae_framework.preflight.processes import settings_without_effect
    from pae_framework.preflight.requirements import images_left_out, members_of
    from pae_framework.recipe.load import load_recipe
    from pae_framework.recipe.profiles import chosen_profile

    try:
        loaded = load_recipe(recipe, overrides or (), installed_registry())
        profile = chosen_profile(loaded, on)
    except RecipeError as error:
        if not as_json:
            raise
        print_json(_answer(problems=error.problems))
        raise typer.Exit(error.exit_code) from None
    members = members_of(loaded)
    site = None if profile is None else _asked_site(members, profile)
    missing, tight = _lacks(members, profile)
    if as_json:
        print_json(_answer((), missing, tight) | ({} if site is None else asdict(site)))
    else:
        needs = f"; to run it {_place(profile)} you still need:" if missing else ""
        print_line(f"{loaded.recipe.name}: valid{needs}")
        for line in (*missing, *images_left_out(members), *settings_without_effect(members)):
            print_line(f"  {line}")
        if tight:
            print_line("this machine may not suffice:" if profile is None else "memory is tight:")
        for problem in tight:
            print_line(f"  {problem}")
        if site is not None:
            print_line(f"site: {site.site}")
    if site is not None and site.refused:
        if as_json:
            raise typer.Exit(ProfileError.exit_code)
        raise ProfileError(site.refused)


@dataclass(frozen=True)
class _Site:
    """The answer about a profile."""

    profile: str
    site: str
    """Whether the site was asked, and if not, why."""
    refused: tuple[Problem, ...]


def _asked_site(members: Sequence[LoadedRecipe], profile: FoundProfile) -> _Site:
    from pae_framework.preflight.profile_checks import refused, stages_to_run, too_many_processes
    from pae_framework.preflight.slurm_site import SiteUnknownError, read_partitions

    problems = too_many_processes(members, profile)
    state = f"not asked: the executor is {profile.profile.executor}"
    if profile.profile.executor == "slurm":
        try:
            problems += refused(profile, stages_to_run(members, None), read_partitions())
            state = "checked with sinfo"
        except SiteUnknownError as error:
            state = f"not checked: {error}"
    return _Site(profile.name, state, tuple(problems))


def _lacks(
    members: Sequence[LoadedRecipe], profile: FoundProfile | None
) -> tuple[list[Problem], list[Problem]]:
    """What the machine that runs the recipe lacks, and what is tight there."""
    from pae_framework.preflight.profile_checks import machine_of_jobs, stages_to_run
    from pae_framework.preflight.requirements import low_memory, missing_requirements
    from pae_framework.preflight.resources import lacking_resources, scarce_resources

    if profile is not None and profile.profile.executor == "slurm":
        machine = machine_of_jobs(profile, stages_to_run(members, None))
        return missing_requirements(members, None, machine), low_memory(members, None, machine)
    missing = [*missing_requirements(members), *lacking_resources(members)]
    return missing, [*low_memory(members), *scarce_resources(members)]


def _place(profile: FoundProfile | None) -> str:
    return "here" if profile is None else f"with profile {profile.name}"


def _answer(
    problems: Sequence[Problem] = (), missing: Sequence[Problem] = (), tight: Sequence[Problem] = ()
) -> dict[str, Any]:
    lists = {"problems": problems, "missing": missing, "tight": tight}
    plain = {name: [asdict(problem) for problem in found] for name, found in lists.items()}
    return {"valid": not problems, **plain}
