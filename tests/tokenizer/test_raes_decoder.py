"""RAE's files: a decoder alone and statistics per position make a whole tokenizer.

The decoder's tensors are those of the golden file: RAE's decoder is PAE's (a class that both use).
No released file was at hand.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from layouts import tiny_tokenizer as helpers
from torch import Tensor

from pae_framework.errors import CheckpointError, DataError
from pae_framework.interop.tokenizer_weights import (
    TokenizerWeights,
    match_recipe,
    read_released,
    whole_tokenizer,
)
from pae_framework.recipe.models import Recipe
from pae_framework.recipe.yaml_source import parse

REGISTRY = helpers.registry_with_renamed()
RANDOM = torch.Generator().manual_seed(0)
VAR = torch.rand(32, 4, 4, generator=RANDOM)
MEAN = torch.randn(32, 4, 4, generator=RANDOM)


def decoder() -> dict[str, Tensor]:
    """As RAE saves it: names without a prefix."""
    part = helpers.tokenizer_part().items()
    return {name.removeprefix("decoder."): x for name, x in part if name.startswith("decoder.")}


def recipe(statistics: Path | None, **changes: object) -> Recipe:
    root, _ = parse(helpers.RECIPE, position=lambda line, column: "here")
    assert root is not None
    values = root.plain()
    bottleneck = {"use": "identity", "statistics": None if statistics is None else str(statistics)}
    values["tokenizer"].update({"modulator": "none", "bottleneck": bottleneck, **changes})
    return Recipe.model_validate(values, context={"registry": REGISTRY})


def saved(content: object, path: Path) -> Path:
    torch.save(content, path)
    return path


def imported(
    content: object, statistics: object, folder: Path, **changes: object
) -> TokenizerWeights:
    stat = None if statistics is None else saved(statistics, folder / "stat.pt")
    made = recipe(stat, **changes)
    released = read_released(saved(content, folder / "model.pt"))
    whole = whole_tokenizer(released, made, REGISTRY)
    match_recipe(whole, made, REGISTRY)
    return whole


@pytest.mark.parametrize("wrap", [lambda x: x, lambda x: {"model": x}])
@pytest.mark.parametrize("mean", [None, MEAN], ids=["no mean", "mean"])
def test_a_decoder_and_its_statistics_are_a_tokenizer(tmp_path, wrap, mean):
    found = imported(wrap(decoder()), {"mean": mean, "var": VAR}, tmp_path)
    expected = {f"decoder.{name}": x for name, x in decoder().items()}
    expected["bottleneck.mean"] = torch.zeros_like(VAR) if mean is None else MEAN
    expected["bottleneck.var"] = VAR
    assert helpers.same_bits(found.state, expected)


def test_the_whole_tokenizer_is_read_as_it_is_written(tmp_path):
    state = imported(decoder(), {"mean": None, "var": VAR}, tmp_path).state
    made = recipe(None)
    again = whole_tokenizer(read_released(saved(state, tmp_path / "own.pt")), made, REGISTRY)
    assert helpers.same_bits(again.state, state)
    match_recipe(again, made, REGISTRY)


@pytest.mark.parametrize("key", ["mean", "var"])
def test_a_whole_tokenizer_with_other_statistics_than_stated_is_refused(tmp_path, key):
    state = {f"decoder.{name}": x for name, x in decoder().items()}
    state |= {"bottleneck.mean": MEAN, "bottleneck.var": VAR}
    imported(state, {"mean": MEAN, "var": VAR}, tmp_path)
    other = {"mean": MEAN, "var": VAR, key: torch.full_like(VAR, 7)}
    with pytest.raises(CheckpointError) as refused:
        imported(state, other, tmp_path)
    for fact in ("model.pt", "stat.pt", key, "tokenizer.bottleneck.statistics=null"):
        assert fact in str(refused.value)


def test_without_statistics_the_remedy_is_named(tmp_path):
    with pytest.raises(CheckpointError) as refused:
        imported(decoder(), None, tmp_path)
    for fact in ("model.pt", "tokenizer.bottleneck.statistics="):
        assert fact in str(refused.value)


@pytest.mark.parametrize("shape", [(16, 4, 4), (32, 8, 8)])
def test_statistics_of_other_latents_are_refused(tmp_path, shape):
    with pytest.raises(DataError) as refused:
        imported(decoder(), {"mean": None, "var": torch.ones(shape)}, tmp_path)
    for fact in ("stat.pt", str(shape), "(32, 4, 4)"):
        assert fact in str(refused.value)


def test_a_decoder_of_another_size_is_refused_with_the_names(tmp_path):
    small = {"use": "vit", "width": 24, "depth": 1, "heads": 3, "mlp": 48, "patch": 4}
    with pytest.raises(CheckpointError, match=r"decoder\.decoder_layers\.1"):
        imported(decoder(), {"mean": None, "var": VAR}, tmp_path, decoder=small)


def test_a_decoder_alone_is_no_tokenizer_with_a_modulator(tmp_path):
    with pytest.raises(CheckpointError, match=r"delta_encoder\."):
        imported(
            decoder(), {"mean": None, "var": VAR}, tmp_path, modulator={"use": "dam", "depth": 2}
        )


def test_other_contents_of_the_statistics_make_another_tokenizer(tmp_path):
    path = saved({"mean": None, "var": VAR}, tmp_path / "stat.pt")
    config = recipe(path).tokenizer.bottleneck.config
    assert config.files() == {"statistics": path}
    assert config.missing() is None
    path.unlink()
    assert str(path) in config.missing()
