"""`extends` with several names: the order of merging, origins, and fragments."""

from __future__ import annotations

from itertools import permutations
from pathlib import Path

import pytest
from recipe_cases import Load, Problems

from pae_framework.errors import RecipeError
from pae_framework.recipe import library
from pae_framework.recipe.load import load_recipe, read_recipe
from pae_framework.recipe.nodes import COMMAND_LINE
from pae_framework.registry import Registry
from pae_framework.testing.pytest import Pae


def write(**texts: str) -> None:
    """Files of the working directory, each ``name.yaml``."""
    for name, text in texts.items():
        Path(f"{name}.yaml").write_text(text)


@pytest.fixture(autouse=True)
def _parts(small: Path) -> None:
    """Three fragments that set the seed, and one value each."""
    write(
        a="seed: 1\ndata: {max_damaged: 1}\n",
        b="seed: 2\ndata: {flip: true}\n",
        c="seed: 3\ndescription: c\n",
    )


@pytest.mark.parametrize("order", list(permutations("abc")), ids="".join)
def test_a_later_name_takes_precedence(load: Load, order: tuple[str, ...]) -> None:
    names = ", ".join(f"{name}.yaml" for name in order)
    loaded = load(text=f"extends: [small.yaml, {names}]\nname: child\n", name="child.yaml")
    recipe = loaded.recipe
    assert recipe.seed == "abc".index(order[-1]) + 1
    assert (recipe.data.max_damaged, recipe.data.flip, recipe.description) == (1, True, "c")
    assert recipe.data.image_size == 8
    assert loaded.origins["seed",] == f"{order[-1]}.yaml:1:7"
    assert loaded.origins["data", "flip"] == "b.yaml:2:14"
    assert loaded.origins["name",] == "child.yaml:2:7"


def test_a_list_of_one_name_is_the_name(load: Load) -> None:
    loaded = [
        load(text=f"extends: {extends}\nname: child\n", name="child.yaml")
        for extends in ("small.yaml", "[small.yaml]")
    ]
    assert loaded[0].recipe == loaded[1].recipe


def test_what_two_parents_extend_is_merged_before_both(load: Load) -> None:
    """Otherwise the second would bring back values that the first changed."""
    write(
        base="extends: small.yaml\nseed: 5\ndata: {max_damaged: 5}\n",
        left="extends: base.yaml\nseed: 6\n",
        right="extends: base.yaml\ndata: {max_damaged: 7}\n",
    )
    loaded = load(text="extends: [left.yaml, right.yaml]\nname: child\n", name="child.yaml")
    assert (loaded.recipe.seed, loaded.recipe.data.max_damaged) == (6, 7)


def test_what_a_parent_extends_cannot_follow_it(problems: Problems) -> None:
    """It would undo what the parent changes."""
    write(left="extends: small.yaml\nseed: 6\n")
    text = "extends: [left.yaml, small.yaml]\nname: child\n"
    (problem,) = problems(text=text, name="child.yaml")
    assert (problem.where, problem.path) == ("child.yaml:1:22", "extends")
    load_recipe(_written("extends: [small.yaml, left.yaml]\nname: child\n"))


def test_a_file_has_one_name_whatever_links_lead_to_it(problems: Problems) -> None:
    Path("link.yaml").symlink_to("a.yaml")
    text = "extends: [small.yaml, a.yaml, link.yaml]\nname: child\n"
    (problem,) = problems(text=text, name="child.yaml")
    assert problem.where == "child.yaml:1:31"


def test_every_wrong_name_is_reported_and_each_key_once(problems: Problems) -> None:
    write(left="extends: base.yaml\n", right="extends: base.yaml\n")
    write(base="extends: small.yaml\nseed: 1\nseed: 2\n")
    text = "extends: [nowhere, left.yaml, 3]\n"
    found = problems(text=text, name="child.yaml")
    assert [problem.where for problem in found] == ["child.yaml:1:31"]
    found = problems(text="extends: [nowhere, left.yaml, there]\n", name="child.yaml")
    assert [problem.where for problem in found] == ["child.yaml:1:11", "child.yaml:1:31"]
    text = "extends: [left.yaml, right.yaml]\nname: child\n"
    found = problems(text=text, name="child.yaml")
    assert [problem.where for problem in found] == ["base.yaml:3:1"]


def test_many_levels_of_two_parents_are_read_in_short_time(load: Load) -> None:
    """Two to the power of 40 paths lead to the first; each file is read once."""
    write(x0="seed: 9\n", y0="seed: 9\n")
    for level in range(1, 41):
        extends = f"extends: [x{level - 1}.yaml, y{level - 1}.yaml]\n"
        write(**{f"x{level}": extends, f"y{level}": extends})
    text = "extends: [small.yaml, x40.yaml, y40.yaml]\nname: child\n"
    assert load(text=text, name="child.yaml").recipe.seed == 9


# --- extends on the command line ------------------------------------------------------------------

CHILD = "extends: [small.yaml, a.yaml]\nname: child\ndata: {flip: true}\n"


def test_an_override_replaces_what_the_file_extends(load: Load) -> None:
    """The file's own values still come on top; nothing of its former parents is left."""
    write(other="extends: small.yaml\nseed: 8\ndata: {flip: false}\n")
    loaded = load("extends=other.yaml", text=CHILD, name="child.yaml")
    recipe = loaded.recipe
    assert (recipe.name, recipe.seed, recipe.data.flip) == ("child", 8, True)
    assert recipe.data.max_damaged == 0
    assert loaded.origins["seed",] == "other.yaml:2:7"


@pytest.mark.parametrize("extends", ["[small.yaml, b.yaml, c.yaml]", "[small.yaml,c.yaml]"])
def test_an_override_may_name_several(load: Load, extends: str) -> None:
    assert load(f"extends={extends}", text=CHILD, name="child.yaml").recipe.description == "c"


def test_other_overrides_come_last_wherever_they_stand(load: Load) -> None:
    given = ("seed=9", "extends=[small.yaml, b.yaml]", "data.max_damaged=4")
    recipe = load(*given, text=CHILD, name="child.yaml").recipe
    assert (recipe.seed, recipe.data.max_damaged) == (9, 4)


def test_of_two_overrides_the_last_counts(load: Load) -> None:
    given = ("extends=nowhere", "extends=[small.yaml, c.yaml]")
    assert load(*given, text=CHILD, name="child.yaml").recipe.seed == 3


def test_a_path_on_the_command_line_is_relative_to_the_current_folder(load: Load) -> None:
    folder = Path("folder")
    folder.mkdir()
    (folder / "child.yaml").write_text("extends: ../small.yaml\nname: child\n")
    (folder / "c.yaml").write_text("seed: 30\n")
    loaded = load_recipe("folder/child.yaml", ["extends=[small.yaml, c.yaml]"])
    assert loaded.recipe.seed == 3


def test_a_fragment_that_is_told_what_to_extend_is_a_recipe(load: Load) -> None:
    recipe = load("extends=small.yaml", text="seed: 11\n", name="part.yaml").recipe
    assert (recipe.name, recipe.seed) == ("small", 11)


@pytest.mark.parametrize(
    "extends", ["nowhere", "3", "[]", "[small.yaml, nowhere]", "{a: b}", "child.yaml", "[x"]
)
def test_a_wrong_extends_on_the_command_line_is_reported_there(
    problems: Problems, extends: str
) -> None:
    (problem,) = problems(f"extends={extends}", text=CHILD, name="child.yaml")
    assert (problem.where, problem.path) == (COMMAND_LINE, "extends")


def test_null_extends_nothing(problems: Problems) -> None:
    found = problems("extends=null", text=CHILD, name="child.yaml")
    assert "tokenizer" in {problem.path for problem in found}


# --- fragments ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.yaml", "protocols/adm_50k", "protocols/diffusionbench"])
def test_a_fragment_cannot_run_and_says_what_to_write(name: str, registry: Registry) -> None:
    write(a="seed: 1\n")
    with pytest.raises(RecipeError) as caught:
        load_recipe(name, (), registry)
    (problem,) = caught.value.problems
    assert problem.where.endswith(f"{name.removesuffix('.yaml')}.yaml:1:1")
    assert f"[RECIPE, {name}]" in problem.hint


@pytest.mark.parametrize("command", ["check", "run", "fetch"])
def test_commands_refuse_a_fragment(pae: Pae, command: str) -> None:
    result = pae(command, "protocols/adm_50k")
    assert result.code == 2
    assert "protocols/adm_50k" in result.err


def test_show_prints_what_a_fragment_sets(pae: Pae) -> None:
    assert pae("show", "c.yaml").out == "seed: 3\ndescription: c\n"
    origins = [line.split("# ") for line in pae("show", "c.yaml", "--origin").out.splitlines()]
    assert [where for _, where in origins] == ["c.yaml:1:7", "c.yaml:2:14"]
    assert "adm" in pae("show", "protocols/adm_50k").ok().out


@pytest.mark.parametrize("base", [path.stem for path in sorted(library.folder().glob("*_full*"))])
@pytest.mark.parametrize(
    "fragment", [name for name in library.fragments() if name.startswith("protocols/")]
)
def test_every_full_size_recipe_can_extend_every_protocol(
    base: str, fragment: str, load: Load
) -> None:
    loaded = load(text=f"extends: [{base}, {fragment}]\nname: child\n", name="child.yaml")
    sample = loaded.recipe.sample
    assert sample is not None
    assert (sample.count, sample.labels) == (50000, "balanced")
    assert "adm" in loaded.recipe.evaluate


def test_full_size_recipes_share_the_generator_of_80_epochs() -> None:
    """LightningDiT publishes 100 000 steps of 1024 images, AdamW 2e-4 constant, EMA 0.9999."""
    shared = load_recipe("dinov2_full").recipe.generator
    assert shared is not None
    train = shared.train
    assert (train.steps, train.batch_size, train.lr, train.ema) == (100_000, 1024, 2e-4, 0.9999)
    assert (train.schedule, train.betas, train.warmup_steps) == ("constant", (0.9, 0.95), 0)
    for name in ("dinov3_full", "mae_full", "siglip2_full"):
        assert load_recipe(name).recipe.generator == shared


def test_diffusionbench_is_the_published_protocol(load: Load) -> None:
    text = "extends: [siglip2_full_800ep, protocols/diffusionbench]\nname: child\n"
    recipe = load(text=text, name="child.yaml").recipe
    assert recipe.generator is not None
    assert recipe.sample is not None
    train, sample = recipe.generator.train, recipe.sample
    assert train.steps is not None
    epochs = train.steps * train.batch_size / 1281167
    assert (round(epochs), train.batch_size) == (80, 1024)
    assert train.keep_steps == sample.at_steps == ()  # no weights that nothing reads
    assert (sample.solver, sample.steps) == ("euler", 50)
    assert sample.variants == {}, "the parent's samples by another solver are not of the protocol"
    # DiffusionBench: t from 0 (data) to 1 (noise), guidance where t <= 0.9. Here 1 is data.
    assert sample.guidance.interval == pytest.approx((1 - 0.9, 1))
    assert sample.guidance.scale == 3.3


def test_shipped_fragments_are_not_listed_as_recipes() -> None:
    listed = {path for _, path, _ in library.shipped()}
    assert len(library.fragments()) >= 2
    for name in library.fragments():
        assert library.find(name) not in listed
        assert read_recipe(name).is_fragment


def _written(text: str) -> Path:
    path = Path("written.yaml")
    path.write_text(text)
    return path
