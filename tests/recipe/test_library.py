"""The recipes that come with the framework are right, say what they are, and are found by name."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pae_framework.config import EncoderConfig
from pae_framework.errors import RecipeError, UsageError
from pae_framework.plugins import ComponentSpec, Plugin, Registry, load_registry
from pae_framework.recipe import library
from pae_framework.recipe.load import load_recipe
from pae_framework.recipe.yaml_source import read_file

SHIPPED = [path.stem for path in sorted(library.folder().glob("*.yaml"))]


class SigLIP2Config(EncoderConfig):
    """What the coming encoder plugin will say of ViT-SO400M with patches of 16 px."""

    model: str

    def token_grid(self, image_size: int) -> int:
        return image_size // 16

    def token_width(self) -> int:
        return 1152


@pytest.fixture
def with_siglip2() -> Registry:
    registry = load_registry()
    config = f"{__name__}:SigLIP2Config"
    plugin = Plugin("siglip2", __name__, "siglip2", "1")
    registry.add(ComponentSpec("encoder", "siglip2", "absent:SigLIP2", config, "", plugin))
    return registry


@pytest.mark.parametrize("name", [name for name in SHIPPED if name != "siglip2_full"])
def test_a_shipped_recipe_is_valid(name: str, registry: Registry) -> None:
    assert load_recipe(name, (), registry).recipe.name == name


def test_the_full_size_recipe_waits_for_its_encoder_and_for_nothing_else(
    registry: Registry, with_siglip2: Registry
) -> None:
    with pytest.raises(RecipeError) as caught:
        load_recipe("siglip2_full", (), registry)
    (problem,) = caught.value.problems
    assert problem.path == "tokenizer.encoder.use"
    assert problem.message.startswith("unknown encoder 'siglip2'")
    assert load_recipe("siglip2_full", (), with_siglip2).recipe.data.image_size == 256


def test_the_full_size_recipe_counts_steps_where_the_paper_counts_points_in_time(
    with_siglip2: Registry,
) -> None:
    sample = load_recipe("siglip2_full", (), with_siglip2).recipe.sample
    assert sample is not None
    assert sample.steps == 250 - 1
    assert sample.few_steps == tuple(points - 1 for points in (10, 15, 25, 45))


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_recipe_opens_with_a_comment_that_holds_its_launch_line(name: str) -> None:
    text = (library.folder() / f"{name}.yaml").read_text()
    header = re.match(r"(#.*\n)+", text)
    assert header is not None
    assert f"pae run {name}" in header.group()


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_recipe_is_listed_with_one_line(name: str) -> None:
    listed = {found: (path, text) for found, path, text in library.shipped()}
    path, text = listed[name]
    assert path.name == f"{name}.yaml"
    node = read_file(path)[0].child("description")
    assert node is not None
    assert node.value == text != ""


def test_a_recipe_is_found_by_path_by_name_and_by_file_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shipped = library.folder() / "quickstart.yaml"
    assert library.find("quickstart") == library.find("quickstart.yaml") == shipped
    Path("quickstart").mkdir()  # a folder of that name, such as a run's, is no recipe
    assert library.find("quickstart") == shipped
    Path("quickstart.yaml").write_text("a: 1")  # a file is what was meant
    assert library.find("quickstart.yaml") == Path("quickstart.yaml")


def test_a_run_s_folder_points_to_its_resolved_recipe(tmp_path: Path) -> None:
    (tmp_path / "resolved.yaml").write_text("a: 1")
    with pytest.raises(UsageError, match=r"did you mean .*resolved\.yaml\?"):
        library.find(tmp_path)


@pytest.mark.parametrize("reference", ["absent.yaml", "../quickstart", "recipes/none/quickstart"])
def test_a_name_is_no_path(reference: str) -> None:
    with pytest.raises(UsageError, match="neither a file nor a shipped recipe"):
        library.find(reference)


def test_an_installed_wheel_reads_the_recipes_inside_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pae_framework" / "_recipes").mkdir(parents=True)
    package = tmp_path / "pae_framework" / "__init__.py"
    monkeypatch.setattr(library.pae_framework, "__file__", str(package))
    assert library.folder() == tmp_path / "pae_framework" / "_recipes"
