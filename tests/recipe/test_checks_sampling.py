"""Checks and requirements of sampling settings."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import pytest
from recipe_cases import Load, Problems, unstated

from pae_framework.config import GeneratorConfig
from pae_framework.errors import RecipeError
from pae_framework.plugins import load_registry
from pae_framework.preflight.requirements import missing_requirements
from pae_framework.recipe.load import load_recipe
from pae_framework.registry import ComponentSpec, Plugin, Registry
from pae_framework.runs.plan import plan


class BlindConfig(GeneratorConfig):
    """A generator that ignores labels."""

    conditional: ClassVar[bool] = False  # type: ignore[misc]


@pytest.fixture
def with_blind() -> Registry:
    registry = load_registry()
    plugin = Plugin("blind", __name__, "blind", "1")
    config = f"{__name__}:BlindConfig"
    registry.add(ComponentSpec("generator", "blind", "absent:Blind", config, "", plugin))
    return registry


@pytest.mark.parametrize(
    ("override", "path", "message", "hint"),
    [
        ("sample.solver=eulr", "sample.solver", "eulr", "'euler'"),
        ("sample.solver=euler_maruyam", "sample.solver", "euler_maruyam", "'euler_maruyama'"),
        (
            "sample.guidance.interval=[0.5, 0.5]",
            "sample.guidance",
            "[0.5, 0.5]",
            "",
        ),
        (
            "sample.guidance.interval=[0.9, 0.5]",
            "sample.guidance",
            "[0.9, 0.5]",
            "",
        ),
        (
            "sample.guidance.interval=[0.5, 1.5]",
            "sample.guidance",
            "[0.5, 1.5]",
            "sample.guidance.interval=",
        ),
        ("sample.guidance.scale=0.5", "sample.guidance.scale", "0.5", ""),
        ("sample.labels=balance", "sample.labels", "balance", "'balanced'"),
        ("sample={solver: sde_heun, steps: 1}", "sample", "sde_heun", "2 steps"),
        ("sample={shift: 0.4, shift_base: 4096}", "sample", "`shift`", "`shift_base`"),
        ("sample.sde.last_step=men", "sample.sde.last_step", "men", "'mean'"),
    ],
)
def test_invalid_values_are_reported_at_their_keys(
    problems: Problems, override: str, path: str, message: str, hint: str
) -> None:
    (problem,) = problems(override)
    assert problem.path == path
    assert message in problem.message
    assert hint in f"{problem.message} {problem.hint}"


GUIDED = "sample.guidance.scale=2"


def test_an_unconditional_generator_needs_autoguidance(small: Path, with_blind: Registry) -> None:
    blind = "generator={use: blind, train: {steps: 10}}"
    with pytest.raises(RecipeError) as caught:
        load_recipe(small, [blind, GUIDED], with_blind)
    (problem,) = caught.value.problems
    assert problem.path == "sample.guidance.scale"
    assert (
        unstated(problem, "'blind'", "labels", "set sample.guidance.scale=1", "autoguidance") == []
    )
    load_recipe(small, [blind], with_blind)
    load_recipe(small, [blind, GUIDED, "sample.guidance.autoguidance=runs/weak"], with_blind)


def test_classifier_free_guidance_needs_dropped_labels(problems: Problems) -> None:
    (problem,) = problems(GUIDED, "generator.objective.label_drop=0")
    assert problem.path == "sample.guidance.scale"
    assert unstated(problem, "label_drop is 0", "sample.guidance.scale=1") == []


def test_autoguidance_needs_a_scale_above_1(problems: Problems) -> None:
    (problem,) = problems("sample.guidance.autoguidance=runs/weak")
    assert problem.path == "sample.guidance.scale"
    assert unstated(problem, "scale 1", "sample.guidance.autoguidance=null") == []


def test_the_count_need_not_be_a_multiple_of_the_classes(load: Load) -> None:
    assert load("sample.count=13").recipe.sample is not None


# --- requirements -------------------------------------------------------------------------------


def test_dopri5_needs_torchdiffeq(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = load("sample.solver=dopri5")
    assert missing_requirements([loaded]) == []
    monkeypatch.setattr("pae_framework.flow.flow_settings.find_spec", lambda name: None)
    (problem,) = missing_requirements([loaded])
    assert problem.path == "sample"
    assert "pae-framework[ode]" in problem.message


# --- fingerprints --------------------------------------------------------------------------------


def finished_run(path: Path, weights: bytes = b"weights") -> None:
    (path / "generator").mkdir(parents=True)
    (path / "generator" / "weights.safetensors").write_bytes(weights)


def test_samples_depend_on_the_contents_of_the_guiding_weights_not_on_their_path(
    load: Load, registry: Registry, tmp_path: Path
) -> None:
    for name, weights in (("a", b"one"), ("b", b"one"), ("c", b"two")):
        finished_run(tmp_path / name, weights)

    def fingerprint(run: str) -> str:
        loaded = load(GUIDED, f"sample.guidance.autoguidance={run}")
        stages = {stage.name: stage for stage in plan(loaded.recipe, registry)}
        return stages["sample"].fingerprint

    assert fingerprint("a") == fingerprint("b")
    assert fingerprint("a") != fingerprint("c")


def test_default_values_change_no_fingerprint(load: Load, registry: Registry) -> None:
    def fingerprints(*overrides: str) -> list[str]:
        return [stage.fingerprint for stage in plan(load(*overrides).recipe, registry)]

    defaults = ["sample.labels=balanced", "sample.end=1", "generator.objective.time.lowest=0"]
    assert fingerprints(*defaults) == fingerprints()
    assert fingerprints("sample.labels=uniform") != fingerprints()


SMALL_SETS = "sample.convergence={count: 10, guidance: {scale: 2}}"


def test_guidance_of_the_protocol_for_convergence_is_checked_at_its_place(
    problems: Problems, small: Path, with_blind: Registry
) -> None:
    (problem,) = problems(SMALL_SETS, "generator.objective.label_drop=0")
    assert problem.path == "sample.convergence.guidance.scale"
    assert unstated(problem, "label_drop", "sample.convergence.guidance.scale=1") == []
    blind = "generator={use: blind, train: {steps: 10}}"
    with pytest.raises(RecipeError) as caught:
        load_recipe(small, [blind, SMALL_SETS], with_blind)
    (problem,) = caught.value.problems
    assert problem.path == "sample.convergence.guidance.scale"
    assert "autoguidance" not in problem.hint


VARIANT = "sample.variants={guided: {guidance: {scale: 2}}}"


def test_guidance_of_a_variant_is_checked_at_its_place(
    problems: Problems, small: Path, with_blind: Registry
) -> None:
    (problem,) = problems(VARIANT, "generator.objective.label_drop=0")
    assert problem.path == "sample.variants.guided.guidance.scale"
    assert unstated(problem, "label_drop", "sample.variants.guided.guidance.scale=1") == []
    blind = "generator={use: blind, train: {steps: 10}}"
    with pytest.raises(RecipeError) as caught:
        load_recipe(small, [blind, VARIANT], with_blind)
    (problem,) = caught.value.problems
    assert problem.path == "sample.variants.guided.guidance.scale"


@pytest.mark.parametrize("part", ["interval: [0.3, 1]", "channels: first_three"])
def test_a_variant_without_a_scale_has_no_other_guidance(problems: Problems, part: str) -> None:
    guided = "sample.guidance={scale: 2.5}"
    (problem,) = problems(guided, f"sample.variants={{narrow: {{guidance: {{{part}}}}}}}")
    assert problem.path.startswith("sample.variants.narrow")
    assert unstated(problem, "scale") == []


def test_settings_without_effect_make_no_variant(problems: Problems) -> None:
    (problem,) = problems(
        "sample.guidance={scale: 1, interval: [0.25, 1]}",
        "sample.variants={unguided: {guidance: {scale: 1}}}",
    )
    assert unstated(problem, "variants.unguided") == []


@pytest.mark.parametrize("label", ["Unguided", "a/b", "..", "a b", "1", "", "a" * 65])
def test_a_variant_has_a_label_that_can_be_in_a_file_name(problems: Problems, label: str) -> None:
    (problem,) = problems(f"sample.variants={{'{label}': {{steps: 3}}}}")
    assert problem.path.startswith("sample.variants.")


def test_a_package_that_only_a_variant_needs_is_missing(
    load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pae_framework.flow.flow_settings.find_spec", lambda name: None)
    loaded = load("sample.variants={exact: {solver: dopri5}}")
    messages = [found.message for found in missing_requirements([loaded])]
    assert [message for message in messages if "torchdiffeq" in message] != []


def test_without_variants_fingerprints_stay(load: Load, registry: Registry) -> None:
    none, empty, one = (
        [stage.fingerprint for stage in plan(load(*override).recipe, registry)]
        for override in ([], ["sample.variants={}"], ["sample.variants={a: {steps: 3}}"])
    )
    assert none == empty != one


def test_the_protocol_for_convergence_has_images_of_every_class(problems: Problems) -> None:
    (problem,) = problems("sample.convergence={count: 9}", "evaluate={generation: }")
    assert problem.path == "sample.convergence.count"
    assert unstated(problem, "9", "10 classes", "sample.convergence.count=10") == []


def test_without_a_protocol_for_convergence_fingerprints_stay(small: Path) -> None:
    recipes = [
        load_recipe(small, [*override], load_registry()).recipe
        for override in ([], ["sample.convergence=null"], ["sample.convergence={}"])
    ]
    plain, null, asked = (
        next(stage for stage in plan(recipe, load_registry()) if stage.name == "sample").fingerprint
        for recipe in recipes
    )
    assert plain == null != asked
