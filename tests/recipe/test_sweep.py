"""A sweep expands into recipes that differ only in overrides and seeds."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from recipe_cases import SMALL, Load, Problems

from pae_framework.recipe.derived import latent_shape
from pae_framework.recipe.loaded import LoadedRecipe
from pae_framework.recipe.nodes import dotted
from pae_framework.recipe.sweep import base_variant, differing_values, expand

SWEEP = (
    SMALL
    + """\
sweep:
  seeds: [0, 3]
  variants:
    none:
      tokenizer.regularizers.ssr: null
      tokenizer.regularizers.scr: null
    all: {}
    strong: {tokenizer.regularizers: {ssr: {weight: 2}}, tokenizer.train.steps: 20}
"""
)


def paper(values: str) -> str:
    return f"paper: {{source: a table, values: {values}}}"


def latent_channels(loaded: LoadedRecipe) -> int:
    return latent_shape(loaded.recipe).channels


def without_seeds(resolved: dict[str, Any]) -> dict[str, Any]:
    del resolved["tokenizer"]["train"]["seed"]
    del resolved["generator"]["train"]["seed"]
    return resolved


def test_every_variant_runs_with_every_seed(load: Load) -> None:
    members = expand(load(text=SWEEP))
    assert [(member.name, member.variant, member.seed) for member in members] == [
        ("none-seed0", "none", 0),
        ("none-seed3", "none", 3),
        ("all-seed0", "all", 0),
        ("all-seed3", "all", 3),
        ("strong-seed0", "strong", 0),
        ("strong-seed3", "strong", 3),
    ]


def test_the_values_in_which_variants_differ(load: Load) -> None:
    text = (
        SMALL
        + """\
sweep:
  seeds: [0, 3]
  variants:
    plain: {}
    default: {tokenizer.train.accumulate: 1}
    long: {tokenizer.train.steps: 21}
    mcr: {tokenizer.regularizers: {mcr: {weight: 0.5}}}
    gaussian: {tokenizer.bottleneck: {use: gaussian}}
"""
    )
    loaded = load(text=text)
    steps, channels = loaded.recipe.tokenizer.train.steps, latent_channels(loaded)
    found = differing_values(expand(loaded))
    assert found["tokenizer.train.steps"] == [*[str(steps)] * 2, "21", *[str(steps)] * 2]
    assert found["tokenizer.regularizers.ssr"] == ["ssr", "ssr", "ssr", "not set", "ssr"]
    assert found["tokenizer.regularizers.mcr"] == [*["not set"] * 3, "mcr", "not set"]
    assert found["tokenizer.bottleneck.use"] == [*["sphere"] * 4, "gaussian"]
    # the gaussian has its own default, which nobody wrote
    assert found["tokenizer.bottleneck.channels"][:4] == [str(channels)] * 4
    assert not [key for key in found if key.endswith(("seed", "accumulate"))]


def test_weights_with_and_without_a_schedule_differ(load: Load) -> None:
    text = (
        SMALL
        + """\
sweep:
  seeds: [0]
  variants:
    number: {tokenizer.regularizers.ssr.weight: 0.2}
    up: {tokenizer.regularizers.ssr.weight: {to: 0.5, steps: 4}}
    down: {tokenizer.regularizers.ssr.weight: {from: 1, to: 0.5, epochs: 0.01}}
"""
    )
    found = differing_values(expand(load(text=text)))
    shown = ["0.2", "{from: 0.0, to: 0.5, steps: 4}", "{from: 1.0, to: 0.5, epochs: 0.01}"]
    values = map(yaml.safe_load, found["tokenizer.regularizers.ssr.weight"])
    assert list(values) == list(map(yaml.safe_load, shown))


@pytest.mark.parametrize(
    ("variants", "base"),
    [
        ("{a: {seed: 1}, b: {}, c: {}}", "b"),
        ("{a: {seed: 1}, b: {seed: 2}}", "a"),
        ("{only: {}}", "only"),
    ],
)
def test_the_base_is_the_variant_without_overrides_or_the_first(
    load: Load, variants: str, base: str
) -> None:
    assert base_variant(load(text=f"{SMALL}sweep:\n  variants: {variants}\n")) == base


def test_a_member_is_the_recipe_without_the_sweep_and_with_its_variant(load: Load) -> None:
    members = {member.name: member.loaded for member in expand(load("seed=5", text=SWEEP))}
    plain = load("seed=5", text=SMALL)
    assert without_seeds(members["all-seed0"].resolved()) == without_seeds(plain.resolved())
    assert members["none-seed0"].recipe.tokenizer.regularizers == {}
    strong = members["strong-seed3"].recipe
    assert list(strong.tokenizer.regularizers) == ["ssr"]  # a map replaces a map
    assert strong.tokenizer.regularizers["ssr"].config.weight == 2
    assert (strong.tokenizer.train.steps, strong.tokenizer.train.clip) == (20, 0.5)
    for loaded in members.values():
        assert loaded.recipe.sweep is None
        assert loaded.recipe.name == "small"
        assert loaded.overrides == ("seed=5",)


def test_a_seed_goes_to_tokenizer_and_generator_only(load: Load) -> None:
    recipe = expand(load(text=SWEEP))[1].loaded.recipe
    assert recipe.generator is not None
    assert recipe.extractor is not None
    assert recipe.extractor.train is not None
    assert recipe.tokenizer.encoder.train is not None
    assert recipe.tokenizer.refinement is not None
    assert (recipe.tokenizer.train.seed, recipe.generator.train.seed) == (3, 3)
    shared = (
        recipe.tokenizer.encoder.train,
        recipe.extractor.train,
        recipe.tokenizer.refinement.train,
    )
    assert [train.seed for train in shared] == [None, None, None]
    assert recipe.seed == 0


def test_a_member_without_a_generator_gets_no_generator(load: Load) -> None:
    text = SMALL + (
        "sweep:\n  variants:\n"
        "    tokenizer: {generator: null, sample: null, evaluate.generation: null}\n"
    )
    (member,) = expand(load(text=text))
    assert member.loaded.recipe.generator is None


def test_origins_of_values_of_a_variant_are_positions_in_the_variant(load: Load) -> None:
    origins = expand(load(text=SWEEP))[5].loaded.origins
    line = 1 + SWEEP.splitlines().index(
        "    strong: {tokenizer.regularizers: {ssr: {weight: 2}}, tokenizer.train.steps: 20}"
    )
    assert origins["tokenizer", "train", "steps"].startswith(f"small.yaml:{line}:")
    assert origins["tokenizer", "train", "clip"].startswith("small.yaml:17:")


def test_published_values_change_no_member(load: Load) -> None:
    """They are shown in the report and are no part of what is run."""
    with_values = SWEEP.replace("sweep:", f"sweep:\n  {paper('{all: {gFID: 1.86}}')}")
    before, after = expand(load(text=SWEEP)), expand(load(text=with_values))
    assert [x.loaded.resolved() for x in before] == [x.loaded.resolved() for x in after]


def test_a_recipe_without_a_sweep_has_no_members(load: Load) -> None:
    assert expand(load()) == []


@pytest.mark.parametrize(
    ("old", "new", "path", "message"),
    [
        (
            "tokenizer.train.steps: 20",
            "tokenizer.trian.steps: 20",
            "tokenizer.trian",
            "'strong'",
        ),
        (
            "{weight: 2}",
            "{weight: x}",
            "tokenizer.regularizers.ssr.weight",
            "'strong'",
        ),
        (
            "all: {}",
            "all: {tokenizer.refinement: null}",
            "tokenizer.regularizers.ssr",
            "'all'",
        ),
        ("all: {}", "all: {tokenizer..train: 1}", "sweep.variants.all", "'tokenizer..train'"),
        ("all: {}", "all: {name: b}", "sweep.variants.all.name", "variant"),
        (
            "all: {}",
            "all: {sweep.seeds: [1]}",
            "sweep.variants.all.sweep.seeds",
            "variant",
        ),
        ("all: {}", "a/b: {}", "sweep.variants.a/b", "letters, digits"),
        ("all: {}", "all: 3", "sweep.variants.all", "found 3"),
        ("seeds: [0, 3]", "seeds: [3, 3]", "sweep.seeds", "distinct"),
        ("seeds: [0, 3]", "seeds: [-1]", "sweep.seeds[0]", "0 or more"),
        ("seeds: [0, 3]", f"seeds: [{2**63}]", "sweep.seeds[0]", str(2**63)),
        ("all: {}", "NONE: {}", "sweep.variants.NONE", "'none'"),
        ("all: {}", f"{'a' * 101}: {{}}", dotted(("sweep", "variants", "a" * 101)), "100"),
        ("seeds: [0, 3]", "seeds: []", "sweep.seeds", "1 or more"),
        ("seeds: [0, 3]", paper("{al: {gFID: 1}}"), "sweep.paper.values.al", "variant"),
        ("seeds: [0, 3]", paper("{all-seed0: {a: 1}}"), "sweep.paper.values.all-seed0", "variant"),
        ("seeds: [0, 3]", paper("{all: {}}"), "sweep.paper.values.all", "1 or more"),
        ("seeds: [0, 3]", "paper: {source: '', values: {all: {a: 1}}}", "sweep.paper.source", "1"),
        ("seeds: [0, 3]", paper("{all: {gFID: '1'}}"), "sweep.paper.values.all.gFID", "number"),
        ("seeds: [0, 3]", paper("{all: {gFID: .nan}}"), "sweep.paper.values.all.gFID", "finite"),
        ("seeds: [0, 3]", paper("{all: 1}"), "sweep.paper.values.all", "found 1"),
        ("seeds: [0, 3]", paper("{}"), "sweep.paper.values", "1 or more"),
        ("seeds: [0, 3]", "paper: {values: {all: {gFID: 1}}}", "sweep.paper.source", "missing"),
    ],
)
def test_an_invalid_variant_is_reported_when_the_recipe_loads(
    problems: Problems, old: str, new: str, path: str, message: str
) -> None:
    assert SWEEP.count(old) == 1
    found = problems(text=SWEEP.replace(old, new))
    assert path in [problem.path for problem in found]
    assert any(message in problem.message for problem in found)
    assert all(problem.where.startswith("small.yaml:") for problem in found)
