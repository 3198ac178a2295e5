"""How many stages the members of a sweep have, by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from pae_framework.recipe.load import load_recipe
from pae_framework.recipe.sweep import expand
from pae_framework.runs.sweep_size import SweepSize, planned_size, sweep_size


@pytest.mark.parametrize(
    ("folders", "size"),
    [
        ([], SweepSize(0, 0, 0)),
        ([["a", "b"]], SweepSize(1, 2, 0)),
        ([["a", "b"], ["a", "c"]], SweepSize(2, 3, 1)),
        ([["a", "b"], ["a", "b"], ["a"]], SweepSize(3, 2, 2)),
        ([["a", "a"], ["b"]], SweepSize(2, 2, 0)),
    ],
)
def test_a_stage_counts_once_and_is_shared_from_two_members_on(
    folders: list[list[str]], size: SweepSize
) -> None:
    assert sweep_size(folders) == size


def test_seeds_share_what_comes_before_the_tokenizer(tmp_path: Path) -> None:
    path = tmp_path / "sweep.yaml"
    variants = "{plain: {}, long: {generator.width: 48}}"
    text = f"pae: 1\nextends: quickstart\nsweep: {{seeds: [0, 1], variants: {variants}}}\n"
    path.write_text(text, encoding="utf-8")
    members = [member.loaded for member in expand(load_recipe(path))]
    # Of each seed, both variants share tokenizer and latents; generator, sample, evaluate and
    # report are of one member. Extractor, encoder and refinement are of all.
    assert planned_size(members, tmp_path / "stages") == SweepSize(4, 3 + 2 * 2 + 4 * 4, 3 + 2 * 2)
