"""Checks of an encoder that is trained with the tokenizer."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from recipe_cases import Load, Problems, unstated
from torch.utils.flop_counter import FlopCounterMode

from pae_encoders.gae_teacher import GaeTeacher
from pae_framework.build import META, build_networks
from pae_framework.dry_run.flops import Forward, count_forward, per_image
from pae_framework.preflight import requirements
from pae_framework.preflight.memory import StageMemory, training_memory
from pae_framework.runs.plan import plan

TRAINED = (
    "tokenizer.train_encoder=true",
    "tokenizer.refinement=null",
    "tokenizer.regularizers=null",
    "tokenizer.reconstruction.perceptual.weight=0",
)


@pytest.mark.parametrize("train", ["{steps: 3}", "null"], ids=["after its stage", "from scratch"])
def test_it_needs_no_stage_of_its_own(load: Load, train: str) -> None:
    recipe = load(*TRAINED, f"tokenizer.encoder.train={train}").recipe
    assert recipe.tokenizer.train_encoder


@pytest.mark.parametrize(
    ("override", "path", "facts"),
    [
        ("regularizers={scr: {}}", "regularizers.scr", ["regularizers.scr.weight=0"]),
        ("regularizers={ssr: {}}", "regularizers.ssr", ["frozen encoder"]),
        ("regularizers={vf: {}}", "regularizers.vf", ["frozen encoder"]),
        ("regularizers={mine: {use: vf}}", "regularizers.mine", ["regularizers.mine.weight=0"]),
        ("refinement={train: {steps: 2}}", "refinement", ["tokenizer.refinement=null"]),
        (
            "reconstruction.perceptual.weight=0.5",
            "reconstruction.perceptual",
            ["tokenizer.reconstruction.perceptual.weight=0"],
        ),
        ("cache_features=true", "cache_features", ["tokenizer.cache_features=false"]),
        ("modulator={use: finetune}", "modulator", ["modulator.use=none"]),
    ],
)
def test_what_needs_a_frozen_encoder_is_refused(
    problems: Problems, load: Load, override: str, path: str, facts: list[str]
) -> None:
    (found,) = problems(
        *TRAINED, "tokenizer.modulator=null", "tokenizer.modulator=none", f"tokenizer.{override}"
    )
    assert found.path == f"tokenizer.{path}"
    assert not unstated(found, *facts)


@pytest.mark.parametrize("override", ["regularizers={mcr: {}}", "regularizers={scr: {weight: 0}}"])
def test_what_needs_no_features_is_allowed(load: Load, override: str) -> None:
    load(*TRAINED, f"tokenizer.{override}")


def test_a_frozen_encoder_that_a_run_trains_still_needs_its_stage(problems: Problems) -> None:
    (problem,) = problems(*TRAINED[1:], "tokenizer.encoder.train=null")
    assert problem.path == "tokenizer.encoder"


def test_memory_counts_its_weights_gradients_moments_and_activations(load: Load) -> None:
    def of_tokenizer(*overrides: str) -> StageMemory:
        estimates = training_memory(load(*TRAINED, *overrides).recipe)
        return next(one for one in estimates if one.stage == "tokenizer")

    trained, frozen = of_tokenizer(), of_tokenizer("tokenizer.train_encoder=false")
    config = load(*TRAINED).recipe.tokenizer.encoder.config
    parameters = config.parameters(8)
    assert parameters is not None
    assert trained.trained - frozen.trained == parameters
    assert trained.weights - frozen.weights == parameters * (16 - 4)  # float32, no average
    kept = config.activations(8)
    assert trained.activations - frozen.activations == 4 * 64 * kept  # a batch of 64


def test_flops_count_its_backward_pass(load: Load) -> None:
    forward = Forward(extractor=0, encoder=10, encode=100, decode=1000, generator=0)
    recipe = load(*TRAINED, "generator=null", "sample=null", "evaluate={reconstruction: {}}").recipe
    frozen = load(
        *TRAINED,
        "tokenizer.train_encoder=false",
        "generator=null",
        "sample=null",
        "evaluate={reconstruction: {}}",
    ).recipe
    assert per_image(forward, frozen)["tokenizer"] == 10 + 3 * 1100
    assert per_image(forward, recipe)["tokenizer"] == 3 * 1110


LDM = (
    "extractor.depth=1",
    *TRAINED,
    "data.image_size=32",
    "tokenizer.encoder=null",
    "tokenizer.encoder={use: ldm_cnn, channels: 32, multipliers: [1, 1, 1, 1, 1]}",
    "tokenizer.modulator=null",
    "tokenizer.modulator=none",
    "tokenizer.bottleneck=null",
    "tokenizer.bottleneck=diagonal_gaussian",
    "tokenizer.decoder=null",
    "tokenizer.decoder={use: ldm_cnn, channels: 32, multipliers: [1, 1, 1, 1, 1]}",
    "evaluate={reconstruction: {}}",
    "generator=null",
    "sample=null",
)


def test_a_convolutional_pair_needs_neither_projector_nor_stage(load: Load) -> None:
    recipe = load(*LDM, "tokenizer.regularizers={kl: {weight: 1e-6}}").recipe
    assert not recipe.tokenizer.bottleneck.config.projects


def test_memory_of_a_generator_that_encodes_counts_the_decoder_of_the_tokenizer(load: Load) -> None:
    """The decoder reads latents of half the encoder's width."""

    def of_generator(*overrides: str) -> StageMemory:
        changes = ("evaluate=null", "sample=null", *overrides)
        estimates = training_memory(load(*LDM[:-3], *changes).recipe)
        return next(one for one in estimates if one.stage == "generator")

    tokenizer = load(*LDM).recipe.tokenizer
    encoder, decoder = tokenizer.encoder.config, tokenizer.decoder.config
    width = encoder.token_width() // 2
    parameters = encoder.parameters(32) + decoder.parameters(width, 2)
    more = of_generator("latents.stored=false").weights - of_generator().weights
    assert more == 4 * parameters  # float32


@pytest.mark.parametrize(
    ("override", "path", "facts"),
    [
        ("tokenizer.train_encoder=false", "tokenizer.encoder", ["tokenizer.train_encoder=true"]),
        ("data.image_size=30", "tokenizer.encoder", ["30 px", "divisible by 16"]),
        ("tokenizer.decoder.multipliers=[1, 1]", "tokenizer.decoder", ["4 px"]),
        ("tokenizer.decoder.attention=6", "tokenizer.decoder", ["6", "5 levels"]),
    ],
)
def test_what_does_not_fit_the_convolutional_pair_is_refused(
    problems: Problems, override: str, path: str, facts: list[str]
) -> None:
    (problem,) = problems(*LDM, override)
    assert problem.path == path
    assert not unstated(problem, *facts)


IDENTITY = ("tokenizer.bottleneck=null", "tokenizer.bottleneck={use: identity}")
PLAIN = ("tokenizer.modulator=null", "tokenizer.modulator=none")


@pytest.mark.parametrize("settings", ["statistics_images: 7", "statistics: stat.pt"])
def test_a_trained_encoder_has_no_statistics_of_its_training_images(
    problems: Problems, load: Load, settings: str
) -> None:
    given = f"tokenizer.bottleneck={{use: identity, {settings}}}"
    (problem,) = problems(*TRAINED, *PLAIN, IDENTITY[0], given)
    assert problem.path == "tokenizer.bottleneck"
    assert not unstated(problem, "identity", "train_encoder=false", "bottleneck.use=sphere")
    load(*TRAINED, *PLAIN, *IDENTITY, "tokenizer.train_encoder=false")
    load(*TRAINED, *PLAIN, *IDENTITY, "tokenizer.weights=t.pt")


def test_an_adaptive_weight_is_measured_at_the_last_layer_before_the_latents(
    problems: Problems, load: Load
) -> None:
    adaptive = (*LDM, VF, TEACHER)
    load(*adaptive)
    modulator = "tokenizer.modulator={use: dam, depth: 1, heads: 4}"
    (problem,) = problems(*adaptive, "tokenizer.modulator=null", modulator)
    assert problem.path == "tokenizer.regularizers.vf"
    assert not unstated(
        problem, "diagonal_gaussian", "train_encoder", "ldm_cnn", "modulator", "adaptive=false"
    )
    load(
        *adaptive, "tokenizer.modulator=null", modulator, "tokenizer.regularizers.vf.adaptive=false"
    )


def test_it_is_no_extractor(problems: Problems) -> None:
    extractor = "extractor={use: ldm_cnn, channels: 32, multipliers: [1, 1], train: null}"
    (problem,) = problems("extractor=null", extractor, "data.image_size=8")
    assert problem.path == "extractor"


def test_an_encoder_that_keeps_a_part_frozen_is_not_trained_whole(problems: Problems) -> None:
    encoder = "{use: gae_teacher, weights: none, size: {width: 24, depth: 2, heads: 2}}"
    found = problems(*TRAINED, f"tokenizer.encoder={encoder}")
    (problem,) = (problem for problem in found if "frozen" in problem.message)
    assert (problem.path, problem.hint) == (
        "tokenizer.encoder",
        "set tokenizer.train_encoder=false",
    )


TEACHER = "tokenizer.teacher={use: dinov2, weights: none, size: {width: 24, depth: 2, heads: 2}}"
VF = "tokenizer.regularizers={vf: {}}"
TRAINED_TEACHER = (
    "tokenizer.teacher={use: gae_teacher, weights: none, channels: 6, train: {steps: 7}, "
    "size: {width: 24, depth: 2, heads: 2}}"
)


def test_with_a_teacher_the_encoder_may_be_trained_and_aligned(load: Load) -> None:
    load(*LDM, VF, TEACHER)
    load(*LDM, "tokenizer.regularizers={scr: {}}", "tokenizer.target=raw", TEACHER)


@pytest.mark.parametrize(
    ("changes", "path", "facts"),
    [
        (
            [VF, TRAINED_TEACHER, "tokenizer.teacher.train=null"],
            "teacher",
            ["train={steps"],
        ),
        ([VF, TRAINED_TEACHER, "tokenizer.teacher.window=3"], "teacher", ["3", "2 tokens"]),
        (
            [VF, TRAINED_TEACHER, "tokenizer.teacher.preprocessing=signed"],
            "teacher.preprocessing",
            ["preprocessing=own"],
        ),
        ([VF, "tokenizer.teacher=ldm_cnn"], "teacher", ["ldm_cnn", "dinov2"]),
        ([VF, TEACHER, "tokenizer.teacher.train={steps: 1}"], "teacher.train", ["=null"]),
        ([TEACHER], "teacher", ["set tokenizer.teacher=null"]),
        (["tokenizer.regularizers={kl: {}}", TEACHER], "teacher", ["tokenizer.teacher=null"]),
        (
            [VF, "tokenizer.teacher={use: convnextv2, weights: none}"],
            "teacher",
            ["1 x 1", "2 x 2"],
        ),
    ],
)
def test_a_teacher_that_cannot_teach_is_refused(
    problems: Problems, changes: list[str], path: str, facts: list[str]
) -> None:
    (problem,) = problems(*LDM, *changes)
    assert problem.path == f"tokenizer.{path}"
    assert not unstated(problem, *facts)


def test_a_teacher_may_be_trained_in_a_stage_of_its_own(load: Load) -> None:
    def stages(*overrides: str) -> dict[str, tuple[str, ...]]:
        loaded = load(*LDM, VF, *overrides)
        return {one.name: one.inputs for one in plan(loaded.recipe, loaded.registry)}

    assert "teacher" in stages(TRAINED_TEACHER)["tokenizer"]
    assert "teacher" not in stages(TEACHER)
    assert "teacher" not in stages(TRAINED_TEACHER, "tokenizer.weights=t.pt")


def test_another_training_of_the_teacher_is_another_tokenizer(load: Load) -> None:
    def fingerprints(*overrides: str) -> dict[str, str]:
        loaded = load(*LDM, VF, TRAINED_TEACHER, *overrides)
        planned = plan(loaded.recipe, loaded.registry)
        return {one.name: one.fingerprint for one in planned}

    one, other = fingerprints(), fingerprints("tokenizer.teacher.train.steps=8")
    assert {name for name in one if one[name] == other[name]} == {"extractor"}


def test_a_refined_target_needs_a_frozen_encoder_even_with_a_teacher(problems: Problems) -> None:
    found = problems(*LDM, "tokenizer.regularizers={scr: {}}", TEACHER)
    assert "tokenizer.regularizers.scr" in {problem.path for problem in found}


def test_flops_and_memory_count_a_teacher_once(load: Load) -> None:
    def of_tokenizer(*overrides: str) -> StageMemory:
        estimates = training_memory(load(*LDM, *overrides).recipe)
        return next(one for one in estimates if one.stage == "tokenizer")

    forward = Forward(0, 100, 1000, 0, encoder=10, teacher=7)
    without = "tokenizer.regularizers={kl: {}}"
    assert per_image(forward, load(*LDM, VF, TEACHER).recipe)["tokenizer"] == 3 * 1110 + 7
    config = load(*LDM, VF, TEACHER).recipe.tokenizer.teacher
    assert config is not None
    parameters = config.config.parameters(32)
    assert parameters is not None
    taught = of_tokenizer(VF, TEACHER)
    assert taught.weights - of_tokenizer(without).weights == 4 * parameters


def test_weights_are_either_loaded_or_trained(load: Load, problems: Problems) -> None:
    start = "tokenizer.initial_weights=a.pt"
    load(*TRAINED, start)
    (problem,) = problems(*TRAINED, start, "tokenizer.weights=b.pt")
    assert problem.path == "tokenizer.initial_weights"


def test_other_initial_weights_are_another_tokenizer(load: Load, tmp_path: Path) -> None:
    """The fingerprint is of the contents of the file, not of its name; null changes nothing."""

    def fingerprint(*overrides: str) -> str:
        loaded = load(*overrides)
        stages = plan(loaded.recipe, loaded.registry)
        return next(stage.folder for stage in stages if stage.name == "tokenizer")

    files = [tmp_path / name for name in ("a.pt", "b.pt", "c.pt")]
    for file, content in zip(files, (b"same", b"same", b"other"), strict=True):
        file.write_bytes(content)
    a, b, c = (fingerprint(f"tokenizer.initial_weights={file}") for file in files)
    assert a == b != c
    assert fingerprint() == fingerprint("tokenizer.initial_weights=null")
    assert len({a, c, fingerprint()}) == 3


def test_a_trained_teacher_counts_its_frozen_network_once(load: Load) -> None:
    """Of the rest: weights, gradients and two moments in memory; FLOPs of three passes."""
    loaded = load(*LDM, VF, TRAINED_TEACHER)
    networks = build_networks(loaded.recipe, loaded.registry, 10)
    teacher = networks.teacher
    assert isinstance(teacher, GaeTeacher)
    counts = {
        trained: sum(w.numel() for w in teacher.parameters() if w.requires_grad == trained)
        for trained in (True, False)
    }
    estimates = {one.stage: one for one in training_memory(loaded.recipe)}
    assert estimates["teacher"].trained == counts[True]
    weights = 16 * counts[True] + 4 * counts[False]
    assert estimates["teacher"].weights == pytest.approx(weights, rel=1e-3)

    forward = count_forward(networks, loaded.recipe)
    with META, torch.no_grad(), FlopCounterMode(display=False) as neck:
        teacher.compress(torch.empty(1, teacher.grid**2, teacher.base.width))
    expected = forward.teacher + 2 * neck.get_total_flops()
    assert per_image(forward, loaded.recipe)["teacher"] == pytest.approx(expected, rel=0.05)
    other = load(*LDM, VF, TEACHER)
    frozen = count_forward(build_networks(other.recipe, other.registry, 10), other.recipe)
    assert frozen.taught == 0 < frozen.teacher


def test_a_teacher_that_is_trained_needs_no_pretrained_weights(
    load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = load(*LDM, VF, TRAINED_TEACHER, "tokenizer.teacher.weights=absent.pth")
    rest = frozenset({"tokenizer", "evaluate"})
    for stages, needed in ((rest | {"teacher"}, True), (rest, False)):
        monkeypatch.setattr(requirements, "unfinished_stages", lambda *a, s=stages: s)
        missing = [problem.path for problem in requirements.missing_requirements([loaded])]
        assert ("tokenizer.teacher" in missing) == needed
