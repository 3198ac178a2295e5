"""Labels name terms in logs, modules in torch and folders on disk; others are refused early."""

from __future__ import annotations

import pytest
from recipe_cases import SMALL, Load, Problems
from torch import nn

from pae_framework.recipe.labels import LOGGED, RESERVED, label_fault

SHAPE = "a label is a small letter, then small letters, digits, '_' and '-'"


@pytest.mark.parametrize("label", ["ssr", "my_term", "mcr-20", "m2", "a"])
def test_a_plain_name_is_a_label(label: str) -> None:
    assert label_fault(label, RESERVED) is None


@pytest.mark.parametrize(
    "label", ["a.b", "../../x", "a/b", "/x", "", "A", "2a", "_a", "a b", "a\n"]
)
def test_what_is_no_plain_name_is_none(label: str) -> None:
    assert label_fault(label) == SHAPE


def test_no_regularizer_takes_a_name_of_the_log() -> None:
    loop = {"step", "loss", "lr", "grad_norm", "images_per_s", "data_wait"}
    opponent = {"opponent_loss", "opponent_lr", "opponent_grad_norm"}
    adversarial = {
        "adversarial",
        "adversarial_weight",
        "discriminator",
        "logits_real",
        "logits_fake",
    }
    assert loop | opponent | adversarial | {"l1", "perceptual", "lpips"} == LOGGED
    assert all(label_fault(name, RESERVED) for name in LOGGED)


def _module_of(thing: object, attribute: str) -> str:
    return getattr(getattr(thing, attribute), "__module__", None) or ""


def test_every_label_is_a_name_that_module_dict_takes() -> None:
    """Whatever the installed torch refuses is refused here, and what passes here can be added."""
    modules = nn.ModuleDict()
    # transformers, which other tests import, adds to torch's classes.
    foreign = {
        name for name in dir(modules) if _module_of(modules, name).startswith("transformers")
    }
    names = [name for name in dir(modules) if label_fault(name) is None and name not in foreign]
    assert {"type", "keys", "train"} <= set(names)
    allowed = [name for name in names if label_fault(name, RESERVED) is None]
    assert allowed == []


@pytest.mark.parametrize("label", ["a.b", "../../x", "loss", "l1", "grad_norm", "type", "train"])
def test_a_label_that_no_regularizer_can_have_is_reported_at_its_line(
    problems: Problems, label: str
) -> None:
    text = SMALL.replace("    scr:\n", f'    "{label}": {{use: scr}}\n')
    (problem,) = problems(text=text)
    assert problem.path == f"tokenizer.regularizers.{label}"
    assert problem.where == "small.yaml:15:5"
    assert "use: scr" in problem.hint


def test_a_label_that_leaves_its_folder_is_reported_for_evaluators(problems: Problems) -> None:
    text = SMALL.replace("  generation:\n", "  ../../x: {use: generation}\n")
    (problem,) = problems(text=text)
    assert (problem.path, problem.where) == ("evaluate.../../x", "small.yaml:28:3")
    assert problem.message == SHAPE


def test_an_evaluator_may_have_a_name_of_the_log(load: Load) -> None:
    text = SMALL.replace("  generation:\n", "  loss: {use: generation}\n")
    assert "loss" in load(text=text).recipe.evaluate
