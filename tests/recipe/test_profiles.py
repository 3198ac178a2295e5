"""The user's file of profiles, and `launch` in recipes: where values come from, and errors."""

from __future__ import annotations

from pathlib import Path

import pytest
from recipe_cases import Load, Problems

from pae_framework.errors import Problem, ProfileError
from pae_framework.recipe.profiles import (
    EXAMPLE,
    FoundProfile,
    Profiles,
    chosen_profile,
    profiles_file,
)
from pae_framework.recipe.smoke import smoke_recipe
from pae_framework.runs.plan import plan

FILE = """\
site:
  partition: gpu
  gpus_per_node: 4
  time: 12:00:00
  stages: {report: {gpus_per_node: 0}}
short:
  extends: site
  time: 00:30:00
"""


@pytest.fixture(autouse=True)
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's file, ``config/pae_framework/profiles.yaml`` in the working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    path = tmp_path / "config" / "pae_framework" / "profiles.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(FILE)
    return path


SHOWN = "config/pae_framework/profiles.yaml"


def wrong(name: str = "site") -> list[Problem]:
    """The problems of a profile that must not be found."""
    with pytest.raises(ProfileError) as caught:
        Profiles().find(name)
    return list(caught.value.problems)


def of_launch(load: Load, *overrides: str) -> FoundProfile:
    found = chosen_profile(load(*overrides), None)
    assert found is not None
    return found


# --- the file -------------------------------------------------------------------------------------


def test_the_file_is_in_the_users_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert profiles_file() == tmp_path / "config/pae_framework/profiles.yaml"
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for unset in ("", "relative"):  # the XDG specification: a relative path is to be ignored
        monkeypatch.setenv("XDG_CONFIG_HOME", unset)
        assert profiles_file() == tmp_path / "home/.config/pae_framework/profiles.yaml"


def test_without_a_file_there_are_the_built_in_profiles(file: Path) -> None:
    file.unlink()
    assert Profiles().names == ["local", "debug"]
    assert Profiles().find("local").profile.executor == "local"
    (problem,) = wrong("site")
    assert SHOWN in problem.message


def test_a_file_of_comments_has_no_profiles_and_says_so(file: Path) -> None:
    file.write_text("# nothing yet\n")
    (problem,) = wrong()
    assert problem.where == f"{SHOWN}:1:1"
    assert "profiles" in problem.message


def test_the_example_is_valid(file: Path) -> None:
    file.write_text(EXAMPLE)
    found, problems = Profiles().all()
    assert problems == []
    assert {profile.name for profile in found} == {"local", "debug", "cluster", "cluster_test"}


def test_extends_takes_what_a_profile_does_not_set_itself() -> None:
    short = Profiles().find("short")
    assert (short.profile.partition, short.profile.time) == ("gpu", "00:30:00")
    assert short.profile.for_stage("report").gpus_per_node == 0
    assert short.where == f"{SHOWN}:6:1"
    assert short.origin(("partition",)) == f"{SHOWN}:2:14"
    assert short.origin(("time",)) == f"{SHOWN}:8:9"
    assert short.origin(("nodes",)) == "default"


def test_of_several_profiles_the_last_takes_precedence(file: Path, load: Load) -> None:
    more = "long: {time: 2-00:00:00, account: lab}\nboth:\n  extends: [short, long]\n"
    file.write_text(FILE + more)
    both = Profiles().find("both")
    assert (both.profile.partition, both.profile.account) == ("gpu", "lab")
    assert both.profile.time == "2-00:00:00"
    assert both.origin(("time",)) == f"{SHOWN}:9:14"
    assert of_launch(load, "launch={extends: [long, short]}").profile.time == "00:30:00"


def test_a_recipe_with_an_empty_list_of_profiles_is_invalid(problems: Problems) -> None:
    (problem,) = problems("launch={extends: []}")
    assert problem.path.startswith("launch.extends")


def test_null_takes_back_what_a_profile_extends(file: Path) -> None:
    file.write_text(FILE + "  partition: null\n  gpus_per_node: null\n  stages: null\n")
    short = Profiles().find("short").profile
    assert (short.partition, short.gpus_per_node, short.stages) == (None, None, {})


@pytest.mark.parametrize(
    ("change", "path", "where", "mentions"),
    [
        ("nods: 2", "site.nods", "6:3", "'nodes'"),
        ("nodes: two", "site.nodes", "6:10", "'two'"),
        ("nodes: 0", "site.nodes", "6:10", "1 or more"),
        ("executor: slrum", "site.executor", "6:13", "'slurm'"),
        ("memory: 64", "site.memory", "6:11", "64GB"),
        ("setup: module load cuda", "site.setup", "6:10", "a list"),
        ("flags: {time: 5}", "site.flags", "6:3", "set time"),
        ("tasks_per_node: 8", "site.tasks_per_node", "6:19", "4 GPUs"),
        ("signal_before: 0", "site.signal_before", "6:18", "1 or more"),
        ("signal_before: 65536", "site.signal_before", "6:18", "65535"),  # sbatch refuses more
        ("extends: nowhere", "site.extends", "6:12", "'nowhere'"),
        ("extends: short", "site.extends", "8:12", "circular"),
        ("extends: [short]", "site.extends", "8:12", "circular"),
        ("extends: [local, nowhere]", "site.extends", "6:20", "'nowhere'"),
        ("extends: [local, 3]", "site.extends", "6:20", "found 3"),
        ("extends: [local, local]", "site.extends", "6:20", "twice"),
        ("extends: []", "site.extends", "6:12", "empty"),
        ("extends: {a: b}", "site.extends", "6:12", "a map"),
        ("max_restarts_without_progress: -1", "site.max_restarts_without_progress", "6:34", "0"),
    ],
)
def test_errors_name_position_key_and_remedy(
    file: Path, change: str, path: str, where: str, mentions: str
) -> None:
    first, rest = FILE.split("short:")
    file.write_text(f"{first}  {change}\nshort:{rest}")
    (problem,) = wrong()
    circular = "circular" in problem.message
    assert problem.path == ("short.extends" if circular else path), problem
    assert problem.where == f"{SHOWN}:{where}"
    assert mentions in f"{problem.message} {problem.hint}"


@pytest.mark.parametrize(
    ("stages", "path", "mentions"),
    [
        ("{generatr: {nodes: 2}}", "site.stages.generatr", "'generator'"),
        ("{generator: {nodez: 2}}", "site.stages.generator.nodez", "'nodes'"),
        ("{generator: {executor: local}}", "site.stages.generator.executor", "unknown key"),
        ("{generator: {gpus_per_node: 2}}", None, ""),
        ("{generator: {tasks_per_node: 9}}", "site.stages.generator.tasks_per_node", "4 GPUs"),
        ("{generator: {time: 3}}", "site.stages.generator.time", "signal_before"),
        ("{generator: 2}", "site.stages.generator", "a map"),
        ("[generator]", "site.stages", "a map"),
    ],
)
def test_resources_of_a_stage_are_checked_like_those_of_a_profile(
    file: Path, stages: str, path: str | None, mentions: str
) -> None:
    file.write_text(FILE.replace("{report: {gpus_per_node: 0}}", stages))
    if path is None:
        assert Profiles().find("site")
        return
    (problem,) = wrong()
    assert problem.path == path
    assert problem.where.startswith(f"{SHOWN}:5:")
    assert mentions in f"{problem.message} {problem.hint}"


@pytest.mark.parametrize(
    ("text", "mentions"),
    [
        ("- site\n", "map"),
        ("site: {nodes: 1\n", "YAML"),
        ("site: {time: 1}\nsite: {time: 2}\n", "duplicate"),
        ("local: {nodes: 1}\n", "built in"),
        ("site: gpu\n", "a map"),
        ("site: null\n", "a map"),
        ("site: {extends: other}\nother: text\n", "a map"),
        ("site: {nodes: 1}\n", "time"),
        ("site: {executor: local, nodes: 2}\n", "one node"),
        ("site: {executor: debug, gpus_per_node: 2}\n", "one process"),
    ],
)
def test_a_file_or_profile_of_another_form_is_one_problem(
    file: Path, text: str, mentions: str
) -> None:
    file.write_text(text)
    (problem,) = wrong()
    assert problem.where.startswith(SHOWN)
    assert mentions in f"{problem.path} {problem.message}"


def test_a_folder_in_place_of_the_file_is_a_problem(file: Path) -> None:
    file.unlink()
    file.mkdir()
    (problem,) = wrong()
    assert "folder" in problem.message or "directory" in problem.message


def test_a_wrong_profile_does_not_stop_the_others(file: Path) -> None:
    file.write_text(f"broken: {{nodes: 0, time: 1}}\n{FILE}")
    assert Profiles().find("short").profile.partition == "gpu"
    found, problems = Profiles().all()
    assert [profile.name for profile in found] == ["local", "debug", "site", "short"]
    assert [problem.path for problem in problems] == ["broken.nodes"]


def test_an_unreadable_file_does_not_stop_the_built_in_profiles(file: Path) -> None:
    file.write_text("{")
    assert Profiles().find("debug").profile.executor == "debug"


# --- launch in a recipe ---------------------------------------------------------------------------


def test_a_recipe_without_launch_runs_in_this_process(load: Load) -> None:
    assert chosen_profile(load(), None) is None
    assert chosen_profile(load("launch=site", "launch=null"), None) is None


def test_launch_is_a_name_or_a_map(load: Load) -> None:
    assert of_launch(load, "launch=short").profile == Profiles().find("short").profile
    own = of_launch(load, "launch={extends: short, nodes: 2}")
    assert (own.profile.nodes, own.profile.partition) == (2, "gpu")
    assert own.origin(("nodes",)) == "command line"
    assert own.origin(("partition",)) == f"{SHOWN}:2:14"
    alone = of_launch(load, "launch={partition: cpu, time: 60}")
    assert (alone.profile.partition, alone.profile.time) == ("cpu", "01:00:00")


def test_a_key_of_launch_is_added_to_the_profile_that_launch_names(load: Load) -> None:
    profile = of_launch(load, "launch=short", "launch.nodes=2").profile
    assert (profile.nodes, profile.time) == (2, "00:30:00")


def test_on_replaces_launch(load: Load) -> None:
    found = chosen_profile(load("launch={extends: site, nodes: 7}"), "short")
    assert found is not None
    assert (found.name, found.profile.nodes) == ("short", 1)


@pytest.mark.parametrize(
    ("override", "path"),
    [
        ("launch={nods: 2}", "launch.nods"),
        ("launch=3", "launch"),
        ("launch={time: soon}", "launch.time"),
        ("launch={stages: {generatr: {nodes: 2}}}", "launch.stages.generatr"),
        ("launch.stages.generator.memory=64", "launch.stages.generator.memory"),
    ],
)
def test_launch_is_checked_with_the_recipe(problems: Problems, override: str, path: str) -> None:
    (problem,) = problems(override)
    assert (problem.path, problem.where) == (path, "command line")


@pytest.mark.parametrize("launch", ["nowhere", "{extends: nowhere, nodes: 2}"])
def test_a_recipe_loads_where_its_profile_is_not_known(load: Load, launch: str) -> None:
    """A run copied to another machine can still be read there."""
    loaded = load(f"launch={launch}")
    with pytest.raises(ProfileError) as caught:
        chosen_profile(loaded, None)
    (problem,) = caught.value.problems
    assert problem.where == "command line"
    assert "'nowhere'" in problem.message


def test_launch_changes_no_fingerprint(load: Load) -> None:
    plain, launched = load(), load("launch={extends: site, nodes: 2}")
    assert plan(launched.recipe, launched.registry) == plan(plain.recipe, plain.registry)


def test_a_resolved_recipe_has_the_same_profile(load: Load) -> None:
    """What the recipe leaves to the profile is not written as a value of the recipe."""
    for overrides in (
        ["launch=short"],
        ["launch={extends: short, stages: {generator: {nodes: 2}}}"],
        ["launch=short", "launch.stages={generator: {nodes: 2}}", "launch.partition=null"],
    ):
        loaded = load(*overrides)
        again = load(text=loaded.resolved_yaml(), name="resolved.yaml")
        assert again.recipe == loaded.recipe
        first, second = chosen_profile(loaded, None), chosen_profile(again, None)
        assert first is not None
        assert second is not None
        assert first.profile == second.profile
        assert first.profile.for_stage("report").gpus_per_node == 0  # the profile's


def test_a_smoke_run_stays_in_this_process(load: Load) -> None:
    assert smoke_recipe(load("launch=nowhere")).recipe.launch is None


def test_a_variant_of_a_sweep_has_no_launch_of_its_own(problems: Problems) -> None:
    (problem,) = problems("sweep={variants: {a: {launch: site}, b: {}}}")
    assert problem.path == "sweep.variants.a.launch"
