"""Which weights a key of ``lr_factors`` covers."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from pae_framework.errors import UsageError
from pae_framework.training.optimizer import freeze_parameters, parameter_factors


def tree(**parts: nn.Module) -> nn.ModuleDict:
    return nn.ModuleDict(parts)


def leaf() -> nn.Module:
    return nn.ParameterDict({"w": nn.Parameter(torch.zeros(1))})


def test_a_prefix_consists_of_whole_name_components():
    module = tree(decoder=tree(head=leaf(), norm=leaf()), decoder_head=leaf())
    assert parameter_factors(module, {"decoder": 0.1}) == {
        "decoder.head.w": 0.1,
        "decoder.norm.w": 0.1,
        "decoder_head.w": 1.0,
    }


def test_the_longest_prefix_wins_in_any_order():
    module = tree(decoder=tree(head=leaf(), norm=leaf()))
    for factors in ({"decoder": 0.1, "decoder.head": 3.0}, {"decoder.head": 3.0, "decoder": 0.1}):
        assert parameter_factors(module, factors) == {"decoder.head.w": 3.0, "decoder.norm.w": 0.1}


def test_a_prefix_may_omit_the_wrapper():
    module = tree(tokenizer=tree(decoder=leaf(), encoder=leaf()), regularizers=tree(vf=leaf()))
    for prefix in ("decoder", "tokenizer.decoder"):
        factors = parameter_factors(module, {prefix: 0.5})
        assert [name for name, factor in factors.items() if factor == 0.5] == [
            "tokenizer.decoder.w"
        ]


def test_a_prefix_of_the_full_name_is_preferred():
    module = tree(encoder=leaf(), decoder=tree(encoder=leaf()))
    factors = parameter_factors(module, {"encoder": 0.5})
    assert factors == {"encoder.w": 0.5, "decoder.encoder.w": 1.0}


def test_an_unknown_prefix_is_rejected_with_suggestions():
    blocks = nn.ModuleList([leaf(), leaf()])
    module = tree(tokenizer=tree(decoder=tree(blocks=blocks), projector=leaf()))
    expected = r"lr_factors\.decode: .* tokenizer, tokenizer\.decoder, tokenizer\.projector$"
    with pytest.raises(UsageError, match=expected):
        parameter_factors(module, {"decode": 0.5})


def test_a_factor_of_0_freezes():
    module = tree(decoder=leaf(), encoder=leaf())
    freeze_parameters(module, {"encoder": 0.0, "decoder": 0.5})
    assert {n: p.requires_grad for n, p in module.named_parameters()} == {
        "decoder.w": True,
        "encoder.w": False,
    }


def test_freezing_everything_is_rejected():
    with pytest.raises(UsageError, match="lr_factors"):
        freeze_parameters(tree(decoder=leaf()), {"decoder": 0.0})
