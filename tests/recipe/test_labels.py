"""Labels must be valid names of log columns, torch modules and folders."""

from __future__ import annotations

import pytest
from recipe_cases import SMALL, Load, Problems

from pae_framework.recipe.checks.loss_checks import RESERVED, label_problem
from pae_framework.tokenizer.tokenizer_settings import ReconstructionSettings


@pytest.mark.parametrize("label", ["ssr", "my_term", "mcr-20", "m2", "a"])
def test_a_lower_case_word_is_a_label(label: str) -> None:
    assert label_problem(label, RESERVED) is None


@pytest.mark.parametrize(
    "label", ["a.b", "../../x", "a/b", "/x", "", "A", "2a", "_a", "a b", "a\n"]
)
def test_other_labels_are_rejected_with_or_without_reserved_names(label: str) -> None:
    assert label_problem(label) is not None
    assert label_problem(label, RESERVED) == label_problem(label)


def test_names_of_log_columns_are_reserved() -> None:
    loop = {"step", "loss", "lr", "grad_norm", "images_per_s", "data_wait"}
    discriminator = {"opponent_loss", "opponent_lr", "opponent_grad_norm"}
    adversarial = {
        "adversarial",
        "adversarial_weight",
        "discriminator",
        "logits_real",
        "logits_fake",
    }
    reconstruction = set(ReconstructionSettings().terms)
    assert reconstruction == {"l1", "perceptual", "lpips"}
    assert loop | discriminator | adversarial | reconstruction == RESERVED
    assert all(label_problem(name, RESERVED) for name in RESERVED)


def test_a_regularizer_may_be_named_like_a_method_of_torchs_modules(load: Load) -> None:
    for label in ("half", "type", "train"):
        text = SMALL.replace("    scr:\n", f"    {label}: {{use: scr}}\n")
        assert label in load(text=text).recipe.tokenizer.regularizers


@pytest.mark.parametrize(
    "label", ["a.b", "../../x", "loss", "l1", "lpips", "grad_norm", "adversarial", "vf_weight"]
)
def test_an_invalid_label_of_a_regularizer_is_reported_at_its_line(
    problems: Problems, label: str
) -> None:
    text = SMALL.replace("    scr:\n", f'    "{label}": {{use: scr}}\n')
    (problem,) = problems(text=text)
    assert problem.path == f"tokenizer.regularizers.{label}"
    assert problem.where == "small.yaml:15:5"
    assert "use: scr" in problem.hint


def test_an_invalid_label_of_an_evaluator_is_reported_at_its_line(problems: Problems) -> None:
    text = SMALL.replace("  generation:\n", "  ../../x: {use: generation}\n")
    (problem,) = problems(text=text)
    assert (problem.path, problem.where) == ("evaluate.../../x", "small.yaml:28:3")
    assert problem.message == label_problem("../../x")


def test_an_evaluator_may_be_named_like_a_log_column(load: Load) -> None:
    text = SMALL.replace("  generation:\n", "  loss: {use: generation}\n")
    assert "loss" in load(text=text).recipe.evaluate
