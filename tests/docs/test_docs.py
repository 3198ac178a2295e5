"""Links, commands, recipes and paths of the documentation are valid; generated pages match."""

from __future__ import annotations

import importlib
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import typer
from doc_blocks import (
    ROOT,
    anchors,
    blocks,
    build_plugin,
    commands,
    new_plugin,
    pages,
    prose,
    write_files,
    written_pages,
)
from typer.models import CommandInfo

from pae_framework.cli.app import app
from pae_framework.cli.output import print_error
from pae_framework.errors import RecipeError
from pae_framework.plugins import load_registry
from pae_framework.recipe.library import find, shipped
from pae_framework.recipe.load import load_recipe
from pae_framework.registry import Registry

COMMANDS: dict[str, CommandInfo] = {
    **{str(info.name): info for info in app.registered_commands},
    **{
        f"{group.name} {info.name}": info
        for group in app.registered_groups
        if group.typer_instance is not None
        for info in group.typer_instance.registered_commands
    },
}
"""Commands by the words after `pae`: one, or two for commands of a group."""
SITE = ("pae_neighbors", "my_encoder", "my_term")
"""Modules of the plugins of docs/plugins.md."""
TAKES_RECIPE = ("run", "check", "show", "copy")


def by_name(page: Path) -> str:
    return str(page.relative_to(ROOT))


each_page = pytest.mark.parametrize("page", pages(), ids=by_name)
each_written_page = pytest.mark.parametrize("page", written_pages(), ids=by_name)


# --- generated pages ------------------------------------------------------------------------------

GENERATE = """
import runpy, sys
sys.argv = ["docs/generate.py", "--check"]
sys.path.insert(0, "docs")
try:
    runpy.run_path("docs/generate.py", run_name="__main__")
except SystemExit as stop:
    assert "torch" not in sys.modules
    sys.exit(stop.code)
"""


def test_generated_pages_are_up_to_date_and_need_no_torch() -> None:
    done = subprocess.run(
        [sys.executable, "-c", GENERATE], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


# --- commands -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_described_in_a_handwritten_page(name: str) -> None:
    assert any(f"pae {name}" in page.read_text(encoding="utf-8") for page in written_pages())


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Registry]:
    """The installed plugins and the example plugin of docs/plugins.md."""
    before = set(sys.modules)
    site = build_plugin(ROOT / "docs" / "plugins.md", tmp_path / "site")
    monkeypatch.syspath_prepend(str(site))
    yield load_registry()
    for name in {name for name in sys.modules if name.startswith(SITE)} - before:
        del sys.modules[name]


def reader_folder(page: Path, folder: Path) -> None:
    """Write the recipes of a page into a folder, and those that its commands write.

    Recipes of new plugins only if the plugin is installed: that of docs/plugins.md is. Commands may
    name files of the documentation, as in a checkout.
    """
    (folder / "docs").symlink_to(ROOT / "docs")
    for block in blocks(page):
        is_recipe = block.role in ("recipe", "file") and block.language == "yaml"
        if is_recipe or block.role == "plugin":
            (folder / block.name).write_text(block.text, encoding="utf-8")
    for line in commands(page):
        words = shlex.split(line)
        if words[:2] == ["pae", "new-plugin"] and find_spec(words[2].replace("-", "_")):
            recipes = {k: v for k, v in new_plugin(line).items() if k.endswith(".yaml")}
            write_files({name: text for name, text in recipes.items() if "/" not in name}, folder)
        copies = words[:2] == ["pae", "copy"] and len(words) == 4
        if copies and not (folder / words[3]).exists():
            (folder / words[3]).write_text(find(words[2]).read_text(encoding="utf-8"))


def parser(words: list[str]) -> tuple[str, Any, list[str]]:
    """Name and parser of the command that the words after `pae` begin with, and the other words."""
    two = " ".join(words[:2]) in COMMANDS
    name, rest = (" ".join(words[:2]), words[2:]) if two else (words[0], words[1:])
    assert name in COMMANDS, f"there is no command {name}"
    parsed: Any = typer.main.get_command(app)
    for word in name.split():
        parsed = parsed.commands[word]
    return name, parsed, rest


def check_command(line: str, registry: Registry) -> None:
    """The command and its options exist, and its recipe with its overrides is valid."""
    program, *words = shlex.split(line)
    assert program == "pae"
    if words[0].startswith("-"):
        assert words[0] in ("--help", "-h", "--version", "--debug")
        return
    name, parsed, rest = parser(words)
    values = parsed.make_context(name, rest).params
    if name in TAKES_RECIPE and not values["recipe"].isupper():
        files = [Path(file) for file in values.get("plugin") or ()]
        load_recipe(values["recipe"], values.get("overrides") or (), registry, files)


@each_page
def test_every_pae_command_in_a_code_block_works(
    page: Path, registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader_folder(page, tmp_path)
    monkeypatch.chdir(tmp_path)
    for line in commands(page):
        if line.startswith("pae "):
            check_command(line, registry)


@each_written_page
def test_every_pae_command_in_a_sentence_exists(page: Path, registry: Registry) -> None:
    for line in re.findall(r"`(pae [^`]+)`", prose(page)):
        words = shlex.split(line)[1:]
        if words[0].startswith("-") or words[0].isupper():
            continue
        known = parser(words)[1].params
        options = {"--help", *(spelled for parameter in known for spelled in parameter.opts)}
        assert {word for word in words if word.startswith("--")} <= options, line


@each_written_page
def test_every_make_target_exists(page: Path) -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    inline = re.findall(r"`make ([a-z]+)`", prose(page))
    in_blocks = [line.split()[1] for line in commands(page) if re.match(r"make [a-z]", line)]
    assert {*inline, *in_blocks} <= targets


# --- recipes --------------------------------------------------------------------------------------


@each_page
def test_every_recipe_shown_is_valid(
    page: Path, registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader_folder(page, tmp_path)
    monkeypatch.chdir(tmp_path)
    for path in sorted(tmp_path.glob("*.yaml")):
        load_recipe(path.name, (), registry)


@each_page
def test_every_wrong_recipe_shown_gets_the_message_shown(
    page: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    found = blocks(page)
    for block, after in pairwise(found):
        if block.role == "wrong":
            assert after.role == "error"
            (tmp_path / block.name).write_text(block.text, encoding="utf-8")
            with pytest.raises(RecipeError) as caught:
                load_recipe(block.name)
            print_error(caught.value)
            assert capsys.readouterr().err == after.text


@pytest.mark.parametrize(
    ("name", "path"), [pytest.param(name, path, id=name) for name, path, _ in shipped()]
)
def test_every_shipped_recipe_opens_with_a_comment_that_holds_its_launch_line(
    name: str, path: Path
) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    comment = [line for line in lines[: lines.index("pae: 1")] if line.startswith("#")]
    assert len(comment) > 3
    assert f"pae run {name}" in [line.strip("# ") for line in comment]
    assert f"recipes/{name}.yaml" in (ROOT / "README.md").read_text(encoding="utf-8")


# --- paths ---------------------------------------------------------------------------------------


@each_page
def test_every_link_within_the_repository_has_a_target(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        assert linked.exists(), f"{target}: no such file"
        assert not anchor or anchor in anchors(linked), f"{target}: no such heading"


@pytest.mark.parametrize(
    "path", sorted(ROOT.glob("docs/pictures/*")), ids=lambda path: str(path.name)
)
def test_pictures_are_small_and_shown(path: Path) -> None:
    assert path.stat().st_size < (300_000 if path.name == "quickstart.png" else 200_000)
    assert any(f"pictures/{path.name}" in page.read_text(encoding="utf-8") for page in pages())


def test_architecture_page_names_every_folder_and_plugin_package() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    folders = {path.parent.name for path in (ROOT / "pae_framework").glob("*/*.py")}
    files = {path.name for path in (ROOT / "pae_framework").glob("*.py")}
    packages = {path.parent.name for path in (ROOT / "plugins").glob("*/__init__.py")}
    assert {folder for folder in folders if f"`{folder}/`" not in text} == set()
    assert {name for name in files - {"__init__.py", "__main__.py"} if f"`{name}`" not in text} == (
        set()
    )
    assert {package for package in packages if f"`{package}`" not in text} == set()
    names = {spec.name for spec in load_registry().specs() if spec.plugin.module in packages}
    assert {name for name in names if f"`{name}`" not in text} == set()


def test_every_path_in_the_tables_of_the_architecture_page_exists() -> None:
    text = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if line.startswith("|")]
    paths = {path for row in rows for path in re.findall(r"`([\w./]+/[\w./]*)`", row)}
    assert len(paths) > 20
    roots = (ROOT, ROOT / "pae_framework")
    assert {path for path in paths if not any((root / path).exists() for root in roots)} == set()


UNWANTED = {
    "a path of one machine": r"(?<![\w.~])/(?:root|home|Users|mnt|work)/\w",
    "the host of a package registry": r"\b(?:pypi|pythonhosted|anaconda|npmjs)\.(?:org|com)\b",
    "British spelling": (  # recipe keys, results.json and CANCELLED of Slurm keep theirs
        r"(?i)(?:optim|normal|standard|initial|recogn|synchron|penal|minim|stabil|organ|summar)is"
        r"(?:e|ing|a)(?!d (?:spectral|mutual))"
        r"|(?:colo|neighbo|behavio|favo)ur|gre(?=y)|labell(?=ed)|(?-i:[Cc]ancell(?=ed))|licen(?=ce)"
        r"|judge(?=ment)|(?<!not )centr(?=ed|ing)|(?<![.`\"'])cent[r]e(?=s|_| |\.|,|$)"
    ),
}


def text_files() -> Iterator[Path]:
    kinds = ("md", "toml", "yaml", "py", "css", "j2", "svg")
    for folder in ("benchmarks", "docs", "pae_framework", "plugins", "recipes", "scripts", "tests"):
        for kind in kinds:
            yield from (ROOT / folder).rglob(f"*.{kind}")
    yield from (*ROOT.glob("*.md"), ROOT / "pyproject.toml", ROOT / "Makefile")


@pytest.mark.parametrize("what", UNWANTED)
def test_no_file_names(what: str) -> None:
    matches = {path: re.search(UNWANTED[what], path.read_text("utf-8")) for path in text_files()}
    assert {path: found[0] for path, found in matches.items() if found is not None} == {}


def test_no_placeholder_is_left() -> None:
    handwritten = [*written_pages(), *(path for _, path, _ in shipped())]
    texts = {by_name(path): path.read_text(encoding="utf-8") for path in handwritten}
    open_ = {name: re.findall(r"@@[A-Z-]+@@", text) for name, text in texts.items()}
    assert {name: found for name, found in open_.items() if found} == {}


def test_the_modules_that_plugins_may_import_exist_and_suffice_for_ours() -> None:
    page = (ROOT / "docs" / "plugins.md").read_text(encoding="utf-8")
    section = page.partition("## What a plugin may import")[2].partition("\n#")[0]
    allowed = {"pae_framework", *re.findall(r"`([a-z_.]+)`", section)}
    for name in allowed - {"pae_framework"}:
        importlib.import_module(f"pae_framework.{name}")
    for path in (ROOT / "plugins").rglob("*.py"):
        imported = re.findall(r"from pae_framework\.([a-z_.]+) import", path.read_text("utf-8"))
        for name in imported:
            assert {name, name.partition(".")[0]} & allowed, f"{path.name} imports {name}"
