"""``pae check``: validate a recipe, and list what this machine lacks to run it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pae_framework.cli.arguments import (
    JsonOption,
    OnOption,
    OverridesArgument,
    PluginOption,
    RecipeArgument,
)
from pae_framework.cli.output import installed_registry, note, plain_problem, print_answer
from pae_framework.errors import Problem, ProfileError, RecipeError, UsageError
from pae_framework.system.printing import print_line

if TYPE_CHECKING:
    from pae_framework.preflight.image_checks import FoundImages
    from pae_framework.preflight.profile_checks import JobsPreflight
    from pae_framework.recipe.loaded import LoadedRecipe
    from pae_framework.recipe.profiles import FoundProfile
    from pae_framework.runs.sweep_size import SweepSize


def check(
    recipe: RecipeArgument,
    overrides: OverridesArgument = None,
    plugin: PluginOption = None,
    on: OnOption = None,
    pictures: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="also write a PNG file of training and test images as they are read, cropped, "
            "with class and name",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Check a recipe without running it: names, types, and whether shapes agree.

    Also lists everything this machine lacks to run it: data, weights, a GPU, memory, disk space,
    a compiler. That is not an error; images that cannot be used are. With a profile, `--on` or the
    recipe's `launch`, it lists what the profile's jobs lack instead, and what the Slurm site would
    refuse, which is an error. Stages that are done in runs/<recipe name> need nothing. Writes
    nothing.
    """
    from pae_framework.preflight.image_checks import doubtful_images, found_images, unusable_images
    from pae_framework.preflight.requirements import members_of, unfinished_stages
    from pae_framework.recipe.components import require_targets
    from pae_framework.recipe.load import load_recipe
    from pae_framework.recipe.profiles import chosen_profile
    from pae_framework.runs.looking import only_looking

    if pictures is not None:
        _check_picture(pictures)
    try:
        loaded = load_recipe(recipe, overrides or (), installed_registry(), plugin or ())
        profile = chosen_profile(loaded, on)
    except RecipeError as error:
        if not as_json:
            raise
        print_answer("check", _answer(problems=error.problems))
        raise typer.Exit(error.exit_code) from None
    members = members_of(loaded)
    for member in members:
        require_targets(member.recipe, loaded.registry)
    with only_looking():
        found, size = _found(loaded, profile), _sweep_size(loaded)
        images, doubtful = found_images(members), doubtful_images(members)
        store = _store(loaded)
        unusable = unusable_images([each for each in members if unfinished_stages(each, store)])
    if as_json:
        answer = _answer(unusable, found.missing, found.tight)
        answer |= {
            "images": list(map(asdict, images)),
            "doubtful": list(map(plain_problem, doubtful)),
        }
        if profile is not None:
            refused = [plain_problem(problem) for problem in found.refused]
            answer |= {"profile": profile.name, "site": found.site, "refused": refused}
        if size is not None:
            answer["sweep"] = asdict(size)
        print_answer("check", answer)
    else:
        _print(loaded, profile, found, images, size, valid=not unusable)
        _print_list("warnings about the images:", doubtful)
    if pictures is not None:
        from pae_framework.evaluation.contact_sheet import write_contact_sheet

        write_contact_sheet(loaded, pictures)
        note(f"{pictures}: written")
    if problems := (*unusable, *found.refused):
        if as_json:
            raise typer.Exit(RecipeError.exit_code)
        raise (RecipeError if unusable else ProfileError)(problems)


def _check_picture(file: Path) -> None:
    if file.suffix.lower() != ".png":
        raise UsageError(f"--pictures {file}: expected the name of a PNG file")
    if os.path.lexists(file):
        raise UsageError(f"{file} exists; choose another file for --pictures")


def _found(loaded: LoadedRecipe, profile: FoundProfile | None) -> JobsPreflight:
    """What the unfinished stages of the recipe's run lack where they will run."""
    from pae_framework.preflight.processes import Sharing
    from pae_framework.preflight.profile_checks import JobsPreflight, examine_jobs
    from pae_framework.preflight.requirements import low_memory, members_of, missing_requirements
    from pae_framework.preflight.resources import lacking_resources, scarce_resources

    members, store = members_of(loaded), _store(loaded)
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


def _store(loaded: LoadedRecipe) -> Path | None:
    """The folder of the stages of the recipe's run; None if there is no run."""
    from pae_framework.preflight.resources import RUNS
    from pae_framework.runs.directory import RunDirectory, stages_dir_of

    path = RUNS / loaded.recipe.name
    return RunDirectory.at(path, stages_dir_of(path)).store if path.is_dir() else None


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
    images: Sequence[FoundImages],
    size: SweepSize | None,
    valid: bool,
) -> None:
    from pae_framework.preflight.processes import settings_without_effect
    from pae_framework.preflight.requirements import images_left_out, members_of

    members = members_of(loaded)
    needs = f"; to run it {_place(profile)} you still need:" if found.missing else ""
    of = "" if size is None else f", a sweep of {size}"
    state = "valid" if valid else "its images cannot be used"
    print_line(f"{loaded.recipe.name}: {state}{of}{needs}")
    lines = (
        *found.missing,
        *images,
        *images_left_out(members),
        *settings_without_effect(members),
    )
    for line in lines:
        print_line(f"  {line}")
    heading = "this machine may not suffice:" if profile is None else "warnings:"
    _print_list(heading, found.tight)
    if found.site:
        print_line(f"site: {found.site}")


def _print_list(heading: str, problems: Sequence[Problem]) -> None:
    if problems:
        print_line(heading)
    for problem in problems:
        print_line(f"  {problem}")


def _place(profile: FoundProfile | None) -> str:
    return "here" if profile is None else f"with profile {profile.name}"


def _answer(
    problems: Sequence[Problem] = (), missing: Sequence[Problem] = (), tight: Sequence[Problem] = ()
) -> dict[str, Any]:
    lists = {"problems": problems, "missing": missing, "tight": tight}
    plain = {name: [plain_problem(problem) for problem in found] for name, found in lists.items()}
    return {"valid": not problems, **plain}
