"""Shipped recipes are valid, described, and found by name."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pae_framework.errors import UsageError
from pae_framework.recipe import library
from pae_framework.recipe.load import load_recipe
from pae_framework.recipe.yaml_source import read_file
from pae_framework.registry import Registry

ENCODERS = ("dinov2", "siglip2", "dinov3", "mae")
SHIPPED = [path.stem for path in sorted(library.folder().glob("*.yaml"))]


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_recipe_is_valid(name: str, registry: Registry) -> None:
    assert load_recipe(name, (), registry).recipe.name == name


FULL = [f"{encoder}_full{length}" for encoder in ENCODERS for length in ("", "_800ep")]
WIDTHS = {"dinov2": 1024, "siglip2": 1152, "dinov3": 1024, "mae": 1024}


@pytest.mark.parametrize("name", FULL)
def test_full_size_recipes_match_the_paper(name: str, registry: Registry) -> None:
    """Values of the paper and its released configurations of the four tokenizers."""
    recipe = load_recipe(name, (), registry).recipe
    tokenizer, encoder = recipe.tokenizer, recipe.tokenizer.encoder
    assert encoder.config.token_grid(recipe.data.image_size) == 16
    assert encoder.config.token_width() == WIDTHS[encoder.use]
    assert tokenizer.bottleneck.config.latent_channels(encoder.config.token_width()) == 32
    assert tokenizer.adversarial is not None
    weights = {label: term.config.weight for label, term in tokenizer.regularizers.items()}
    assert weights == {"ssr": 0.2, "mcr": 0.5, "scr": 1.0}
    assert tokenizer.reconstruction.l1 == tokenizer.reconstruction.lpips.weight == 1.0
    assert tokenizer.reconstruction.perceptual.weight == 0.0
    assert tokenizer.adversarial.weight == 0.5


@pytest.mark.parametrize("name", FULL)
def test_full_size_recipes_train_and_sample_as_published(name: str, registry: Registry) -> None:
    recipe = load_recipe(name, (), registry).recipe
    generator, sample = recipe.generator, recipe.sample
    assert generator is not None
    assert sample is not None
    long = name.endswith("_800ep")
    assert generator.train.steps == (1_000_000 if long else 100_000)
    assert generator.config.model_dump()["qk_norm"] is long
    assert generator.train.batch_size == 1024
    assert (sample.guidance.scale, sample.guidance.interval[0]) == (
        (3.3, 0.3) if long else (2.5, 0.25)
    )
    # The paper counts points in time, which are one more than steps.
    assert sample.steps == 250 - 1
    assert sample.few_steps == tuple(points - 1 for points in (10, 15, 25, 45))


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_recipe_starts_with_a_comment_with_its_command(name: str) -> None:
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
    Path("quickstart").mkdir()  # a folder of that name, e.g. of a run, is not a recipe
    assert library.find("quickstart") == shipped
    Path("quickstart.yaml").write_text("a: 1")  # a file takes precedence
    assert library.find("quickstart.yaml") == Path("quickstart.yaml")


def test_the_folder_of_a_run_suggests_its_resolved_recipe(tmp_path: Path) -> None:
    (tmp_path / "resolved.yaml").write_text("a: 1")
    with pytest.raises(UsageError, match=re.escape(str(tmp_path / "resolved.yaml"))):
        library.find(tmp_path)


@pytest.mark.parametrize("reference", ["absent.yaml", "../quickstart", "recipes/none/quickstart"])
def test_shipped_recipes_are_not_found_by_path(reference: str) -> None:
    with pytest.raises(UsageError, match=re.escape(repr(reference))):
        library.find(reference)


def test_an_installed_wheel_reads_the_recipes_inside_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pae_framework" / "_recipes").mkdir(parents=True)
    package = tmp_path / "pae_framework" / "__init__.py"
    monkeypatch.setattr(library.pae_framework, "__file__", str(package))
    assert library.folder() == tmp_path / "pae_framework" / "_recipes"


@pytest.mark.parametrize("name", FULL)
def test_full_size_recipes_measure_the_metrics_of_papers(name: str, registry: Registry) -> None:
    """FID, sFID, IS, precision and recall of 50 000 samples; preflight says how to do without."""
    recipe = load_recipe(name, (), registry).recipe
    assert recipe.sample is not None
    assert recipe.sample.count == 50_000
    adm = recipe.evaluate["adm"]
    missing = adm.config.missing() or ""
    assert "VIRTUAL_imagenet256_labeled.npz" in missing
    assert "null" in missing
