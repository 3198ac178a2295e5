"""Values keep the type that is written, and are within the limits of what can run."""

from __future__ import annotations

from pathlib import Path

import pytest
from recipe_cases import SMALL, Load, Problems, unstated

INTEGERS = (
    *("seed", "data.image_size", "data.test_images", "sample.seed", "sample.count"),
    *("sample.steps", "sample.batch_size", "latents.shard_size", "runtime.threads"),
    *(f"tokenizer.train.{key}" for key in ("steps", "batch_size", "seed", "warmup_steps")),
    *("tokenizer.encoder.width", "tokenizer.modulator.depth", "tokenizer.bottleneck.channels"),
    *("tokenizer.decoder.heads", "tokenizer.refinement.depth", "generator.patch"),
    *("evaluate.manifold.images", "evaluate.manifold.draws"),
)
NUMBERS = (
    *("tokenizer.train.lr", "tokenizer.train.clip", "tokenizer.train.ema", "tokenizer.noise"),
    *("tokenizer.reconstruction.l1", "tokenizer.regularizers.ssr.weight", "sample.shift"),
    *("sample.guidance.scale", "generator.objective.label_drop", "tokenizer.encoder.mlp_ratio"),
    *("evaluate.manifold.sigma", "tokenizer.encoder.class_weight"),
)
BOOLEANS = ("data.flip", "runtime.tf32", "tokenizer.train.compile", "tokenizer.modulator.cross")
LISTS = ("generator.train.keep_steps", "sample.few_steps", "tokenizer.train.betas")


@pytest.mark.parametrize("key", [*INTEGERS, *NUMBERS])
@pytest.mark.parametrize("value", ["true", "'1'", ".inf", ".nan", "1e300"])
def test_text_booleans_and_numbers_without_end_are_no_numbers(
    problems: Problems, key: str, value: str
) -> None:
    assert {problem.path for problem in problems(f"{key}={value}")} == {key}


@pytest.mark.parametrize("key", [*INTEGERS, "pae"])
def test_a_number_with_a_point_is_no_integer(problems: Problems, key: str) -> None:
    (problem,) = problems(f"{key}=1.0")
    assert problem.path == key
    assert unstated(problem, "1.0", "write 1") == []


@pytest.mark.parametrize("key", INTEGERS)
@pytest.mark.parametrize("power", [63, 64, 100])
def test_integers_fit_into_64_bits(problems: Problems, key: str, power: int) -> None:
    assert {problem.path for problem in problems(f"{key}={2**power}")} == {key}


@pytest.mark.parametrize("key", BOOLEANS)
@pytest.mark.parametrize("value", ["1", "0", "'true'", "on", "1.0"])
def test_only_true_and_false_are_booleans(problems: Problems, key: str, value: str) -> None:
    (problem,) = problems(f"{key}={value}")
    assert (problem.path, unstated(problem, "true or false")) == (key, [])


@pytest.mark.parametrize("key", LISTS)
@pytest.mark.parametrize("entry", ["true", "'1'"])
def test_entries_of_lists_keep_their_type_too(problems: Problems, key: str, entry: str) -> None:
    found = problems(f"{key}=[{entry}, {entry}]")
    assert {problem.path for problem in found} == {f"{key}[0]", f"{key}[1]"}


def test_an_invalid_entry_is_the_only_problem_of_a_list(problems: Problems) -> None:
    (problem,) = problems("tokenizer.reconstruction.perceptual.layers=[true]")
    assert problem.path == "tokenizer.reconstruction.perceptual.layers[0]"


def test_an_integer_is_a_number(load: Load) -> None:
    loaded = load("tokenizer.train.lr=1", "tokenizer.reconstruction.l1=2")
    assert isinstance(loaded.recipe.tokenizer.train.lr, float)
    assert loaded.recipe.tokenizer.reconstruction.l1 == 2.0


def test_every_seed_up_to_63_bits_is_valid(load: Load) -> None:
    seeds = ("seed", "sample.seed", "tokenizer.train.seed", "data.train.seed")
    source = "data.train={use: shapes}"
    recipe = load(source, *(f"{key}={2**63 - 1}" for key in seeds)).recipe
    assert recipe.seed == recipe.tokenizer.train.seed == 2**63 - 1


@pytest.mark.parametrize(
    "override",
    [
        "data.image_size=100000",
        "tokenizer.train.steps=100000000000",
        "tokenizer.train.epochs=1e20",
        "tokenizer.train.lr=1e9",
        "tokenizer.modulator.depth=100000",
        "tokenizer.modulator.mlp_ratio=1e-9",
        "tokenizer.encoder.mlp_ratio=1e20",
        "generator.width=100000000",
        "generator.classes=10000000000",
        "sample.steps=1000000000",
        "sample.few_steps=[1000000]",
        "data.train={use: shapes, count: 100000000000}",
        "tokenizer.bottleneck.channels=1000000000",
        "tokenizer.reconstruction.l1=1e300",
        "tokenizer.train.workers=1000000",
    ],
)
def test_sizes_that_nothing_can_hold_are_rejected(problems: Problems, override: str) -> None:
    key = override.partition("=")[0]
    assert all(problem.path.startswith(key) for problem in problems(override))


# --- names, paths and text ------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["tokenizer.weights", "latents.folder", "data.train.folder"])
@pytest.mark.parametrize(
    "path", ["''", "'~nobody-here/x'", "a" * 256, f"b/{'ä' * 128}/c", "a/" * 3000]
)
def test_a_path_must_be_one_that_the_file_system_takes(
    problems: Problems, key: str, path: str
) -> None:
    source = ["data.train={use: image_folder, folder: x}"] if key.startswith("data") else []
    assert key in [problem.path for problem in problems(*source, f"{key}={path}")]


@pytest.mark.parametrize("name", ["a" * 101, "a/b", ".hidden", "a b", '"a\\n"', "ä", "''"])
def test_a_name_must_be_a_portable_name_of_a_folder(problems: Problems, name: str) -> None:
    (problem,) = problems(f"name={name}")
    assert problem.path == "name"


def test_the_longest_name_has_a_smoke_version(load: Load) -> None:
    from pae_framework.recipe.smoke import smoke_recipe

    assert smoke_recipe(load(f"name={'a' * 100}")).recipe.name.endswith("-smoke")


@pytest.mark.parametrize("section", ["evaluate", "tokenizer.regularizers"])
def test_a_label_is_short_enough_for_a_file_name(problems: Problems, section: str) -> None:
    use = "reconstruction" if section == "evaluate" else "mcr"
    (problem,) = problems(f"{section}.{'a' * 65}={{use: {use}}}")
    assert unstated(problem, "64", "65") == []


@pytest.mark.parametrize("escape", ["\\uD800", "\\uDFFF", "\\0", "\\e", "\\x7f", "\\uFFFE"])
@pytest.mark.parametrize("key", ["description", "tokenizer.weights", "name"])
def test_characters_that_cannot_be_written_are_rejected(
    problems: Problems, key: str, escape: str
) -> None:
    found = problems(f'{key}="a{escape}b"')
    assert any("is not allowed" in problem.message for problem in found)
    assert {problem.where for problem in found} == {"command line"}


def test_a_problem_with_an_unprintable_key_is_printable(problems: Problems) -> None:
    text = SMALL + '"a\\nb\\e\\uD800": 1\n' + f"{'k' * 5000}: 1\n"
    for problem in problems(text=text):
        assert str(problem).isprintable()
        assert len(str(problem)) < 400


# --- messages that name the key to write ----------------------------------------------------------


@pytest.mark.parametrize(
    ("override", "remedy"),
    [
        ("tokenizer.adversarial=0", "tokenizer.adversarial.weight=0"),
        ("generator.train=100", "generator.train.steps=100"),
        ("runtime.device=gpu", "'cuda'"),
        ("tokenizer.train.precision=bfloat16", "'bf16'"),
        ("tokenizer.target=rwa", "'raw'"),
    ],
)
def test_the_message_names_what_to_write(problems: Problems, override: str, remedy: str) -> None:
    assert any(unstated(problem, remedy) == [] for problem in problems(override))


@pytest.mark.parametrize("word", ["fp16", "float16", "half"])
def test_no_other_precision_is_suggested_for_half(problems: Problems, word: str) -> None:
    (problem,) = problems(f"tokenizer.train.precision={word}")
    assert unstated(problem, "'float32'", "'bf16'") == []
    assert problem.hint == ""


@pytest.mark.parametrize("weight", ["0", "0.0"])
def test_an_adversarial_term_that_is_off_needs_no_discriminator(load: Load, weight: str) -> None:
    assert load(f"tokenizer.adversarial.weight={weight}").recipe.tokenizer.adversarial is None


@pytest.mark.parametrize("value", ["{weight: 0.5}", "{weight: false}", "{weight: 0, strat: 1}"])
def test_any_other_adversarial_section_is_checked(problems: Problems, value: str) -> None:
    assert problems(f"tokenizer.adversarial={value}")


# --- files ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["x" * 300, "~nobody-here", "/", ".", "'\\'", "https://a/b.yaml"])
def test_extends_of_any_text_is_a_recipe_error(problems: Problems, name: str) -> None:
    text = SMALL + f"extends: {name}\n"
    assert {problem.path for problem in problems(text=text)} == {"extends"}


def test_a_deep_override_is_a_recipe_error(problems: Problems) -> None:
    (problem,) = problems(".".join(["a"] * 900) + "=1")
    assert unstated(problem, "nested too deeply", "900") == []


@pytest.mark.parametrize(
    "text",
    [
        "k: v\n" * 150_000,
        "a: " + "x" * 2_000_000,
        "- 1\n" * 30_000,
        "a: " + "[" * 400_000,
        "? " * 100_000,
        "".join(f"k{i}: &a{i} [" + f"*a{i - 1}" * (i > 0) + "]\n" for i in range(200)),
        f"seed: 0x{'f' * 100_000}\n",
        f"seed: {'1' * 100_000}.0\n",
    ],
    ids=["entries", "text", "list", "open", "keys", "aliases", "hex", "digits"],
)
def test_huge_files_are_rejected_with_a_place(small: Path, problems: Problems, text: str) -> None:
    for problem in problems(text=text):
        assert problem.where.startswith("small.yaml:")
        assert len(str(problem)) < 400
