"""Which trainings of a recipe may be shared by processes, and how."""

from __future__ import annotations

from pathlib import Path

import pytest

from pae_framework.errors import RecipeError
from pae_framework.preflight.processes import Sharing
from pae_framework.recipe.load import load_recipe

TRAINED = {
    "extractor": 64,
    "tokenizer.encoder": 64,
    "tokenizer.refinement": 32,
    "tokenizer": 32,
    "generator": 32,
}
"""Trainings of quickstart and their batch sizes."""


@pytest.mark.parametrize("path", [path for path in TRAINED if path != "tokenizer"])
def test_weights_that_only_a_forward_pass_uses_may_be_sharded(path: str) -> None:
    load_recipe("quickstart", [f"{path}.train.parallel=fsdp"])


def test_weights_of_the_tokenizer_may_not_be_sharded() -> None:
    with pytest.raises(RecipeError) as caught:
        load_recipe("quickstart", ["tokenizer.train.parallel=fsdp"])
    (problem,) = caught.value.problems
    assert problem.path == "tokenizer.train.parallel"
    assert "adaptive weights" in problem.message
    assert "tokenizer.train.parallel=ddp" in (problem.hint or "")


@pytest.mark.parametrize("processes", [1, 2, 16, 17, 32, 33, 64, 65])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_every_process_needs_an_image_of_each_micro_batch(
    tmp_path: Path, processes: int, accumulate: int
) -> None:
    loaded = load_recipe("quickstart", [f"{p}.train.accumulate={accumulate}" for p in TRAINED])
    problems = Sharing([loaded], tmp_path, processes).impossible()
    too_small = {
        f"{path}.train.batch_size"
        for path, size in TRAINED.items()
        if size // accumulate < processes
    }
    assert {problem.path for problem in problems} == too_small
    for problem in problems:
        assert f"{processes} processes" in problem.message
        assert f"set {problem.path}={processes * accumulate} or more" in (problem.hint or "")
