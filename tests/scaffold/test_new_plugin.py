"""`pae new-plugin`: what it writes works before a line is changed; an update keeps the author's."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml

from pae_framework import PAE_API
from pae_framework.errors import UsageError
from pae_framework.kinds import KINDS
from pae_framework.plugins import load_registry
from pae_framework.scaffold.names import Names, checked_names
from pae_framework.scaffold.plugin_package import all_files, scaffolding
from pae_framework.testing.pytest import Pae, Result, run_process

CI = ".github/workflows/ci.yml"
ALL = [option for kind in KINDS for option in ("--kind", kind)]


def installed(folder: Path) -> dict[str, str]:
    """An environment that has a plugin as `pip install` leaves it: metadata on the import path."""
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    name, version = project["name"], project["version"]
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    points = project["entry-points"]["pae_framework"]
    lines = [f"{point} = {module}" for point, module in points.items()]
    (info / "entry_points.txt").write_text("\n".join(["[pae_framework]", *lines]) + "\n")
    path = os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH")]))
    return {**os.environ, "PYTHONPATH": path}


def pae_in(folder: Path, env: dict[str, str], *arguments: str) -> Result:
    return run_process("-m", "pae_framework", *arguments, cwd=folder, env=env, timeout=600)


def conformance(folder: Path, env: dict[str, str], *chosen: str) -> Result:
    quiet = ("-q", "-p", "no:cacheprovider", "-W", "ignore::pytest.PytestAssertRewriteWarning")
    return run_process("-m", "pytest", *quiet, *chosen, cwd=folder, env=env, timeout=600)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """A plugin with a component of each kind, installed."""
    folder = tmp_path_factory.mktemp("new") / "my-parts"
    command = ("new-plugin", "My.Parts", *ALL, "--out", str(folder))
    run_process("-m", "pae_framework", *command, cwd=folder.parent).ok()
    return folder, installed(folder)


def test_components_of_all_kinds_are_listed_without_torch(whole):
    folder, env = whole
    found = pae_in(folder, env, "list-plugins", "--json").ok().json
    own = [entry for entry in found["components"] if entry["distribution"] == "my-parts"]
    assert [entry["kind"] for entry in own] == list(KINDS)
    assert {entry["state"] for entry in own} == {"ok"}
    assert {entry["name"] for entry in own} == {"my_parts"}


def test_its_recipe_uses_every_component(whole):
    folder, env = whole
    assert pae_in(folder, env, "check", "my_parts.yaml").ok().out.startswith("my_parts: valid\n")
    shown = pae_in(folder, env, "show", "my_parts.yaml").ok().out
    # The data source is used twice; a recipe with parts of a tokenizer has no whole one.
    assert shown.count("use: my_parts") == len(KINDS)


@pytest.mark.timeout(600)
def test_its_own_tests_pass_for_every_kind(whole):
    folder, env = whole
    quick = "(test_contract or test_plugin or documented) and not regist"
    done = conformance(folder, env, "-k", quick, "--junit-xml=answer.xml")
    assert done.code == 0, done.out[-6000:]
    answer = (folder / "answer.xml").read_text()
    for kind in KINDS:
        assert f"tests.test_{kind}_contract" in answer


@pytest.mark.slow
def test_all_its_own_tests_pass_for_every_kind(whole):
    done = conformance(*whole)
    assert done.code == 0, done.out[-6000:]


def test_every_written_python_file_is_formatted_and_lints(whole):
    options = ("--line-length=100", "--isolated", ".")
    for words in (("format", "--check"), ("check", "--select", "E,F,W,I,UP,B")):
        done = run_process("-m", "ruff", *words, *options, cwd=whole[0])
        assert done.code == 0, done.out


@pytest.mark.slow
@pytest.mark.parametrize(
    "kinds", [*((kind,) for kind in KINDS), ("encoder", "regularizer", "evaluator")], ids="-".join
)
def test_a_new_plugin_works_before_a_line_is_changed(kinds, tmp_path):
    """The commands of its README, in a fresh environment that only sees the installed packages.

    With several kinds, the plugin is installed as a wheel.
    """
    venv, folder = tmp_path / "venv", tmp_path / f"my-{kinds[0]}"
    run_process("-m", "venv", "--without-pip", str(venv), cwd=tmp_path).ok()
    (site,) = venv.glob("lib/python*/site-packages")
    paths = [path for path in sys.path if path and Path(path).is_dir()]
    (site / "seen.pth").write_text("\n".join(paths) + "\n")
    python = str(venv / "bin" / "python")
    env = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    env["PYTHONPATH"] = os.environ.get("PYTHONPATH", "")

    def run(*arguments: str, cwd: Path = folder) -> Result:
        code = "import runpy, sys; sys.argv = sys.argv[1:]; runpy.run_module(sys.argv[0], "
        code += "run_name='__main__', alter_sys=True)"
        return run_process("-c", code, *arguments, cwd=cwd, env=env, timeout=600, python=python)

    options = [option for kind in kinds for option in ("--kind", kind)]
    run("pae_framework", "new-plugin", folder.name, *options, cwd=tmp_path).ok()
    is_editable = len(kinds) == 1 and find_spec("editables")  # hatchling needs it
    editable = ("-e",) if is_editable else ()
    run("pip", "install", "-q", "--no-deps", "--no-build-isolation", *editable, ".").ok()
    assert "passed" in run("pytest", "-q").ok().out
    name = folder.name.replace("-", "_")
    for kind in kinds:
        assert name in run("pae_framework", "list-plugins", kind).ok().out
    run("pae_framework", "run", f"{name}.yaml", "--smoke").ok()


# --- CI and several plugins in one repository -----------------------------------------------------


@pytest.mark.parametrize(
    "source", ["git+https://example.com/pae-framework.git", ""], ids=["set", "unset"]
)
def test_ci_installs_the_framework_before_the_plugin_from_where_the_author_says(source, tmp_path):
    workflow = yaml.safe_load(scaffolding(Names("mine", ("encoder",)))[CI])
    job = workflow["jobs"]["test"]
    installs = [step["run"] for step in job["steps"] if "pip install" in step.get("run", "")]
    (tmp_path / "pip").write_text('#!/bin/sh\necho "pip $*"\n')
    (tmp_path / "pip").chmod(0o755)
    assert job["env"] == {"PAE_FRAMEWORK": "${{ vars.PAE_FRAMEWORK }}"}
    env = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "PAE_FRAMEWORK": source}
    done = subprocess.run(
        ["bash", "-e", "-c", "\n".join(installs)], env=env, capture_output=True, text=True
    )
    if source:
        assert done.stdout.splitlines() == [f"pip install {source}", "pip install -e .[test]"]
    else:
        assert (done.returncode != 0, done.stdout) == (True, "")
        assert "PAE_FRAMEWORK" in done.stderr


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("words", "count"),
    [
        pytest.param(
            *(["one", "two", "-k", "recipe_is_valid or test_contract"], 4), marks=pytest.mark.slow
        ),
        (["--import-mode=importlib", "-k", "recipe_is_valid"], 2),
    ],
    ids=["folders", "whole repository"],
)
def test_two_plugins_in_one_repository_are_tested_together(words, count, tmp_path):
    paths = []
    for name in ("one", "two"):
        files = all_files(Names(f"my-{name}", ("regularizer",)))
        for path, text in files.items():
            (tmp_path / name / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name / path).write_text(text)
        paths.append(installed(tmp_path / name)["PYTHONPATH"])
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    done = conformance(tmp_path, env, *words)
    assert done.code == 0, done.out[-6000:] + done.err
    assert f"{count} passed" in done.out


# --- names ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        *("", " ", "-", "my encoder", "../evil", "a/b", "my-", "-my", "mé", "1st", "a" * 61),
        *("class", "match", "torch", "json", "pae_framework", "pae-encoders", "my\nencoder"),
    ],
)
def test_a_name_that_cannot_be_used_is_refused(name: str, pae: Pae, tmp_path: Path) -> None:
    pae("new-plugin", "--kind", "encoder", "--", name).fails(2)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "kind"),
    [(spec.name, spec.kind) for spec in load_registry().specs() if spec.built_in],
    ids=lambda value: value,
)
def test_the_name_of_a_built_in_component_of_this_kind_is_refused(name, kind):
    with pytest.raises(UsageError, match=name):
        checked_names(name, tuple(KINDS))


def test_only_components_of_its_own_kinds_take_a_name(pae, with_plugin, tmp_path):
    assert checked_names("kl", ("encoder",)).package == "kl"
    (tmp_path / "other_plugin.py").write_text(
        "from pae_framework import hookimpl\npae_api = 1\n@hookimpl\n"
        "def pae_register_regularizers(register):\n"
        "    register('pull', target='m:C', config='m:D', summary='pulls')\n"
    )
    with_plugin(tmp_path / "other_plugin.py")
    assert "regularizer:pull" in pae("new-plugin", "pull", "--kind", "regularizer").fails(2).err
    pae("new-plugin", "pull", "--kind", "encoder").ok()


@pytest.mark.parametrize("name", ["on", "off", "yes", "no", "On", "true", "null"])
def test_a_name_that_yaml_reads_as_something_else_is_refused(name, pae, tmp_path):
    pae("new-plugin", name, "--kind", "encoder").fails(2)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["l1", "loss", "perceptual", "step"])
def test_a_regularizer_is_not_named_like_another_column_of_the_log(name, pae, tmp_path):
    pae("new-plugin", name, "--kind", "encoder", "--kind", "regularizer").fails(2)
    assert list(tmp_path.iterdir()) == []
    assert checked_names(name, ("encoder",)).package == name


@pytest.mark.parametrize(
    ("name", "distribution", "package", "class_name"),
    [
        ("my-encoder", "my-encoder", "my_encoder", "MyEncoder"),
        ("My_Encoder", "my-encoder", "my_encoder", "MyEncoder"),
        ("a.b--c", "a-b-c", "a_b_c", "ABCEncoder"),
        ("vit2", "vit2", "vit2", "Vit2Encoder"),
    ],
)
def test_names_follow_from_the_normalized_name(name, distribution, package, class_name, pae):
    pae("new-plugin", name, "--kind", "encoder", "--out", "new").ok()
    project = tomllib.loads(Path("new/pyproject.toml").read_text())["project"]
    assert project["name"] == distribution
    assert f"class {class_name}(Encoder)" in Path(f"new/{package}/encoder.py").read_text()


@pytest.mark.parametrize("kinds", [[], ["--kind", "encoders"], ["--kind", ""]])
def test_kinds_that_do_not_exist_are_refused_with_those_that_do(kinds, pae, tmp_path):
    assert "encoder" in pae("new-plugin", "mine", *kinds).fails(2).err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["folder", "file", "dangling link", "empty folder"])
def test_nothing_is_overwritten(kind, pae, tmp_path):
    target = tmp_path / "mine"
    if kind == "file":
        target.write_text("precious")
    elif kind == "dangling link":
        target.symlink_to("nowhere")
    else:
        target.mkdir()
        if kind == "folder":
            (target / "pyproject.toml").write_text("precious")
    pae("new-plugin", "mine", "--kind", "encoder").fails(2)
    assert kind != "folder" or [path.name for path in target.iterdir()] == ["pyproject.toml"]


# --- updates --------------------------------------------------------------------------------------

RECORD = ".pae-plugin.json"


@pytest.fixture
def mine(pae: Pae, tmp_path: Path) -> Path:
    pae("new-plugin", "mine", "--kind", "encoder").ok()
    return tmp_path / "mine"


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != ".pae-plugin.json"
    }


def written_by_an_earlier_version(folder: Path, path: str) -> None:
    """As if this file had been written with other contents."""
    from pae_framework.system.files import digest_of_text

    (folder / path).write_text("earlier\n")
    record = json.loads((folder / RECORD).read_text())
    record["files"][path] = digest_of_text("earlier\n")
    (folder / RECORD).write_text(json.dumps(record))


def test_an_update_of_a_new_plugin_changes_nothing(mine, pae):
    before = contents(mine)
    assert "up to date" in pae("new-plugin", "--update", mine).ok().out
    assert contents(mine) == before


def test_an_update_replaces_what_the_author_left_alone_and_shows_the_difference(mine, pae):
    before = contents(mine)
    written_by_an_earlier_version(mine, CI)
    shown = pae("new-plugin", "--update", mine).ok().out
    assert f"updated {mine / CI}" in shown
    assert "-earlier\n" in shown
    assert "+name: test\n" in shown
    assert contents(mine) == before
    assert "up to date" in pae("new-plugin", "--update", mine).ok().out


@pytest.mark.parametrize("path", [CI, "tests/test_plugin.py", "tests/conftest.py"])
def test_an_update_keeps_scaffolding_that_the_author_changed(path, mine, pae):
    (mine / path).write_text("my own\n")
    for _ in range(2):
        shown = pae("new-plugin", "--update", mine).ok().out
        assert f"kept {mine / path}" in shown
        assert "-my own\n" in shown
        assert (mine / path).read_text() == "my own\n"


def test_an_update_never_touches_the_authors_code(mine, pae):
    own = ["mine/__init__.py", "mine/encoder.py", "mine/encoder_config.py", "mine.yaml"]
    for path in (*own, "pyproject.toml", "README.md"):
        (mine / path).write_text("my own\n")
    before = contents(mine)
    pae("new-plugin", "--update", mine).ok()
    assert contents(mine) == before


def test_an_update_adds_new_files_and_restores_deleted_ones(mine, pae):
    before = contents(mine)
    record = json.loads((mine / RECORD).read_text())
    del record["files"][".gitignore"]  # an earlier version did not write it
    (mine / RECORD).write_text(json.dumps(record))
    (mine / ".gitignore").unlink()
    (mine / CI).unlink()
    shown = pae("new-plugin", "--update", mine).ok().out
    assert f"added {mine / '.gitignore'}" in shown
    assert f"restored {mine / CI}" in shown
    assert contents(mine) == before
    assert "up to date" in pae("new-plugin", "--update", mine).ok().out


def test_an_update_does_not_restore_the_authors_code(mine, pae):
    (mine / "mine" / "encoder.py").unlink()
    assert "up to date" in pae("new-plugin", "--update", mine).ok().out
    assert not (mine / "mine" / "encoder.py").exists()


@pytest.mark.parametrize("path", [".gitignore", CI, "tests/conftest.py"])
def test_an_update_keeps_a_file_of_the_author_that_an_earlier_version_did_not_write(
    path, mine, pae
):
    record = json.loads((mine / RECORD).read_text())
    del record["files"][path]
    (mine / RECORD).write_text(json.dumps(record))
    (mine / path).write_text("my own\n")
    for _ in range(2):
        assert f"kept {mine / path}" in pae("new-plugin", "--update", mine).ok().out
        assert (mine / path).read_text() == "my own\n"
        assert path not in json.loads((mine / RECORD).read_text())["files"]


@pytest.mark.parametrize("own", [False, True])
def test_an_update_after_the_author_added_a_kind(own, mine, pae):
    """The author names the kind in the record, and may have written its test already."""
    record = json.loads((mine / RECORD).read_text())
    (mine / RECORD).write_text(json.dumps({**record, "kinds": ["encoder", "regularizer"]}))
    added = "tests/test_regularizer_contract.py"
    if own:
        (mine / added).write_text("my own\n")
    shown = pae("new-plugin", "--update", mine).ok().out
    assert f"{'kept' if own else 'added'} {mine / added}" in shown
    recorded = json.loads((mine / RECORD).read_text())["files"]
    assert recorded.keys() == record["files"].keys() | (set() if own else {added})


@pytest.mark.parametrize(
    "damage",
    [
        *("", "{}", "[]", "{", "null"),
        pytest.param("[" * 100_000, id="nested"),
        *(
            f'{{"distribution": "{name}", "kinds": ["encoder"], "files": {{}}}}'
            for name in ("../x", "A.b", "Mine", "my_own", "1st", "class", "")
        ),
        '{"distribution": "mine", "kinds": ["encoder"], "files": {}, "pae_api": Infinity}',
        '{"distribution": "mine", "kinds": ["encoders"], "files": {}}',
    ],
)
def test_a_damaged_record_is_named(damage, mine, pae):
    (mine / RECORD).write_text(damage)
    before = contents(mine)
    assert ".pae-plugin.json" in pae("new-plugin", "--update", mine).fails(2).err
    assert contents(mine) == before


def test_a_plugin_of_a_newer_version_is_not_taken_back(mine, pae):
    record = json.loads((mine / RECORD).read_text())
    (mine / RECORD).write_text(json.dumps({**record, "pae_api": PAE_API + 1}))
    written_by_an_earlier_version(mine, CI)
    before = contents(mine)
    assert "update pae-framework" in pae("new-plugin", "--update", mine).fails(2).err
    assert contents(mine) == before


@pytest.mark.parametrize("linked", [CI, Path(CI).parent, Path(CI).parts[0]], ids=str)
@pytest.mark.parametrize("there", [True, False], ids=["", "dangling"])
def test_an_update_writes_through_no_link(linked, there, mine, pae, tmp_path):
    """Such as one to files that several plugins share."""
    written_by_an_earlier_version(mine, CI)
    (mine / linked).rename(tmp_path / "shared")
    if not there:
        (tmp_path / "shared").rename(tmp_path / "away")
    (mine / linked).symlink_to(tmp_path / "shared")
    for _ in range(2):
        shown = pae("new-plugin", "--update", mine).ok().out
        assert f"kept {mine / CI}" in shown
        assert "+name: test\n" in shown
    assert (mine / linked).is_symlink()
    assert (tmp_path / "shared").exists() == there
    assert not there or (mine / CI).read_text() == "earlier\n"


def test_a_folder_that_is_no_plugin_cannot_be_updated(pae, tmp_path):
    (tmp_path / "other").mkdir()
    assert "new-plugin" in pae("new-plugin", "--update", "other").fails(2).err
    pae("new-plugin", "--update", "nowhere").fails(2)
    pae("new-plugin", "mine", "--update", "other").fails(2)


def test_writing_needs_no_torch():
    code = "import sys; from pae_framework.cli.app import app\n"
    code += "import pae_framework.scaffold.write, pae_framework.cli.commands.new_plugin\n"
    code += "assert 'torch' not in sys.modules"
    run_process("-c", code, cwd=Path.cwd()).ok()
