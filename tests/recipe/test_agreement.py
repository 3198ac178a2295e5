"""Parts of a recipe that are each right but cannot be right together."""

from __future__ import annotations

import pytest
from recipe_cases import SMALL, Load, Problems


@pytest.mark.parametrize(
    ("overrides", "path", "message"),
    [
        # shapes: 8 px in patches of 2 are 4 x 4 tokens of width 32, latents 8 x 4 x 4
        (["data.image_size=9", "extractor=null", "evaluate=null"], "tokenizer.encoder", "9 px"),
        (
            ["tokenizer.decoder.patch=4"],
            "tokenizer.decoder",
            "decodes 4 x 4 tokens to 16 px, but images have 8 px",
        ),
        (
            ["data.image_size=4", "sample.at_steps=[]"],
            "extractor",
            "images of 4 px do not divide into patches of 8 px",
        ),
        (["generator.channels=4"], "generator", "the latents are 8 x 4 x 4"),
        (
            ["generator.channels=8", "tokenizer.bottleneck.channels=16"],
            "generator",
            "the latents are 16 x 4 x 4",
        ),
        (["generator.patch=3"], "generator", "8 x 4 x 4"),
        (
            ["tokenizer.modulator.heads=3"],
            "tokenizer.modulator.heads",
            "3 heads do not divide the width 32",
        ),
        (
            ["tokenizer.refinement.width=40", "tokenizer.refinement.heads=3"],
            "tokenizer.refinement.heads",
            "3 heads do not divide the width 40",
        ),
        # encoders that are trained in the run
        (["tokenizer.encoder.train=null"], "tokenizer.encoder", "is trained in the run"),
        (["extractor.train=null"], "extractor", "is trained in the run"),
        # regularizers
        (
            ["tokenizer.refinement=null", "tokenizer.regularizers.scr=null"],
            "tokenizer.regularizers.ssr",
            "the recipe refines none",
        ),
        (
            ["tokenizer.regularizers.kl.weight=1e-6"],
            "tokenizer.regularizers.kl",
            "needs latents with a mean and a variance, 'sphere' has none",
        ),
        (
            ["tokenizer.bottleneck=identity", "tokenizer.regularizers=null"],
            "tokenizer.refinement",
            "does not project",
        ),
        # steps whose weights are kept
        (
            ["tokenizer.train.keep_steps=[11]"],
            "tokenizer.train.keep_steps",
            "keeps weights at [11]",
        ),
        (["generator.train.keep_steps=[0]"], "generator.train.keep_steps", "keeps weights at [0]"),
        (["extractor.train.keep_steps=[11]"], "extractor.train.keep_steps", "[11]"),
        (
            ["sample.at_steps=[4, 5]"],
            "sample.at_steps",
            "no weights are kept at generator step 4, 5",
        ),
        (
            ["generator.train.steps=null", "generator.train.epochs=1"],
            "sample.at_steps",
            "generator step 10",
        ),
        # evaluators
        (["generator=null", "evaluate.generation=null"], "sample", "no generator to sample from"),
        (["sample=null"], "evaluate.generation", "judges generated images"),
        (
            ["extractor=null", "evaluate.generation=null"],
            "evaluate.reconstruction",
            "compares features of an extractor",
        ),
        (
            ["data.test={use: image_folder, folder: x}"],
            "evaluate.manifold",
            "needs images with masks, 'image_folder' has none",
        ),
    ],
)
def test_a_disagreement_is_reported_where_it_is_written(
    problems: Problems, overrides: list[str], path: str, message: str
) -> None:
    (problem,) = problems(*overrides)
    assert problem.path == path
    assert message in problem.message
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
        ["generator.train.keep_steps=[4]", "sample.at_steps=[4]"],
        ["generator=null", "sample=null", "evaluate.generation=null"],
        ["data.test={use: image_folder, folder: x}", "evaluate.manifold.ssc=false"],
        ["data.image_size=16"],
    ],
)
def test_what_does_agree_is_accepted(load: Load, overrides: list[str]) -> None:
    if overrides == ["data.image_size=16"]:
        overrides = [*overrides, "tokenizer.encoder.patch=4", "tokenizer.decoder.patch=4"]
    assert load(*overrides).recipe.name == "small"


def test_all_disagreements_come_together_each_at_its_line(problems: Problems) -> None:
    text = SMALL.replace("patch: 2}", "patch: 4}").replace("at_steps: [10]", "at_steps: [9]")
    assert [(problem.path, problem.where) for problem in problems(text=text)] == [
        ("tokenizer.decoder", "small.yaml:12:3"),
        ("sample.at_steps", "small.yaml:25:31"),
    ]
