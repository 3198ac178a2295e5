"""A tokenizer without a generator is evaluated with the latents of its training images."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from chain_helpers import pae

ALONE = (
    *("generator=null", "sample=null", "evaluate.generation=null", "evaluate.few_steps=null"),
    *("evaluate.manifold=null", "evaluate.interpolation={}"),
)


@pytest.mark.slow
def test_ifd_of_a_tokenizer_alone(tiny_recipe: Path, tmp_path: Path) -> None:
    pae("run", tiny_recipe, *ALONE, "--run-dir", "one", cwd=tmp_path).ok()
    metrics = json.loads((tmp_path / "one/evaluate/results.json").read_text(encoding="utf-8"))
    ifd = next(metric for metric in metrics if metric["label"] == "iFD")
    assert ifd["value"] > 0
    assert ifd["protocol"]["training_latents"] == 1442
    assert not (tmp_path / "one/generator").exists()
