"""Files of weights count by what is in them: they may move, and a namesake is another file."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from plan_helpers import FROM_REFINE, FROM_TOKENIZER, fingerprints
from quickstart_stages import QUICKSTART_STAGES

ENCODER = (
    "tokenizer.encoder={{use: mae, model: vit_base_patch16_224, weights: {file},"
    " size: {{width: 48, depth: 2, heads: 2}}, input_size: 64}}",
    "tokenizer.decoder.patch=4",
)
LPIPS = ("tokenizer.reconstruction.lpips={{weight: 1, weights: {file}}}",)
DISCRIMINATOR = ("tokenizer.adversarial={{discriminator: {{use: dino, weights: {file}}}}}",)
TOKENIZER = ("tokenizer.weights={file}",)
ANYUP = (
    "tokenizer.refinement.upsampler=anyup",
    "tokenizer.refinement.anyup={{checkout: anyup, weights: {file}}}",
)
KINDS = {
    "encoder": (ENCODER, FROM_REFINE),
    "lpips": (LPIPS, FROM_TOKENIZER),
    "discriminator": (DISCRIMINATOR, FROM_TOKENIZER),
    "tokenizer": (TOKENIZER, FROM_TOKENIZER),
    "anyup": (ANYUP, FROM_REFINE),
}


@pytest.mark.parametrize("kind", KINDS)
def test_files_count_by_their_contents(tiny_recipe: Path, tmp_path: Path, kind: str) -> None:
    overrides, affected = KINDS[kind]
    here, there = tmp_path / "weights.safetensors", tmp_path / "elsewhere" / "w.safetensors"

    def stages(file: Path) -> dict[str, str]:
        return fingerprints(tiny_recipe, *(text.format(file=file) for text in overrides))

    here.write_bytes(b"first")
    first = stages(here)
    there.parent.mkdir()
    shutil.move(here, there)
    assert stages(there) == first

    here.write_bytes(b"other")
    other = stages(here)
    assert {name for name in other if other[name] != first[name]} == affected


def test_a_missing_file_counts_by_its_name(tiny_recipe: Path) -> None:
    one, two = (fingerprints(tiny_recipe, LPIPS[0].format(file=f"./{name}")) for name in "ab")
    assert {name for name in one if one[name] != two[name]} == FROM_TOKENIZER


@pytest.mark.parametrize("word", ["default", "none"])
def test_tags_of_weights_are_not_file_names(
    tiny_recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, word: str
) -> None:
    monkeypatch.chdir(tmp_path)
    overrides = [text.format(file=word) for text in (*LPIPS, *DISCRIMINATOR)]
    before = fingerprints(tiny_recipe, *overrides)
    assert set(before) == set(QUICKSTART_STAGES)
    (tmp_path / word).write_bytes(b"not meant")
    assert fingerprints(tiny_recipe, *overrides) == before
