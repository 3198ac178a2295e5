"""The contract of encoders that train themselves."""

from __future__ import annotations

import torch
from torch import Tensor

from pae_framework.contracts import Encoder, PretrainingObjective
from pae_framework.testing.expect import expect, expect_tensor, global_randomness_untouched


def check_pretraining(encoder: Encoder, images: Tensor) -> None:
    """Check the objective of a ``trainable`` encoder, which is used up: part of ``check_encoder``.

    The objective holds the encoder's weights, gives named scalar terms with the minimised ``loss``,
    sends gradients to the encoder, and draws all randomness from the generator it is given.

    Args:
        encoder: a fresh one.
        images: (B, 3, S, S) in [0, 1].

    Raises:
        AssertionError: says what the contract is and what was found.
    """
    objective = encoder.pretraining(num_classes=3)
    expect(isinstance(objective, PretrainingObjective), "pretraining gives no PretrainingObjective")
    held = {id(parameter) for parameter in objective.parameters()}
    weights = list(encoder.parameters())
    expect(all(id(p) in held for p in weights), "the objective does not hold the encoder's weights")
    objective.train()
    labels = torch.arange(len(images)) % 3
    with global_randomness_untouched("the pretraining loss"):
        terms = objective.loss(images, labels, torch.Generator().manual_seed(0))
    expect("loss" in terms, f"the terms {sorted(terms)} have no `loss`, which is what is minimised")
    for name, term in terms.items():
        expect_tensor(term, (), f"the term {name!r}", dtype=None)
    terms["loss"].backward()
    expect(
        any(p.grad is not None and bool(p.grad.any()) for p in weights),
        "the pretraining loss sends no gradient to the encoder",
    )
    again = objective.loss(images, labels, torch.Generator().manual_seed(0))["loss"]
    expect(torch.equal(again, terms["loss"]), "the same generator gives another pretraining loss")
