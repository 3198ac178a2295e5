"""Checks between sections of a recipe whose single values are valid."""

from __future__ import annotations

from pathlib import Path

import pytest
from recipe_cases import SMALL, Load, Problems, unstated

from pae_framework.config import GeneratorConfig
from pae_framework.errors import RecipeError
from pae_framework.plugins import load_registry
from pae_framework.recipe.load import load_recipe
from pae_framework.registry import ComponentSpec, Plugin, Registry


@pytest.mark.parametrize(
    ("overrides", "path", "facts"),
    [
        # shapes: 8 px in patches of 2 are 4 x 4 tokens of width 32, latents 8 x 4 x 4
        (["data.image_size=9", "extractor=null", "evaluate=null"], "tokenizer.encoder", ["9 px"]),
        (
            ["tokenizer.decoder.patch=4"],
            "tokenizer.decoder",
            ["4 x 4", "16 px", "data.image_size is 8"],
        ),
        (
            ["data.image_size=4", "sample.at_steps=[]"],
            "extractor",
            ["images of 4 px", "patches of 8 px"],
        ),
        (["generator.channels=4"], "generator", ["8 x 4 x 4"]),
        (
            ["generator.channels=8", "tokenizer.bottleneck.channels=16"],
            "generator",
            ["16 x 4 x 4"],
        ),
        (["generator.patch=3"], "generator", ["8 x 4 x 4"]),
        (
            ["tokenizer.modulator.heads=3"],
            "tokenizer.modulator.heads",
            ["3 heads", "width 32", "set tokenizer.modulator.heads=2"],
        ),
        (
            ["tokenizer.refinement.width=40", "tokenizer.refinement.heads=3"],
            "tokenizer.refinement.heads",
            ["3 heads", "width 40", "set tokenizer.refinement.heads=2"],
        ),
        (  # without heads of its own, it has those of the encoder
            ["tokenizer.encoder.heads=8", "tokenizer.refinement.width=36"],
            "tokenizer.refinement.heads",
            ["encoder's 8 heads", "width 36", "set tokenizer.refinement.heads=6"],
        ),
        (  # 104 channels, 104 // 32 = 3 heads
            ["tokenizer.encoder={use: small_cnn, width: 104, depth: 1, train: {steps: 1}}"],
            "tokenizer.encoder",
            ["3 heads", "width 104"],
        ),
        (["tokenizer.refinement.width=30"], "tokenizer.refinement.width", ["a multiple of 4"]),
        # encoders that are trained in the run
        (
            ["tokenizer.encoder.train=null"],
            "tokenizer.encoder",
            ["'tiny_vit'", "set tokenizer.encoder.train={"],
        ),
        (["extractor.train=null"], "extractor", ["'small_cnn'", "set extractor.train={"]),
        # regularizers
        (
            ["tokenizer.refinement=null", "tokenizer.regularizers.scr=null"],
            "tokenizer.regularizers.ssr",
            ["no tokenizer.refinement", "set tokenizer.target=raw"],
        ),
        (
            ["tokenizer.regularizers.kl.weight=1e-6"],
            "tokenizer.regularizers.kl",
            ["a mean and a variance", "'sphere'", "set tokenizer.bottleneck.use=gaussian"],
        ),
        (
            ["tokenizer.bottleneck=identity", "tokenizer.regularizers=null"],
            "tokenizer.refinement",
            ["'identity'", "set tokenizer.refinement=null"],
        ),
        (
            ["tokenizer.regularizers.mcr.weight=1", "tokenizer.bottleneck.channels=1"],
            "tokenizer.regularizers.mcr",
            ["2 channels or more", "1 x 4 x 4"],
        ),
        # losses without a term
        (
            ["tokenizer.refinement.reproduction=0", "tokenizer.refinement.gram=0"],
            "tokenizer.refinement",
            ["both 0"],
        ),
        (
            [
                "tokenizer.reconstruction={l1: 0, perceptual: {weight: 0}}",
                "tokenizer.regularizers={ssr: {weight: 0}}",
            ],
            "tokenizer.reconstruction",
            ["every term", "weight 0", "set tokenizer.reconstruction.l1=1"],
        ),
        # steps whose weights are kept
        (
            ["tokenizer.train.keep_steps=[11]"],
            "tokenizer.train.keep_steps",
            ["11", "(10)", "set tokenizer.train.keep_steps=[]"],
        ),
        (
            ["extractor.train.keep_steps=[11]"],
            "extractor.train.keep_steps",
            ["11", "(10)", "set extractor.train.keep_steps=[]"],
        ),
        (
            ["sample.at_steps=[4, 5]"],
            "sample.at_steps",
            ["step 4, 5", "set generator.train.keep_steps=[4, 5]"],
        ),
        (
            ["tokenizer.train.keep_steps=[4, 12, 11]"],
            "tokenizer.train.keep_steps",
            ["12, 11", "(10)", "set tokenizer.train.keep_steps=[4]"],
        ),
        *(  # of a `train` map that the run does not use, too
            (
                [*unused, f"{train}.keep_steps=[50]"],
                f"{train}.keep_steps",
                ["50", "(10)", f"set {train}.keep_steps=[]"],
            )
            for unused, train in (
                (["generator.weights=gen.pt", "sample.at_steps=[]"], "generator.train"),
                (["tokenizer.weights=tok.pt"], "tokenizer.train"),
                (["tokenizer.target=raw"], "tokenizer.refinement.train"),
            )
        ),
        (
            ["sample.at_steps=[10, 11]"],
            "sample.at_steps",
            ["step 11", "set sample.at_steps=[10]"],
        ),
        (
            ["generator.train.steps=null", "generator.train.epochs=1"],
            "sample.at_steps",
            ["step 10", "set generator.train.keep_steps=[10]"],
        ),
        (  # 23 steps of 64 images are one epoch of the 1442 digits
            ["tokenizer.train={epochs: 1, keep_steps: [23, 24]}"],
            "tokenizer.train.keep_steps",
            ["24", "(23)", "set tokenizer.train.keep_steps=[23]"],
        ),
        # snapshots of averages, which are exported of the generator and tokenizer only
        *(
            ([f"{key}={{every: {every}}}"], f"{key}{path}", facts)
            for key, every, path, facts in (
                ("extractor.train.ema_snapshots", 5, "", ["generator and tokenizer", "=null"]),
                (
                    "tokenizer.refinement.train.ema_snapshots",
                    1,
                    "",
                    ["generator and tokenizer", "=null"],
                ),
                ("generator.train.ema_snapshots", 11, ".every", ["11", "(10)"]),
                ("tokenizer.train.ema_snapshots", 1000, ".every", ["1000", "(10)"]),
            )
        ),
        # warm-ups
        *(
            (
                [f"{train}.warmup_steps=11"],
                f"{train}.warmup_steps",
                ["11", "(10)", f"set {train}.warmup_steps=1"],
            )
            for train in ("extractor.train", "tokenizer.train", "generator.train")
        ),
        (
            ["tokenizer.train={epochs: 2, warmup_steps: 46}"],
            "tokenizer.train.warmup_steps",
            ["46", "(45)", "set tokenizer.train.warmup_steps=4"],
        ),
        # decays, compared by the number of images
        (
            ["generator.train.warmup_steps=5", "generator.train.decay_from={epochs: 0.1}"],
            "generator.train.decay_from",
            ["epoch 0.1", "step 2", "step 5", "set generator.train.decay_from={steps: 5}"],
        ),
        (
            ["tokenizer.train={steps: 9, decay_from: {steps: 46}, decay_to: {epochs: 2}}"],
            "tokenizer.train.decay_to",
            ["epoch 2", "step 45", "step 46", "set tokenizer.train.decay_to={steps: 47}"],
        ),
        # decays to the last of 10 steps (9, the first is 0), which start too late to be seen
        *(
            (
                [f"{train}.decay_from={{steps: {step}}}"],
                f"{train}.decay_from",
                [f"step {step}", "(9)", f"{train}.decay_from"],
            )
            for train in ("extractor.train", "tokenizer.train", "generator.train")
            for step in (9, 10, 1000)
        ),
        (
            ["tokenizer.train={steps: 20, schedule: linear, decay_from: {epochs: 1}}"],
            "tokenizer.train.decay_from",
            ["epoch 1", "(19)"],
        ),
        (
            [
                "data.train={use: image_folder, folder: x}",
                "tokenizer.train={epochs: 2, decay_from: {epochs: 2}}",
            ],
            "tokenizer.train.decay_from",
            ["epoch 2"],
        ),
        # views of images: 8 px; stored latents and features are of whole images
        *(
            (
                [f"{train}.crop_from=8"],
                f"{train}.crop_from",
                ["8 px", f"set {train}.crop_from=12"],
            )
            for train in ("extractor.train", "tokenizer.train")
        ),
        (["generator.train.crop_from=12"], "generator.train.crop_from", ["latents.stored=false"]),
        (
            ["generator.train.flip=true"],
            "generator.train.flip",
            ["set data.flip=true", "latents.stored=false"],
        ),
        (
            ["tokenizer.cache_features=true", "tokenizer.train.crop_from=12"],
            "tokenizer.train.crop_from",
            ["tokenizer.cache_features=false"],
        ),
        (
            ["tokenizer.cache_features=true", "tokenizer.train.flip=true"],
            "tokenizer.train.flip",
            ["tokenizer.cache_features=false"],
        ),
        # latents
        (
            ["latents.statistics=stats.pt"],
            "latents.statistics",
            ["generator.weights", "latents.stored=false"],
        ),
        (
            ["latents.stored=false", "evaluate.interpolation={}"],
            "evaluate.interpolation",
            ["latents.stored"],
        ),
        # more images than there are
        (
            ["data.test_images=356"],
            "data.test_images",
            ["355 images", "356", "set data.test_images=null"],
        ),
        (
            ["data.test={use: shapes, split: test, count: 20}", "data.test_images=21"],
            "data.test_images",
            ["20 images", "21"],
        ),
        (["evaluate.manifold.images=356"], "evaluate.manifold", ["`images`", "356", "355"]),
        (
            [
                "data.test={use: shapes, split: test, count: 30}",
                "evaluate.manifold.draw_images=31",
            ],
            "evaluate.manifold",
            ["`draw_images`", "31", "30 test images"],
        ),
        (
            [
                "data.train={use: shapes, split: train, count: 30}",
                "evaluate.interpolation.neighbors=31",
            ],
            "evaluate.interpolation",
            ["`neighbors`", "31", "30 training images"],
        ),
        (["sample.count=9"], "sample.count", ["9", "10 classes", "set sample.count=10"]),
        # labels
        (
            ["generator.classes=7"],
            "generator",
            ["7 classes", "data.train has 10", "set generator.classes=10"],
        ),
        (
            ["data.train={use: image_folder, folder: x, classes: 4}", "generator.classes=5"],
            "generator",
            ["5 classes", "data.train has 4", "set generator.classes=4"],
        ),
        # evaluators
        (
            ["generator=null", "evaluate.generation=null"],
            "sample",
            ["no generator", "set sample=null"],
        ),
        (
            ["sample=null"],
            "evaluate.generation",
            ["'generation'", "`sample`", "set evaluate.generation=null"],
        ),
        (
            [
                "generator=null",
                "sample=null",
                "evaluate.generation=null",
                "evaluate.adm.weights=none",
            ],
            "evaluate.adm",
            ["'adm'", "`generator`", "set evaluate.adm=null"],
        ),
        (
            ["extractor=null", "extractor={use: inception, weights: none, train: {steps: 1}}"],
            "extractor.train",
            ["'inception'", "set extractor.train=null"],
        ),
        (
            ["extractor=null", "evaluate.generation=null"],
            "evaluate.reconstruction",
            ["'reconstruction'", "`extractor`", "set evaluate.reconstruction=null"],
        ),
        (
            [
                "latents.statistics=l.pt",
                *("generator.weights=g.pt", "sample.at_steps=[]"),
                "evaluate.interpolation={}",
            ],
            "evaluate.interpolation",
            ["'interpolation'", "latents.statistics", "set evaluate.interpolation=null"],
        ),
        (
            ["data.test={use: image_folder, folder: x}"],
            "evaluate.manifold",
            ["masks", "'image_folder'", "data.test.masks", "set evaluate.manifold.ssc=false"],
        ),
    ],
)
def test_an_inconsistency_is_reported_at_its_key(
    problems: Problems, overrides: list[str], path: str, facts: list[str]
) -> None:
    (problem,) = problems(*overrides)
    assert problem.path == path
    assert unstated(problem, *facts) == []
    assert problem.where == "command line" or problem.where.startswith("small.yaml:")


@pytest.mark.parametrize(
    "overrides",
    [
        [
            "tokenizer.refinement=null",
            "tokenizer.regularizers.ssr.weight=0",
            "tokenizer.regularizers.scr=null",
        ],
        [
            "tokenizer.bottleneck={use: gaussian, channels: 4}",
            "tokenizer.regularizers.kl.weight=1e-6",
        ],
        [
            "tokenizer.bottleneck=identity",
            "tokenizer.regularizers=null",
            "tokenizer.refinement=null",
        ],
        ["tokenizer.regularizers.mcr.weight=0", "tokenizer.bottleneck.channels=1"],
        [
            "tokenizer.encoder.heads=8",
            "tokenizer.refinement={width: 36, heads: 3, gram: 0, train: {steps: 1}}",
        ],
        ["tokenizer.reconstruction={l1: 0, perceptual: {weight: 0}}"],
        ["generator.train.keep_steps=[4]", "sample.at_steps=[4]"],
        ["generator.classes=10"],
        ["generator.classes=0"],
        ["data.train={use: image_folder, folder: x}", "generator.classes=5"],
        ["generator=null", "sample=null", "evaluate.generation=null"],
        ["data.test={use: image_folder, folder: x}", "evaluate.manifold.ssc=false"],
        ["evaluate.interpolation={neighbors: 3}", "latents.folder=x"],
        [
            *("generator=null", "sample=null", "evaluate.generation=null"),
            "evaluate.interpolation={}",
        ],
        ["data.image_size=16"],
        ["tokenizer.train.warmup_steps=10"],
        ["tokenizer.train={epochs: 2, warmup_steps: 45, keep_steps: [45]}"],
        ["tokenizer.train={steps: 25, schedule: linear, decay_from: {epochs: 1}}"],
        ["tokenizer.train={steps: 9, decay_from: {steps: 40}, decay_to: {steps: 50}}"],
        ["tokenizer.train.decay_from={steps: 8}"],
        ["generator.train.ema_snapshots={every: 10}", "tokenizer.train.ema_snapshots={every: 1}"],
        [
            "data.train={use: image_folder, folder: x}",
            "tokenizer.train={epochs: 2, decay_from: {epochs: 1}}",
        ],
        ["tokenizer.train.crop_from=12", "tokenizer.train.flip=true"],
        ["data.flip=true", "generator.train.flip=true", "tokenizer.train.flip=false"],
        ["latents={stored: false, statistics: s.pt}", "generator.train.crop_from=12"],
        ["latents.stored=false", "generator.train.flip=true"],
        ["data.test_images=355", "evaluate.manifold={images: 355, draw_images: 355}"],
        ["data.test_images=20"],  # the default of `images` is at most 500
        ["data.test_images=20", "evaluate.manifold.images=30"],
        ["evaluate.interpolation.neighbors=1000"],
        ["latents.folder=latents", "evaluate.interpolation.neighbors=1000"],
        ["sample={count: 9, labels: uniform}"],
        ["extractor=null", "extractor={use: inception, weights: none}"],
        ["evaluate.adm.weights=none", "evaluate.fidelity={reference: r.npz, weights: w.pth}"],
        ["tokenizer.reconstruction.perceptual.layers=[0, 3]"],
    ],
)
def test_consistent_recipes_are_valid(load: Load, overrides: list[str]) -> None:
    if overrides == ["data.image_size=16"]:
        overrides = [*overrides, "tokenizer.encoder.patch=4", "tokenizer.decoder.patch=4"]
    assert load(*overrides).recipe.name == "small"


class OfSevenConfig(GeneratorConfig):
    """A generator for 7 classes; it has no setting `classes`."""

    def stated_classes(self) -> int:
        return 7


def test_the_remedy_for_classes_is_a_setting_that_the_generator_has(small: Path) -> None:
    registry = load_registry()
    plugin = Plugin("seven", __name__, "seven", "1")
    config = f"{__name__}:OfSevenConfig"
    registry.add(ComponentSpec("generator", "seven", "absent:x", config, "", plugin))
    changes = ["generator={use: seven, train: {steps: 10}}", "data.train={use: shapes, count: 8}"]
    with pytest.raises(RecipeError) as caught:
        load_recipe(small, changes, registry)
    (problem,) = caught.value.problems
    assert problem.path == "generator"
    assert unstated(problem, "7 classes") == []
    assert "generator.classes" not in problem.hint


def test_all_inconsistencies_are_reported_at_once(problems: Problems) -> None:
    text = SMALL.replace("patch: 2}", "patch: 4}").replace("at_steps: [10]", "at_steps: [9]")
    assert [(problem.path, problem.where) for problem in problems(text=text)] == [
        ("tokenizer.decoder", "small.yaml:12:3"),
        ("sample.at_steps", "small.yaml:25:31"),
    ]


@pytest.mark.parametrize(
    ("name", "parameters"),
    [("tiny_vit", {"width": 48, "heads": 4, "depth": 1}), ("small_cnn", {"width": 48, "depth": 2})],
)
def test_encoders_have_the_heads_and_width_of_their_configs(
    registry: Registry, name: str, parameters: dict[str, int]
) -> None:
    spec = registry.find("encoder", name)
    config = spec.config_class().model_validate(parameters)
    encoder = spec.component_class()(config, 8)
    assert (config.token_heads(), config.token_width()) == (encoder.heads, encoder.width)
