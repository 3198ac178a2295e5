"""A run that cannot be right is refused before anything is written."""

from __future__ import annotations

from pathlib import Path

import pytest
from chain_helpers import pae

CASES = {
    "not YAML": ("pae: [1", "tiny.yaml:"),
    "empty": ("", "empty"),
    "unknown component": ("tokenizer: {encoder: {use: tiny_vitt}}", "did you mean"),
    "wrong type": ("tokenizer: {train: {steps: many}}", "tokenizer.train.steps"),
    "unknown key": ("tokenizer: {trian: {steps: 3}}", "train"),
    "patch and size": ("data: {image_size: 18}", "18"),
    "decoder and size": ("tokenizer: {decoder: {patch: 8}}", "tokenizer.decoder"),
    "channels of latents and generator": ("generator: {channels: 5}", "generator"),
    "a target without refinement": ("tokenizer: {refinement: null}", "refinement"),
    "a data folder that does not exist": (
        "data: {train: {use: image_folder, folder: nowhere}}",
        "nowhere",
    ),
    "a data folder without images": (
        "data: {train: {use: image_folder, folder: hollow}}",
        "hollow",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_bad_recipe_is_refused_with_its_position_and_nothing_is_written(tmp_path: Path, case: str):
    change, expected = CASES[case]
    head = "pae: 1\nextends: quickstart\nname: tiny\n" if change and "pae:" not in change else ""
    (tmp_path / "tiny.yaml").write_text(head + change + "\n", encoding="utf-8")
    (tmp_path / "hollow").mkdir()
    before = sorted(tmp_path.rglob("*"))
    failed = pae("run", "tiny.yaml", cwd=tmp_path).fails(2)
    assert expected in " ".join(failed.err.split())
    assert ".yaml:" in failed.err or not change  # a place, in the file or in its parent
    assert sorted(tmp_path.rglob("*")) == before


def test_a_recipe_that_does_not_exist(tmp_path: Path):
    failed = pae("run", "quickstrat", cwd=tmp_path).fails(2)
    assert "quickstart" in failed.err
    assert list(tmp_path.iterdir()) == []
