"""Loading a recipe: all problems are reported at once, each with its position."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from recipe_cases import SMALL, Load, Problems, unstated

from pae_framework.errors import PluginError, RecipeError, UsageError
from pae_framework.plugins import load_registry
from pae_framework.recipe.load import load_recipe
from pae_framework.registry import ComponentSpec, Plugin, Registry


def test_short_forms_labels_and_defaults_are_completed(load: Load) -> None:
    recipe = load().recipe
    assert recipe.data.train.use == "digits"
    assert recipe.tokenizer.regularizers["scr"].use == "scr"
    assert recipe.tokenizer.regularizers["scr"].config.weight == 1.0
    assert recipe.tokenizer.encoder.train is not None
    assert recipe.tokenizer.encoder.train.lr == 1e-4
    assert recipe.latents.shard_size == 10_000


def test_data_has_no_defaults_and_resolved_has_all(load: Load) -> None:
    loaded = load("sample.count=30")
    assert loaded.data["sample"] == {"count": 30, "at_steps": [10]}
    assert loaded.resolved()["sample"]["guidance"] == {
        "scale": 1.0,
        "channels": "all",
        "interval": [0.0, 1.0],
        "autoguidance": None,
    }
    assert loaded.text == SMALL
    assert loaded.overrides == ("sample.count=30",)


def test_the_resolved_recipe_loads_to_an_equal_one(load: Load, registry: Registry) -> None:
    folders = [str(Path(name).absolute()) for name in "ab"]  # a relative one becomes absolute
    images = f"data.train={{use: idx, folder: {folders}}}"
    weight = "tokenizer.regularizers.ssr.weight={from: 1, to: 0.5, epochs: 0.01}"
    first = load("tokenizer.train.clip=null", images, "seed=7", weight)
    Path("resolved.yaml").write_text(first.resolved_yaml())
    again = load_recipe("resolved.yaml", (), registry)
    assert again.recipe == first.recipe
    assert again.resolved() == first.resolved()


def test_a_run_may_have_recorded_null_for_a_key_of_an_earlier_version(
    load: Load, registry: Registry
) -> None:
    first = load()
    earlier = first.resolved()
    earlier["tokenizer"]["regularizers"]["ssr"]["warmup"] = None
    Path("resolved.yaml").write_text(yaml.safe_dump(earlier))
    with pytest.raises(RecipeError, match=r"ssr\.warmup: unknown key"):
        load_recipe("resolved.yaml", (), registry)
    Path("run.json").write_text("{}")
    assert load_recipe("resolved.yaml", (), registry).recipe == first.recipe


def test_origins_name_file_command_line_or_default(load: Load) -> None:
    origins = load("tokenizer.train.lr=3e-4").origins
    assert origins["data", "image_size"] == "small.yaml:4:15"
    assert origins["data", "train", "use"] == "small.yaml:5:10"
    assert origins["tokenizer", "regularizers", "scr", "use"] == "small.yaml:15:5"
    assert origins["tokenizer", "train", "lr"] == "command line"
    assert origins["tokenizer", "train", "ema"] == "default"


# --- invalid recipes ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "where", "path", "facts"),
    [
        (
            "use: sphere",
            "use: spere",
            "small.yaml:11:21",
            "tokenizer.bottleneck.use",
            ["unknown bottleneck 'spere'", "'sphere'?", "gaussian, identity,"],
        ),
        (
            "modulator: {use: dam, depth: 1}",
            "modulator: damm",
            "small.yaml:10:14",
            "tokenizer.modulator",
            ["unknown modulator 'damm'", "'dam'?", "dam, finetune, none"],
        ),
        (
            "    scr:\n",
            "    scrr:\n",
            "small.yaml:15:5",
            "tokenizer.regularizers.scrr",
            ["unknown regularizer 'scrr'", "'scr'?"],
        ),
        (
            "image_size: 8",
            "image_size: eight",
            "small.yaml:4:15",
            "data.image_size",
            ["an integer", "'eight'"],
        ),
        (
            "image_size: 8",
            "image_size: 8.5",
            "small.yaml:4:15",
            "data.image_size",
            ["an integer", "8.5"],
        ),
        (
            "image_size: 8",
            "image_size: 0",
            "small.yaml:4:15",
            "data.image_size",
            ["more than 0", "found 0"],
        ),
        (
            "lr: 1e-4",
            "lr: [1]",
            "small.yaml:9:82",
            "tokenizer.encoder.train.lr",
            ["a number", "a list"],
        ),
        (
            "lr: 1e-4",
            "schedule: cosin",
            "small.yaml:9:88",
            "tokenizer.encoder.train.schedule",
            ["'constant'", "'cosin'", "'cosine'?"],
        ),
        (
            "refinement: {train: {steps: 10}}",
            "refinement: 3",
            "small.yaml:16:15",
            "tokenizer.refinement",
            ["a map", "found 3"],
        ),
        (
            "refinement: {train: {steps: 10}}",
            "refinement: {}",
            "small.yaml:16:3",
            "tokenizer.refinement.train",
            ["missing"],
        ),
        (
            "sample: {count: 10",
            "sample: {cuont: 10",
            "small.yaml:25:10",
            "sample.cuont",
            ["unknown", "'count'?"],
        ),
        (
            "depth: 1}\n  bottle",
            "dpth: 1}\n  bottle",
            "small.yaml:10:25",
            "tokenizer.modulator.dpth",
            ["unknown", "'depth'?"],
        ),
        (
            "train: {steps: 10, clip: 0.5}",
            "train: {steps: 10, epochs: 1}",
            "small.yaml:17:3",
            "tokenizer.train",
            ["`steps`", "`epochs`"],
        ),
        (
            "decoder: {use: vit, ",
            "decoder: {",
            "small.yaml:12:3",
            "tokenizer.decoder.use",
            ["`use: <decoder>`"],
        ),
        (
            "decoder: {use: vit, width: 32, depth: 1, heads: 2, patch: 2}",
            "decoder: [vit]",
            "small.yaml:12:12",
            "tokenizer.decoder",
            ["`use: <decoder>`"],
        ),
        (
            "train: digits",
            "train: {use: idx, folder: 3}",
            "small.yaml:5:29",
            "data.train.folder",
            ["text", "a list", "found 3"],
        ),
        (
            "  image_size: 8\n",
            "",
            "small.yaml:3:1",
            "data.image_size",
            ["missing", "side of the square images, px"],
        ),
        ("pae: 1\n", "pae: 2\n", "small.yaml:1:6", "pae", ["expected 1", "found 2"]),
        ("name: small\n", "", "small.yaml:1:1", "name", ["missing", "name of the run directory"]),
        ("name: small", "name: a/b", "small.yaml:2:7", "name", ["matches", "'a/b'"]),
        ("name: small", "name: small\nname: big", "small.yaml:3:1", "name", ["duplicate"]),
    ],
)
def test_one_mistake_is_one_problem_at_its_position(
    problems: Problems, old: str, new: str, where: str, path: str, facts: list[str]
) -> None:
    assert SMALL.count(old) == 1
    (problem,) = problems(text=SMALL.replace(old, new))
    assert (problem.where, problem.path) == (where, path)
    assert unstated(problem, *facts) == []


@pytest.mark.parametrize(
    ("line", "place"),
    [
        ("evaluate: {at_steps: [5]}", "sample.at_steps"),
        ("evaluate: {few_steps: [2, 4]}", "sample.few_steps"),
        ("evaluate: {convergence: {count: 10}}", "sample.convergence"),
        ("trackers: {image_size: 8}", "data.image_size"),
        ("at_steps: [5]", "sample.at_steps"),
        ("evaluate: {steps: 5}", None),  # many sections have it
        ("evaluate: {sample: {use: manifald}}", None),
        ("evaluate: {nothing: 5}", None),
    ],
)
def test_a_setting_in_another_section_is_named_with_its_place(
    problems: Problems, line: str, place: str | None
) -> None:
    section = line.partition(":")[0]
    without = re.sub(rf"(?ms)^{section}:.*?(?=^\S|\Z)", "", SMALL)
    (problem,) = problems(text=f"{without}{line}\n")
    if place is None:
        assert "did you mean" not in problem.hint
    else:
        assert problem.hint == f"did you mean {place}?"


def test_all_mistakes_are_reported_at_once(problems: Problems) -> None:
    text = (
        SMALL.replace(
            "patch: 2, width: 32, heads: 2, train: {steps: 10,",
            "pach: 2, width: x, train: {stps: 1,",
        )
        .replace("use: sphere", "use: spere")
        .replace("image_size: 8", "image_size: 8\n  image_size: 9")
        .replace("evaluate:", "evalute:")
    )
    found = {problem.path for problem in problems("sampel.count=1", "foo", text=text)}
    assert found == {
        "",  # `foo` is not an override
        "data.image_size",
        "tokenizer.encoder.pach",
        "tokenizer.encoder.width",
        "tokenizer.encoder.train.stps",
        "tokenizer.bottleneck.use",
        "evalute",
        "sampel",
    }


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: [", "is not YAML"),
        ("", "is empty"),
        ("[]", "expected a map"),
        ("{}", "pae: missing"),
    ],
)
def test_a_file_without_a_recipe_is_invalid(problems: Problems, text: str, expected: str) -> None:
    assert expected in str(problems(text=text)[0])


def test_an_unknown_recipe_is_a_usage_error(small: Path, registry: Registry) -> None:
    with pytest.raises(UsageError, match=r"'quikstart'.*'quickstart'"):
        load_recipe("quikstart", (), registry)
    with pytest.raises(UsageError, match=re.escape(str(small.parent))):
        load_recipe(small.parent, (), registry)


# --- overrides ------------------------------------------------------------------------------------


def test_an_override_is_yaml_split_at_its_first_equals_sign(load: Load) -> None:
    recipe = load(
        "sample.few_steps=[1, 2]",
        "description=a=b",
        "tokenizer.encoder.train={lr: 1e-5, steps: 4}",
        "evaluate={manifold: }",
        "tokenizer.regularizers.ssr=null",
        "tokenizer.modulator=none",
        "sample.count=",
    ).recipe
    assert recipe.sample is not None
    assert recipe.sample.few_steps == (1, 2)
    assert recipe.sample.count == 1000  # an empty value is null: back to the default
    assert recipe.description == "a=b"
    assert recipe.tokenizer.encoder.train is not None
    assert (recipe.tokenizer.encoder.train.lr, recipe.tokenizer.encoder.train.steps) == (1e-5, 4)
    assert list(recipe.evaluate) == ["manifold"]  # a map replaces a map
    assert list(recipe.tokenizer.regularizers) == ["scr"]
    assert recipe.tokenizer.modulator.use == "none"


def test_later_overrides_win(load: Load) -> None:
    assert load("seed=1", "seed=2").recipe.seed == 2


@pytest.mark.parametrize(
    ("override", "path", "facts"),
    [
        ("tokenizer.trian.steps=1", "tokenizer.trian", ["unknown", "'train'?"]),
        ("tokenizer.trian.steps=null", "tokenizer.trian", ["unknown", "'train'?"]),
        ("tokenizer.encoder.pach=1", "tokenizer.encoder.pach", ["unknown", "'patch'?"]),
        ("tokenizer.encoder.pach=null", "tokenizer.encoder.pach", ["unknown", "'patch'?"]),
        ("name.first=x", "name", ["text", "found a map"]),
        (
            "tokenizer.regularizers.ssr.weight={form: 0, to: 0.5, steps: 400}",
            "tokenizer.regularizers.ssr.weight.form",
            ["unknown key", "'from'?"],
        ),
        (
            "tokenizer.regularizers.ssr.warmup={steps: 400}",
            "tokenizer.regularizers.ssr.warmup",
            ["unknown key", "weight: {from: 0, to: 0.5, steps: 400}"],
        ),
        (
            "tokenizer.regularizers.ssr.weight={to: 0.5}",
            "tokenizer.regularizers.ssr.weight",
            ["exactly one of `steps` and `epochs`", "{from: 0, to: 0.5, steps: 400}"],
        ),
        (
            "tokenizer.regularizers.ssr={from: 0}",
            "tokenizer.regularizers.ssr.from",
            ["unknown key", "weight: {from: 0, to: 0.5, steps: 400}"],
        ),
        (
            "tokenizer.regularizers.ssr.weight={to: 1, steps: 5, start: 3}",
            "tokenizer.regularizers.ssr.weight.start",
            ["unknown key", "did you mean tokenizer.regularizers.ssr.start?"],
        ),
        (
            "tokenizer.regularizers.ssr.weight=[1]",
            "tokenizer.regularizers.ssr.weight",
            ["a number or a map", "found a list"],
        ),
        (
            "tokenizer.regularizers.ssr.weight={from: 0.5, to: 0.5, steps: 400}",
            "tokenizer.regularizers.ssr.weight",
            ["equal", "as 0.5"],
        ),
        (
            "tokenizer.regularizers.ssr.weight={to: 0.5, epochs: 0}",
            "tokenizer.regularizers.ssr.weight",
            ["no step", "as 0.5"],
        ),
        (
            "tokenizer.regularizers.ssr.weight={to: -1, steps: 400}",
            "tokenizer.regularizers.ssr.weight.to",
            ["0.0 or more", "-1"],
        ),
        (
            "tokenizer.regularizers.ssr.weight=much",
            "tokenizer.regularizers.ssr.weight",
            ["a number", "'much'"],
        ),
        ("seed=x", "seed", ["an integer", "'x'"]),
        ("seed=[1", "seed", ["YAML"]),
        ("sample={a: 1, a: 2}", "sample", ["duplicate"]),
        ("seed", "", ["'seed'", "key.path=value"]),
        ("a..b=1", "", ["'a..b'", "key path"]),
        ("=1", "", ["''", "key path"]),
    ],
)
def test_a_wrong_override_points_to_the_command_line(
    problems: Problems, override: str, path: str, facts: list[str]
) -> None:
    found = [one for one in problems(override) if one.path == path]
    assert any(unstated(one, *facts) == [] for one in found), found
    assert {one.where for one in found} == {"command line"}


# --- extends --------------------------------------------------------------------------------------


def test_a_schedule_of_a_weight_replaces_that_of_the_parent(load: Load) -> None:
    """But an override of one of its keys changes that key."""
    for name, parent, weight in (
        ("parent", "small", "from: 1, steps: 4, to: 0.5"),
        ("child", "parent", "to: 1, epochs: 0.01"),
    ):
        term = f"tokenizer: {{regularizers: {{ssr: {{weight: {{{weight}}}}}}}}}"
        Path(f"{name}.yaml").write_text(f"extends: {parent}.yaml\n{term}\n")
    keys = ("from", "to", "steps", "epochs")

    def found(*overrides: str, name: str) -> list[float | None]:
        resolved = load(*overrides, name=name).resolved()
        return [resolved["tokenizer"]["regularizers"]["ssr"]["weight"][key] for key in keys]

    assert found(name="child.yaml") == [0, 1, None, 0.01]
    override = "tokenizer.regularizers.ssr.weight.to=0.1"
    assert found(override, name="parent.yaml") == [1, 0.1, 4, None]


def test_a_recipe_extends_a_file_beside_it(load: Load) -> None:
    Path("child.yaml").write_text("extends: small.yaml\nname: child\nsample: {count: 50}\n")
    loaded = load("seed=3", name="child.yaml")
    assert loaded.recipe.name == "child"
    assert loaded.recipe.sample is not None
    assert (loaded.recipe.sample.count, loaded.recipe.sample.at_steps) == (50, (10,))
    assert loaded.origins["sample", "count"] == "child.yaml:3:17"
    assert loaded.origins["sample", "at_steps"] == "small.yaml:25:31"
    assert "extends" not in loaded.data


def test_the_path_of_a_parent_is_relative_to_the_child(load: Load) -> None:
    Path("deep").mkdir()
    Path("deep/child.yaml").write_text("extends: ../small.yaml\nname: child\n")
    assert load(name="deep/child.yaml").recipe.name == "child"


def test_a_recipe_extends_a_shipped_one_by_name(load: Load) -> None:
    loaded = load(text="extends: quickstart\nname: mine\n", name="mine.yaml")
    assert loaded.recipe.name == "mine"
    assert loaded.recipe.data.train.use == "digits"


def test_a_problem_in_a_parent_points_into_the_parent(problems: Problems) -> None:
    Path("child.yaml").write_text("extends: small.yaml\nname: child\nseed: x\n")
    Path("small.yaml").write_text(SMALL.replace("image_size: 8", "image_size: x\n  image_size: 3"))
    found = [str(problem) for problem in problems(name="child.yaml")]
    assert [line.split(": ")[0] for line in found] == [
        "small.yaml:5:3",
        "child.yaml:3:7",
        "small.yaml:4:15",
    ]


@pytest.mark.parametrize(
    ("extends", "where", "fact"),
    [
        ("a.yaml", "a.yaml:1:10", "'a.yaml'"),
        ("b.yaml", "b.yaml:1:10", "'a.yaml'"),
        ("quikstart", "a.yaml:1:10", "did you mean 'quickstart'?"),
        ("[quickstart, quikstart]", "a.yaml:1:23", "did you mean 'quickstart'?"),
        ("[quickstart, b.yaml]", "b.yaml:1:10", "'a.yaml'"),
        ("[quickstart, a.yaml]", "a.yaml:1:23", "circular"),
        ("[quickstart, quickstart.yaml]", "a.yaml:1:23", "'quickstart.yaml' comes twice"),
        ("[fashion_mnist, fashion_mnist]", "a.yaml:1:26", "'fashion_mnist' comes twice"),
        ("[quickstart, [a]]", "a.yaml:1:23", "found a list"),
        ("[quickstart, null]", "a.yaml:1:23", "found null"),
        ("[]", "a.yaml:1:10", "empty list"),
        ("{a: b}", "a.yaml:1:10", "found a map"),
        ("3", "a.yaml:1:10", "found 3"),
    ],
)
def test_an_invalid_parent_is_reported_at_extends(
    problems: Problems, extends: str, where: str, fact: str
) -> None:
    Path("b.yaml").write_text("extends: a.yaml\n")
    (problem,) = problems(text=f"extends: {extends}\n", name="a.yaml")
    assert (problem.where, problem.path) == (where, "extends")
    assert unstated(problem, fact) == []


def test_the_error_holds_every_problem(small: Path, registry: Registry) -> None:
    small.write_text("{}")
    with pytest.raises(RecipeError) as caught:
        load_recipe(small, (), registry)
    assert caught.value.exit_code == 2
    assert {problem.path for problem in caught.value.problems} == {
        "pae",
        "name",
        "data",
        "tokenizer",
    }


def test_a_broken_plugin_is_a_plugin_error(small: Path) -> None:
    registry = load_registry()
    plugin = Plugin("acme", "acme", "acme-encoders", "1.0")
    registry.add(ComponentSpec("encoder", "acme_vit", "acme:ViT", "acme_absent:Config", "", plugin))
    with pytest.raises(PluginError) as caught:
        load_recipe(small, ["tokenizer.encoder.use=acme_vit"], registry)
    for fact in (
        "command line: tokenizer.encoder.use: ",
        "acme-encoders",
        "encoder:acme_vit",
        "acme_absent:Config",
        "ModuleNotFoundError",
    ):
        assert fact in str(caught.value)
    with pytest.raises(RecipeError) as both:  # problems of the recipe take precedence
        load_recipe(small, ["tokenizer.encoder.use=acme_vit", "sed=1"], registry)
    assert [p.path for p in both.value.problems] == ["tokenizer.encoder.use", "sed"]
