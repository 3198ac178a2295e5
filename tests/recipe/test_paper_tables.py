"""The paper's tables as sweeps: their variants, what each of them changes, and published values.

Values that the paper states in several tables are the same in all sweeps.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from functools import cache
from itertools import combinations
from pathlib import Path

import pytest

from pae_framework.recipe import library
from pae_framework.recipe.load import load_recipe
from pae_framework.recipe.loaded import LoadedRecipe
from pae_framework.recipe.models import Recipe
from pae_framework.recipe.sweep import expand

SHIPPED = [name for name in library.names() if name.startswith("paper/")]
TABLES = [name for name in SHIPPED if "table" in name]
OVER_MINIATURE = [name for name in TABLES if name != "paper/table7"]
"""Table 7 compares pretrained encoders, which need larger images."""
TERMS = ("ssr", "mcr", "scr")


@cache
def loaded(table: str) -> LoadedRecipe:
    return load_recipe(table)


@cache
def members(table: str) -> dict[str, Recipe]:
    return {member.variant: member.loaded.recipe for member in expand(loaded(table))}


def published(table: str) -> Mapping[str, Mapping[str, float]]:
    sweep = loaded(table).recipe.sweep
    assert sweep is not None
    assert sweep.paper is not None
    return sweep.paper.values


def test_every_table_of_the_paper_with_variants_is_a_sweep() -> None:
    numbers = ("2a", "2b", "3a", "3b", "3c", "3d", "6", "7", "8")
    assert [f"paper/table{number}" for number in numbers] == TABLES


@pytest.mark.parametrize("name", SHIPPED)
def test_its_header_says_how_to_run_it_and_that_nobody_has(name: str) -> None:
    text = library.find(name).read_text(encoding="utf-8")
    header = text.partition("# yaml-language-server")[0]
    assert all(line.startswith("#") for line in header.splitlines())
    assert f"#   pae run {name}\n" in header
    assert (f"{name} extends=paper/miniature" in header) == (name in OVER_MINIATURE)
    if name != "paper/miniature":
        assert "has not been run yet" in " ".join(header.replace("#", " ").split())


def in_miniature(table: str) -> LoadedRecipe:
    """The sweep of the command for the miniature in a header."""
    header = library.find(table).read_text(encoding="utf-8").partition("# yaml-language-server")[0]
    lines = header.replace("\\\n#", " ").splitlines()
    command = next(line for line in lines if f"pae run {table} extends=paper/miniature" in line)
    return load_recipe(table, shlex.split(command.lstrip("#"))[3:])


@pytest.mark.parametrize("table", OVER_MINIATURE)
def test_in_miniature_every_variant_has_angles_of_the_miniature(table: str) -> None:
    known = angles(load_recipe("paper/miniature").recipe)
    found = [angles(member.loaded.recipe) for member in expand(in_miniature(table))]
    assert known == {20, 40}
    assert all(each <= known for each in found)
    if table == "paper/table3d":
        assert found == [set(), {20}, {40}, known]


def angles(recipe: Recipe) -> set[float]:
    term = recipe.tokenizer_section.active_regularizers.get("mcr")
    return set() if term is None else set(term.config.model_dump()["angles"])


@pytest.mark.parametrize("table", TABLES)
def test_the_source_says_how_long_the_tokenizer_trained(table: str) -> None:
    """The paper states 25 epochs for gFID 1.86 with all terms, which its Table 2b has, too."""
    sweep = loaded(table).recipe.sweep
    assert sweep is not None
    assert sweep.paper is not None
    known = 1.86 in [values["gFID"] for values in sweep.paper.values.values()]
    assert known == (table in ("paper/table2a", "paper/table2b"))
    assert ("25 epochs of the tokenizer" if known else "unknown") in sweep.paper.source


@pytest.mark.parametrize("table", TABLES)
def test_published_values_are_of_every_variant(table: str) -> None:
    variants = members(table)
    known = published(table)
    assert known.keys() == ({"d32"} if table == "paper/table8" else variants.keys())
    assert len({tuple(values) for values in known.values()}) == 1, "the same metrics for all"


@pytest.mark.parametrize("table", TABLES)
def test_variants_share_data_training_lengths_and_protocol(table: str) -> None:
    recipes = list(members(table).values())
    first = recipes[0]
    for recipe in recipes[1:]:
        assert recipe.data == first.data
        assert recipe.generator == first.generator
        assert recipe.evaluate == first.evaluate
        assert recipe.tokenizer_section.train.epochs == first.tokenizer_section.train.epochs == 25
        assert recipe.sample is not None
        assert first.sample is not None
        assert recipe.sample.model_copy(update={"steps": 0}) == first.sample.model_copy(
            update={"steps": 0}
        )


@pytest.mark.parametrize("table", [name for name in TABLES if name != "paper/table6"])
def test_samples_are_without_guidance_as_in_the_ablations(table: str) -> None:
    for recipe in members(table).values():
        assert recipe.sample is not None
        assert (recipe.sample.guidance.scale, recipe.sample.variants) == (1, {})
        assert (recipe.sample.solver, recipe.sample.count) == ("euler_maruyama", 50000)


@pytest.mark.parametrize("table", OVER_MINIATURE)
def test_over_the_miniature_the_variants_are_the_same(table: str) -> None:
    over = load_recipe(table, ["extends=paper/miniature", "name=mine"])
    base = load_recipe("paper/miniature").recipe
    found = {member.variant: member.loaded.recipe for member in expand(over)}
    assert found.keys() == members(table).keys()
    for recipe in found.values():
        assert (recipe.data, recipe.extractor) == (base.data, base.extractor)
        assert recipe.generator is not None
        assert base.generator is not None
        assert recipe.generator.config == base.generator.config
        assert recipe.generator.train.steps == base.generator.train.steps
        assert recipe.tokenizer_section.encoder == base.tokenizer_section.encoder
        assert recipe.tokenizer_section.train.steps == base.tokenizer_section.train.steps
        assert recipe.tokenizer_section.adversarial is None, "nothing of the large base is left"
        assert recipe.evaluate.keys() == base.evaluate.keys()


def test_table_2a_has_every_combination_of_the_terms() -> None:
    found = members("paper/table2a")
    subsets = [set(chosen) for size in range(4) for chosen in combinations(TERMS, size)]
    assert [set(recipe.tokenizer_section.regularizers) for recipe in found.values()] == subsets
    names = {"none": set(), "all": set(TERMS)}
    for variant, recipe in found.items():
        terms = names.get(variant, set(variant.split("_")))
        assert set(recipe.tokenizer_section.regularizers) == terms


def test_variants_of_the_other_tables_change_what_their_names_say() -> None:
    assert [x.tokenizer_section.target for x in members("paper/table2b").values()] == [
        "raw",
        "refined",
    ]
    kl = members("paper/table3a")["kl"].tokenizer_section
    assert (kl.bottleneck.use, list(kl.regularizers)) == ("gaussian", ["kl"])
    assert kl.bottleneck.config.latent_channels(1024) == 32
    auxiliary = members("paper/table3a")["diffusion"].tokenizer_section
    assert (auxiliary.bottleneck.use, list(auxiliary.regularizers)) == ("sphere", ["diffusion"])
    fusion = members("paper/table3b")
    assert fusion["finetune"].tokenizer_section.modulator.use == "finetune"
    settings = [
        x.tokenizer_section.modulator.config.model_dump() for x in list(fusion.values())[1:]
    ]
    assert [x["fusion"] for x in settings] == ["add", "concat", "sft"]
    scr = [
        x.tokenizer_section.regularizers["scr"].config for x in members("paper/table3c").values()
    ]
    assert [x.model_dump()["level"] for x in scr] == ["pooled", "tokens", "both"]
    angles = {
        variant: term.config.model_dump()["angles"]
        for variant, recipe in members("paper/table3d").items()
        if (term := recipe.tokenizer_section.regularizers.get("mcr"))
    }
    assert angles == {"small": (42.5,), "large": (85,), "cascade": (42.5, 85)}
    for variant, recipe in members("paper/table6").items():
        assert recipe.sample is not None
        assert variant == f"points{recipe.sample.steps + 1}"
    for variant, recipe in members("paper/table7").items():
        assert variant.startswith(recipe.tokenizer_section.encoder.use)
        assert (recipe.tokenizer_section.regularizers == {}) == variant.endswith("_none")
    for variant, recipe in members("paper/table8").items():
        width = recipe.tokenizer_section.bottleneck.config.latent_channels(1024)
        assert variant == f"d{width}"


@pytest.mark.parametrize("encoder", ["siglip2", "dinov3", "mae"])
def test_encoders_of_table_7_are_those_of_the_full_recipes(encoder: str) -> None:
    full = load_recipe(f"{encoder}_full").recipe.tokenizer_section
    for variant in (encoder, f"{encoder}_none"):
        assert members("paper/table7")[variant].tokenizer_section.encoder == full.encoder


def test_values_that_several_tables_state_agree() -> None:
    gfid = {
        (table, variant): values["gFID"]
        for table in TABLES
        for variant, values in published(table).items()
    }
    main = (("3a", "pae"), ("3b", "dam"), ("3c", "both"), ("3d", "cascade"), ("7", "dinov2"))
    same = [
        [("2a", "all"), ("2b", "refined")],
        [("3a", "none"), ("7", "dinov2_none")],
        [*main, ("8", "d32")],
    ]
    for group in same:
        assert len({gfid[f"paper/table{number}", variant] for number, variant in group}) == 1
    both = published("paper/table2a")["all"]
    refined = published("paper/table2b")["refined"]
    assert both.items() <= refined.items()


@pytest.mark.parametrize("ablation", ["fashion_mnist_ablation", "shapes_ablation"])
def test_ablations_state_values_of_table_2a(ablation: str) -> None:
    table, single = published("paper/table2a"), published(ablation)
    assert single == {variant: table[variant] for variant in ("none", *TERMS, "all")}


def test_aligned_latents_are_better_in_every_published_metric_of_table_2a() -> None:
    """The paper's claim about its own table."""
    values = published("paper/table2a")
    for variant, found in values.items():
        if variant != "none":
            assert found["gFID"] < values["none"]["gFID"]
            assert found["LPC"] < values["none"]["LPC"]
            assert found["SSC"] > values["none"]["SSC"]
            assert found["GSQ"] > values["none"]["GSQ"]


def test_names_in_folders_are_found_with_and_without_their_suffix() -> None:
    path = library.folder() / "paper" / "table2a.yaml"
    assert library.find("paper/table2a") == library.find("paper/table2a.yaml") == path
    assert not set(SHIPPED) & set(library.fragments())
    assert library.shipped_file("table2a") is None
    assert not Path("paper").exists()
