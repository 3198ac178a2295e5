"""Plugins of one file: every command takes them, and an edited file leads to new results."""

from __future__ import annotations

import json
import os
import pickle
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from pae_framework.cli.app import app
from pae_framework.errors import PluginError, RecipeError
from pae_framework.file_plugins import Portable, import_file
from pae_framework.launch.snapshot import versions
from pae_framework.plugins import load_registry, with_files
from pae_framework.recipe.load import load_recipe
from pae_framework.recipe.smoke import smoke_recipe
from pae_framework.recipe.sweep import expand
from pae_framework.registry import Registry
from pae_framework.runs.environment import describe_environment
from pae_framework.runs.plan import plan
from pae_framework.testing.pytest import Pae, Result, run_process

SOURCE = '''
"""A regularizer in one file."""

from pydantic import Field

from pae_framework import hookimpl
from pae_framework.config import RegularizerConfig

pae_api = 1


class PullConfig(RegularizerConfig):
    """Draws latents to a value."""

    value: float = Field(0.0, description="the value")


def __getattr__(name):
    if name != "Pull":
        raise AttributeError(name)
    from pae_framework.contracts import Regularizer

    class Pull(Regularizer):
        def __init__(self, config):
            super().__init__(config)
            self.value = config.value

        def forward(self, inputs):
            return (inputs.posterior.latents - self.value).square().mean()

    Pull.__qualname__ = "Pull"
    globals()["Pull"] = Pull
    return Pull


@hookimpl
def pae_register_regularizers(register):
    register("{name}", target=__name__ + ":Pull", config=__name__ + ":PullConfig", summary="pulls")
'''
RECIPE = "pae: 1\nextends: quickstart\nname: mine\n"
TERM = "tokenizer: {regularizers: {pull: {weight: 0.1, value: 2}}}\n"


@pytest.fixture(autouse=True)
def forget() -> Iterator[None]:
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if hasattr(sys.modules[name], "__pae_file__"):
            del sys.modules[name]


def write(folder: Path, file: str = "pull_file.py", name: str = "pull") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / file
    path.write_text(SOURCE.replace("{name}", name))
    return path


def fingerprints(recipe: Path) -> dict[str, str]:
    loaded = load_recipe(recipe, (), load_registry())
    return {stage.name: stage.fingerprint for stage in plan(loaded.recipe, loaded.registry)}


# --- every command --------------------------------------------------------------------------------


def test_every_command_takes_a_file(pae: Pae, tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "mine.yaml").write_text(RECIPE + TERM)
    option = ("--plugin", "pull_file.py")
    assert "regularizer 'pull'" in pae("check", "mine.yaml").fails(2).err
    assert pae("check", "mine.yaml", *option).ok().out == "mine: valid\n"
    shown = yaml.safe_load(pae("show", "mine.yaml", *option).ok().out)
    assert shown["plugins"] == [str(tmp_path / "pull_file.py")]
    listed = pae("list-plugins", "--json", *option).ok().json
    (own,) = [plugin for plugin in listed["plugins"] if plugin["file"]]
    assert (own["file"], own["state"]) == (str(tmp_path / "pull_file.py"), "ok")
    assert "pull_file.py" in pae("list-plugins", "regularizer", "--long", *option).ok().out
    assert "the value" in pae("show-plugin", "regularizer:pull", *option).ok().out
    pae("run", "mine.yaml", "--dry-run", *option).ok()
    pae("fetch", "mine.yaml", "--dry-run", *option).ok()


WITHOUT_COMPONENTS = {"cancel", "cards", "copy", "logs"}
"""Commands of runs and recipes that use no component."""


def commands(group: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, (*path, name))
        else:
            yield " ".join((*path, name)), command


def test_every_command_of_a_recipe_or_a_run_takes_a_file() -> None:
    lacking = set()
    for name, command in commands(typer.main.get_command(app)):
        metavars = {str(parameter.metavar).partition("|")[0] for parameter in command.params}
        options = {option for parameter in command.params for option in parameter.opts}
        if metavars & {"RECIPE", "RUN", "RUN..."} and "--plugin" not in options:
            lacking.add(name)
    assert lacking == WITHOUT_COMPONENTS


def test_a_schema_knows_the_components_of_a_file(pae: Pae, tmp_path: Path) -> None:
    write(tmp_path)
    assert "regularizer.pull" not in pae("schema").ok().json["definitions"]
    schema = pae("schema", "--plugin", "pull_file.py").ok().json
    assert "value" in schema["definitions"]["regularizer.pull"]["properties"]


def test_one_file_may_be_named_in_several_ways(pae: Pae, tmp_path: Path) -> None:
    file = write(tmp_path / "base")
    (tmp_path / "base" / "base.yaml").write_text(RECIPE + "plugins: [pull_file.py]\n" + TERM)
    (tmp_path / "mine").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "base")
    (tmp_path / "mine" / "mine.yaml").write_text(
        "pae: 1\nextends: ../base/base.yaml\nname: other\nplugins: [../link/pull_file.py]\n"
    )
    registry = load_recipe(tmp_path / "mine" / "mine.yaml", plugins=[file]).registry
    (plugin,) = [plugin for plugin in registry.plugins if plugin.file]
    assert (plugin.file, plugin.state) == (str(file), "ok")
    pae("check", "mine/mine.yaml", "--plugin", "mine/../base/pull_file.py").ok()


def test_checking_a_target_runs_no_code_of_the_file(pae: Pae, tmp_path: Path) -> None:
    path = write(tmp_path)
    path.write_text(path.read_text().replace('if name != "Pull":', "if True:"))
    path.write_text(path.read_text().replace("raise AttributeError(name)", "raise OSError(name)"))
    (tmp_path / "mine.yaml").write_text(RECIPE + TERM)
    assert "Traceback" not in pae("check", "mine.yaml", "--plugin", "pull_file.py").ok().err


def test_a_recipe_names_files_relative_to_itself(pae: Pae, tmp_path: Path) -> None:
    write(tmp_path / "project" / "code")
    recipe = tmp_path / "project" / "mine.yaml"
    recipe.write_text(RECIPE + "plugins: [code/pull_file.py]\n" + TERM)
    assert pae("check", "project/mine.yaml").ok().out == "mine: valid\n"


def test_a_resolved_recipe_finds_the_file_from_anywhere(tmp_path: Path) -> None:
    write(tmp_path / "code")
    recipe = tmp_path / "mine.yaml"
    recipe.write_text(RECIPE + "plugins: [code/pull_file.py]\n" + TERM)
    resolved = tmp_path / "elsewhere" / "resolved.yaml"
    resolved.parent.mkdir()
    resolved.write_text(load_recipe(recipe).resolved_yaml())
    assert load_recipe(resolved).recipe == load_recipe(recipe).recipe
    small = smoke_recipe(load_recipe(recipe))
    assert small.registry.find("regularizer", "pull").plugin.file


def test_completion_knows_the_parameters_of_a_file(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "mine.yaml").write_text(RECIPE + TERM)
    line = "pae run mine.yaml --plugin pull_file.py tokenizer.regularizers.pull.v"
    env = {**os.environ, "_PAE_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": "5"}
    code = "from pae_framework.cli.app import main; main()"
    done = run_process("-c", code, cwd=tmp_path, env=env)
    assert done.out.split() == ["tokenizer.regularizers.pull.value="]


def test_files_of_an_extended_recipe_and_of_the_command_line_are_added(tmp_path: Path) -> None:
    write(tmp_path / "base", "one_file.py", "one")
    write(tmp_path, "two_file.py", "two")
    three = write(tmp_path, "three_file.py", "three")
    (tmp_path / "base" / "base.yaml").write_text(RECIPE + "plugins: [one_file.py]\n")
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("extends: base/base.yaml\nplugins: [two_file.py, base/one_file.py]\n")
    registry = load_recipe(recipe, (), None, [three]).registry
    found = [plugin.module for plugin in registry.plugins if plugin.file]
    assert sorted(found) == ["one_file", "three_file", "two_file"]
    assert all(registry.find("regularizer", name) for name in ("one", "two", "three"))


def test_members_of_a_sweep_have_the_files(tmp_path: Path) -> None:
    write(tmp_path)
    recipe = tmp_path / "mine.yaml"
    variants = "sweep: {variants: {a: {tokenizer.regularizers.pull.value: 1}, b: {}}}\n"
    recipe.write_text(RECIPE + "plugins: [pull_file.py]\n" + TERM + variants)
    for member in expand(load_recipe(recipe)):
        assert "pull" in member.loaded.recipe.tokenizer.regularizers
    recipe.write_text(RECIPE + "sweep: {variants: {a: {plugins: [x.py]}}}\n")
    with pytest.raises(RecipeError, match="cannot be changed by a variant"):
        load_recipe(recipe)


# --- what is wrong with a file --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "fact"),
    [
        ("[nowhere.py]", "mine.yaml:4:"),
        ("[.]", "mine.yaml:4:"),
        ("nowhere.py", "plugins"),
        ("[3]", "plugins"),
        ("['']", "plugins"),
        ("{a: b}", "plugins"),
    ],
)
def test_a_wrong_entry_is_named_with_its_position(written, fact, pae, tmp_path):
    (tmp_path / "mine.yaml").write_text(f"{RECIPE}plugins: {written}\n")
    assert fact in pae("check", "mine.yaml").fails(2).err


BROKEN = {
    "raises": "raise ValueError('from inside')",
    "exits": "raise SystemExit(0)",
    "syntax": "def",
    "states no API": "x = 1",
    "registers nothing": "pae_api = 1",
    "lacks a package": "pae_api = 1\nimport no_such_package_of_anyone",
    "prints": "print('hello')",
}


@pytest.mark.parametrize("source", BROKEN.values(), ids=BROKEN)
@pytest.mark.parametrize("door", ["recipe", "option"])
def test_a_broken_file_is_named_with_its_reason(source, door, pae, tmp_path):
    (tmp_path / "broken_file.py").write_text(source)
    named = "plugins: [broken_file.py]\n" if door == "recipe" else ""
    (tmp_path / "mine.yaml").write_text(RECIPE + named)
    option = () if door == "recipe" else ("--plugin", "broken_file.py")
    failed = pae("check", "mine.yaml", "--json", *option).fails(3)
    assert str(tmp_path / "broken_file.py") in failed.err
    assert "hello" not in failed.out
    listed = pae("list-plugins", "--json", "--plugin", "broken_file.py").ok().json
    assert [plugin["state"] for plugin in listed["plugins"] if plugin["file"]] == ["broken"]


@pytest.mark.parametrize(
    "name", ["json.py", "yaml.py", "pae_encoders.py", "my-file.py", "pull.txt"]
)
def test_a_name_that_is_no_module_or_that_of_another_is_refused(name, tmp_path):
    with pytest.raises(PluginError, match=name.replace(".", r"\.")):
        import_file(write(tmp_path, name))


@pytest.mark.parametrize("given", ["typo.py", "."])
@pytest.mark.parametrize(
    "words",
    [["list-plugins"], ["list-plugins", "--json"], ["show-plugin", "regularizer:kl"]],
    ids=" ".join,
)
def test_a_file_that_does_not_exist_is_wrong_usage(words, given, pae, tmp_path):
    failed = pae(*words, "--plugin", given).fails(2)
    assert given in failed.err
    assert failed.out == ""


def test_a_file_that_removes_its_own_module_is_reported_with_its_error(tmp_path):
    path = tmp_path / "leaving_file.py"
    path.write_text("import sys\ndel sys.modules[__name__]\nraise ValueError('inside')")
    with pytest.raises(ValueError, match="inside"):
        import_file(path)


def test_two_files_of_one_name_are_refused(tmp_path):
    files = [write(tmp_path / "a"), write(tmp_path / "b")]
    (broken,) = with_files(Registry(), files).broken
    assert broken.file == str(files[1])
    assert str(files[0]) in str(broken.error)


def test_a_file_may_share_a_component_name_with_an_installed_plugin(tmp_path):
    registry = with_files(load_registry(), [write(tmp_path, name="kl")])
    assert registry.find("regularizer", "kl").built_in
    assert registry.find("regularizer", "pull_file.py/kl").plugin.file


# --- fingerprints and records ---------------------------------------------------------------------


def test_an_edited_file_changes_the_stages_that_use_it(tmp_path: Path) -> None:
    path, recipe = write(tmp_path), tmp_path / "mine.yaml"
    recipe.write_text(RECIPE + "plugins: [pull_file.py]\n" + TERM)
    before = fingerprints(recipe)
    assert fingerprints(recipe) == before
    path.write_text(path.read_text().replace("2", "2  # edited").replace("0.0", "1.0"))
    after = fingerprints(recipe)
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {"tokenizer", "latents", "generator", "sample", "evaluate", "report"}
    assert load_recipe(recipe).recipe.tokenizer.regularizers["pull"].config.value == 2


def test_a_file_that_is_not_used_or_was_moved_changes_nothing(tmp_path: Path) -> None:
    recipe = tmp_path / "mine.yaml"
    recipe.write_text(RECIPE)
    plain = fingerprints(recipe)
    write(tmp_path / "a", "unused_file.py", "unused")
    recipe.write_text(RECIPE + "plugins: [a/unused_file.py]\n")
    assert fingerprints(recipe) == plain
    write(tmp_path / "a")
    recipe.write_text(RECIPE + "plugins: [a/pull_file.py]\n" + TERM)
    here = fingerprints(recipe)
    (tmp_path / "b").mkdir()
    (tmp_path / "a" / "pull_file.py").rename(tmp_path / "b" / "pull_file.py")
    sys.modules.pop("pull_file")
    recipe.write_text(RECIPE + "plugins: [b/pull_file.py]\n" + TERM)
    assert fingerprints(recipe) == here


def test_the_record_holds_path_and_digest(tmp_path: Path) -> None:
    path, recipe = write(tmp_path), tmp_path / "mine.yaml"
    recipe.write_text(RECIPE + "plugins: [pull_file.py]\n" + TERM)
    recorded = describe_environment(load_recipe(recipe).registry)["plugins"]["pull_file"]
    assert recorded.startswith(f"{path} ")
    earlier = versions(load_recipe(recipe).registry)
    path.write_text(path.read_text() + "\n# edited\n")
    assert versions(load_recipe(recipe).registry)["pull_file"] != earlier["pull_file"]


# --- other processes ------------------------------------------------------------------------------

RECEIVE = """
import pickle, sys
order = pickle.load(open(sys.argv[1], "rb"))
config = order.context.recipe.tokenizer.regularizers["pull"].config
print(type(config).__module__, config.value)
"""


def test_other_processes_of_a_run_get_the_file(tmp_path: Path) -> None:
    from types import SimpleNamespace

    from pae_framework.launch.stage import run_stage
    from pae_framework.launch.team import StageOrder

    path, recipe = write(tmp_path), tmp_path / "mine.yaml"
    recipe.write_text(RECIPE + "plugins: [pull_file.py]\n" + TERM)
    loaded = load_recipe(recipe)
    context = SimpleNamespace(recipe=loaded.recipe, registry=loaded.registry)
    order = StageOrder(context, run_stage, tmp_path)  # type: ignore[arg-type]
    (tmp_path / "order.pickle").write_bytes(pickle.dumps(order))
    got = run_process("-c", RECEIVE, "order.pickle", cwd=tmp_path).ok()
    assert got.out == "pull_file 2.0\n"
    path.write_text(path.read_text() + "\n# edited\n")
    assert "was edited" in run_process("-c", RECEIVE, "order.pickle", cwd=tmp_path).err


def test_a_value_takes_its_file_to_a_process_that_lacks_it(tmp_path: Path) -> None:
    module = import_file(write(tmp_path))
    (tmp_path / "value.pickle").write_bytes(pickle.dumps(Portable(module.PullConfig(value=3))))
    (tmp_path / "elsewhere").mkdir()
    receive = "import pickle; print(pickle.load(open('../value.pickle', 'rb')).value.value)"
    assert run_process("-P", "-c", receive, cwd=tmp_path / "elsewhere").ok().out == "3.0\n"
    (tmp_path / "pull_file.py").unlink()
    failed = run_process("-P", "-c", receive, cwd=tmp_path / "elsewhere")
    assert str(tmp_path / "pull_file.py") in failed.err.splitlines()[-1]


LOADER = """
import multiprocessing, sys
from pathlib import Path

if __name__ == "__main__":
    multiprocessing.set_start_method(sys.argv[1])
    from pae_framework.data.read_ahead import read_steps
    from pae_framework.file_plugins import import_file
    config = import_file(Path("code/pull_file.py")).PullConfig(value=3)
    print(*read_steps(config.add, 0, 3, workers=1))
"""


@pytest.mark.slow
@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_workers_of_a_loader_have_the_file_however_they_start(method: str, tmp_path: Path) -> None:
    path = write(tmp_path / "code")
    source = path.read_text().replace(
        "    value: float", "    def add(self, step):\n        return step + 10\n\n    value: float"
    )
    path.write_text(source)
    (tmp_path / "load.py").write_text(LOADER)
    done = run_process("load.py", method, cwd=tmp_path, timeout=300).ok()
    assert done.out.split() == ["10", "11", "12"]


@pytest.mark.slow
@pytest.mark.parametrize("options", [(), ("--processes", "2")])
def test_a_run_uses_the_file(options, tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "mine.yaml").write_text(RECIPE + "plugins: [pull_file.py]\n" + TERM)
    words = ("-m", "pae_framework", "run", "mine.yaml", "--smoke", "--run-dir", "r", *options)
    run_process(*words, cwd=tmp_path, timeout=400).ok()
    log = (tmp_path / "r" / "tokenizer" / "metrics.jsonl").read_text().splitlines()
    assert all("pull" in json.loads(line) for line in log)
    environment = json.loads((tmp_path / "r" / "environment.json").read_text())
    assert environment["plugins"]["pull_file"].startswith(str(tmp_path / "pull_file.py"))
    again = run_process(*words, cwd=tmp_path, timeout=400).ok()
    assert "cached" in again.err
    # a command that only reads the run finds the file, and notices that it was edited
    with (tmp_path / "pull_file.py").open("a") as file:
        file.write("\n# edited\n")
    sample = ("-m", "pae_framework", "sample", "r", "--count", "2", "--out", "drawn")
    assert "pull_file.py was edited" in run_process(*sample, cwd=tmp_path, timeout=200).ok().err


@pytest.mark.slow
def test_commands_of_a_run_take_the_file_that_its_recipe_does_not_name(tmp_path: Path) -> None:
    """The recipe file that the run was started with does not know the term without the option."""
    file = write(tmp_path)
    (tmp_path / "mine.yaml").write_text(RECIPE + TERM)

    def pae(*words: str) -> Result:
        words = ("-m", "pae_framework", *words, "--plugin", "pull_file.py")
        return run_process(*words, cwd=tmp_path, timeout=400)

    pae("run", "mine.yaml", "--smoke", "--run-dir", "r").ok()
    states = pae("status", "r", "--recipe", "mine.yaml", "--json").fails(2)
    assert "another" in states.err  # the smoke version has another name
    rows = pae("status", "r", "--json").ok().json
    assert {stage["state"] for stage in next(iter(rows.values()))} == {"done"}
    assert "the same packages and plugins" in pae("doctor", "r").out
    for words in (("compare", "r"), ("report", "r"), ("evaluate", "r")):
        assert "was edited" not in pae(*words).ok().err
    weights = "r/tokenizer/tokenizer.safetensors"
    smoke = yaml.safe_load((tmp_path / "r" / "resolved.yaml").read_text())
    del smoke["plugins"]
    (tmp_path / "smoke.yaml").write_text(yaml.safe_dump(smoke))
    pae("import", "pae", weights, "--recipe", "smoke.yaml", "--run-dir", "imported").ok()
    resolved = yaml.safe_load((tmp_path / "imported" / "resolved.yaml").read_text())
    assert resolved["plugins"] == [str(file)]
