"""``pae profiles``: list where recipes can run, and explain one profile."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pae_framework.cli.arguments import JsonOption
from pae_framework.cli.output import plain_problem, print_answer
from pae_framework.cli.shell_completion import complete_profile
from pae_framework.errors import ProfileError, UsageError
from pae_framework.system.printing import print_line

if TYPE_CHECKING:
    from pae_framework.recipe.profiles import FoundProfile, Profiles


def profiles(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="PROFILE",
            help="explain this profile: every value, where it was set, what sbatch gets",
            autocompletion=complete_profile,
        ),
    ] = None,
    example: Annotated[
        bool, typer.Option("--example", help="print a file of profiles to copy and edit")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """List the profiles with which `pae run RECIPE --on PROFILE` can run a recipe.

    A profile says where stages run: on a Slurm cluster, on this machine, with which resources. Your
    own are in $XDG_CONFIG_HOME/pae_framework/profiles.yaml (~/.config/pae_framework/profiles.yaml).

    Examples:
        pae profiles

        pae profiles cluster

        pae profiles --example
    """
    from pae_framework.recipe.profiles import EXAMPLE, Profiles

    if example:
        if name is not None or as_json:
            raise UsageError("--example takes no profile and no --json")
        print_line(EXAMPLE.removesuffix("\n"))
    elif name is None:
        _list(Profiles(), as_json)
    else:
        _explain(Profiles().find(name), as_json)


def _list(known: Profiles, as_json: bool) -> None:
    """Print every valid profile.

    Raises:
        ProfileError: a profile is invalid; the valid ones were printed.
    """
    found, problems = known.all()
    if as_json:
        listed = [{"name": f.name, "executor": f.profile.executor, "where": f.where} for f in found]
        answer = {"file": str(known.file.absolute()), "profiles": listed}
        print_answer("profiles", {**answer, "problems": [plain_problem(x) for x in problems]})
        if problems:
            raise typer.Exit(ProfileError.exit_code)
        return
    for profile in found:
        print_line(f"{profile.name} ({profile.profile.executor}): {_summary(profile)}")
        print_line(f"  {profile.where}")
    if not known.file.exists():
        print_line(f"your own: `pae profiles --example` prints a file; save it as {known.file}")
    if problems:
        raise ProfileError([*problems])


def _summary(found: FoundProfile) -> str:
    from pae_framework.launch.submission import resources_text

    profile = found.profile
    if profile.executor == "debug":
        return "this process"
    if profile.executor == "local" and profile.tasks_per_node is profile.gpus_per_node is None:
        return "this machine, a process for each visible GPU, or 1"
    stages = f"; differs for {', '.join(profile.stages)}" if profile.stages else ""
    return f"{resources_text(profile)}{stages}"


def _explain(found: FoundProfile, as_json: bool) -> None:
    from pae_framework.recipe.emit import inline
    from pae_framework.recipe.loaded import DEFAULT

    rows = _rows(found)
    if as_json:
        values = [asdict(row) for row in rows]
        print_answer("profiles", {"name": found.name, "where": found.where, "values": values})
        return
    print_line(f"{found.name}: {_summary(found)}")
    print_line(f"defined: {found.where}")
    for row in rows:
        becomes = f" -> {row.sbatch}" if row.sbatch else ""
        print_line(f"\n{row.key}: {inline(row.value)}{becomes}")
        print_line(f"  {row.meaning}")
        if row.where != DEFAULT:
            print_line(f"  set at {row.where}; default: {inline(row.default)}")


@dataclass(frozen=True)
class _Row:
    """One value of a profile."""

    key: str
    value: Any
    where: str
    """Its position, or ``default``."""
    default: Any
    """Of a value for one stage: that of the profile."""
    meaning: str
    sbatch: str
    """What a job is submitted with; empty: nothing."""


def _rows(found: FoundProfile) -> list[_Row]:
    """Every value, then those that differ for single stages."""
    from pae_framework.launch.submission import sbatch_terms
    from pae_framework.recipe.profile_settings import Profile

    fields = Profile.model_fields
    values = found.profile.model_dump(mode="json", exclude={"extends", "stages"})
    defaults = Profile().model_dump(mode="json")

    def row(path: tuple[str, ...], value: Any, default: Any, terms: dict[str, str]) -> _Row:
        key = path[-1]
        meaning = fields[key].description or ""
        return _Row(".".join(path), value, found.origin(path), default, meaning, terms.get(key, ""))

    terms = sbatch_terms(found.profile)
    rows = [row((key,), value, defaults[key], terms) for key, value in values.items()]
    for stage, resources in found.profile.stages.items():
        terms = sbatch_terms(found.profile, stage)
        for key, value in resources.model_dump(mode="json", exclude_unset=True).items():
            rows.append(row(("stages", stage, key), value, values[key], terms))
    return rows
