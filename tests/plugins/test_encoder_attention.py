"""The setting ``attention`` of the pretrained encoders, with a stand-in for xformers."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import fake_xformers
import pytest
import torch
from torch import Tensor
from torch._dynamo.testing import CompileCounter

from pae_encoders.families import FAMILIES
from pae_framework.errors import UsageError
from pae_framework.plugins import load_registry
from pae_framework.testing.modules import as_if_trained
from pae_framework.training.blocks import find_blocks, recompute_blocks

USES = [family.use for family in FAMILIES]
DEPTH, HEADS, WIDTH = 2, 2, 32


def encoder(use: str, attention: str, **changes: Any) -> Any:
    spec = load_registry().find("encoder", use)
    size = {"width": WIDTH, "depth": DEPTH, "heads": HEADS}
    config = spec.config_class()(weights="none", size=size, attention=attention, **changes)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return as_if_trained(spec.component_class()(config, 32)).requires_grad_(False)


def tokens(encoder: Any, requires_grad: bool = False) -> Tensor:
    images = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    return encoder(encoder.normalize(images.requires_grad_(requires_grad))).tokens


@pytest.mark.parametrize("use", USES)
def test_every_block_calls_the_kernel(monkeypatch: pytest.MonkeyPatch, use: str) -> None:
    expected = tokens(encoder(use, "sdpa"))
    calls = fake_xformers.stand_in(monkeypatch)
    changed = encoder(use, "xformers")
    torch.testing.assert_close(tokens(changed), expected)
    prefix = changed.form.prefix  # class and register tokens
    shape = (3, prefix + changed.grid**2, HEADS, WIDTH // HEADS)
    assert calls == [shape] * DEPTH


@pytest.mark.parametrize("use", USES)
def test_torchs_kernel_is_that_of_a_kernel_without_setting(
    monkeypatch: pytest.MonkeyPatch, use: str
) -> None:
    calls = fake_xformers.stand_in(monkeypatch)
    tokens(encoder(use, "sdpa"))
    assert calls == []


@pytest.mark.parametrize("use", USES)
def test_nothing_else_differs(monkeypatch: pytest.MonkeyPatch, use: str) -> None:
    plain, changed = encoder(use, "sdpa"), encoder(use, "xformers")
    assert list(changed.state_dict()) == list(plain.state_dict())
    assert changed.settings.without_effect == {"attention"}
    assert changed.settings.smoke().attention == "sdpa"


def test_a_copy_computes_with_its_own_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the modulator ``finetune`` trains."""
    calls = fake_xformers.stand_in(monkeypatch)
    original = encoder("siglip2", "xformers")
    copied, expected = deepcopy(original), tokens(original)
    for weight in copied.vit.blocks.parameters():
        weight.data.zero_()
    calls.clear()
    assert not torch.equal(tokens(copied), expected)
    assert torch.equal(tokens(original), expected)
    assert len(calls) == 2 * DEPTH


def test_recomputed_blocks_use_the_kernel_again(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = fake_xformers.stand_in(monkeypatch)
    changed = encoder("mae", "xformers")
    recompute_blocks(changed)
    tokens(changed, requires_grad=True).sum().backward()
    assert len(calls) == 2 * DEPTH


@pytest.mark.parametrize("use", USES)
def test_blocks_compile_as_a_whole(monkeypatch: pytest.MonkeyPatch, use: str) -> None:
    fake_xformers.stand_in(monkeypatch)
    changed = encoder(use, "xformers")
    expected = tokens(changed)
    torch._dynamo.reset()
    for block in find_blocks(changed):
        block.compile(backend=CompileCounter(), fullgraph=True)
    torch.testing.assert_close(tokens(changed), expected)
    torch._dynamo.reset()


def test_without_xformers_the_error_names_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_xformers.remove(monkeypatch)
    with pytest.raises(UsageError, match="attention=sdpa"):
        tokens(encoder("dinov2", "xformers"))
