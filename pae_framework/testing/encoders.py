"""The contract of encoders."""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from pae_framework.config import EncoderConfig
from pae_framework.contracts import Encoder, Features, PretrainingObjective
from pae_framework.testing.expect import (
    expect,
    expect_close,
    expect_tensor,
    global_randomness_untouched,
)
from pae_framework.testing.modules import (
    expect_bf16,
    expect_repeatable,
    expect_rows_apart,
)
from pae_framework.testing.state import expect_state
from pae_framework.testing.synthetic import draw, synthetic_images


def check_encoder(encoder: Encoder) -> None:
    """Check an encoder as the engine uses it: frozen, in eval mode, on float32 images in [0, 1].

    Its attributes agree with its config; ``normalize`` gives what ``forward`` takes and
    ``denormalize`` undoes it; tokens are one per place of the grid, normalised, and of each image
    alone; gradients reach the pixels through ``feature_maps`` (perceptual distances need them); the
    state dict holds all it knows. Where its config is ``trainable``, so is it.

    Raises:
        AssertionError: says what the contract is and what was found.
    """
    expect(isinstance(encoder, Encoder), f"{encoder!r} is no pae_framework.contracts.Encoder")
    _check_attributes(encoder)
    frozen = copy.deepcopy(encoder).requires_grad_(False).eval()
    images = synthetic_images(3, encoder.image_size)
    _check_normalisation(frozen, images)
    pixels = frozen.normalize(images)

    def tokens(x: Tensor) -> Tensor:
        return frozen(x).tokens

    _check_features(frozen, frozen(pixels), len(images))
    expect_repeatable(lambda: tokens(pixels), "the encoder")
    expect_rows_apart(tokens, pixels, what="the features")
    expect_bf16(lambda: tokens(pixels), "the encoder")
    _check_feature_maps(frozen, pixels)

    def build() -> Encoder:
        return type(encoder)(encoder.config, encoder.image_size)

    expect_state(frozen, build, lambda module: module(pixels).tokens)
    if type(encoder.config).trainable:
        _check_pretraining(build(), images)


def _check_attributes(encoder: Encoder) -> None:
    config = encoder.config
    expect(isinstance(config, EncoderConfig), "the encoder keeps no EncoderConfig")
    for what, said, found in (
        ("grid", config.token_grid(encoder.image_size), encoder.grid),
        ("width", config.token_width(), encoder.width),
        ("heads", config.token_heads(), encoder.heads),
    ):
        agree = said in (None, found)
        expect(agree, f"config.token_{what} gives {said}, but encoder.{what} is {found}")
    expect(
        encoder.heads > 0 and encoder.width % encoder.heads == 0,
        f"{encoder.heads} heads do not divide the width {encoder.width}",
    )
    for name in ("mean", "std"):
        expect(len(getattr(encoder, name)) == 3, f"{name} is not one number for each of 3 channels")


def _check_normalisation(encoder: Encoder, images: Tensor) -> None:
    side = encoder.grid * encoder.patch
    expect_tensor(
        encoder.normalize(images),
        (len(images), 3, side, side),
        "what normalize gives (its side is grid * patch)",
    )
    flat = torch.tensor([0.2, 0.5, 0.9]).view(1, 3, 1, 1).expand_as(images[:1])
    back = encoder.denormalize(encoder.normalize(flat))
    colours = flat[..., :1, :1].expand_as(back)
    expect_close(back, colours, 1e-3, "denormalize(normalize(x)) changes a flat colour")


def _check_features(encoder: Encoder, features: object, count: int) -> None:
    expect(isinstance(features, Features), "forward gives no pae_framework.contracts.Features")
    assert isinstance(features, Features)
    shape = (count, encoder.grid**2, encoder.width)
    what = "the tokens (one per place of the grid, no class or register tokens)"
    tokens = expect_tensor(features.tokens, shape, what)
    expect_tensor(features.pooled, (count, encoder.width), "the pooled features")
    size = tokens.square().mean().item()
    expect(
        0.5 < size < 1.5,
        f"the tokens have a mean square of {size:.2g}; they leave a final norm without affine, so "
        "it is about 1",
    )
    expect(not torch.allclose(tokens[0], tokens[1]), "two different images have equal features")


def _check_feature_maps(encoder: Encoder, pixels: Tensor) -> None:
    pixels = pixels.clone().requires_grad_()
    maps = list(encoder.feature_maps(pixels))
    expect(bool(maps), "feature_maps gives no map")
    for index, found in enumerate(maps):
        expect(
            found.ndim == 3,
            f"feature map {index} has the shape {tuple(found.shape)}, not (B, n, d)",
        )
        expect_tensor(found, (len(pixels), *found.shape[1:]), f"feature map {index}")
        expect(found.requires_grad, f"no gradient flows from feature map {index} to the pixels")
        loss = (found * draw(*found.shape, seed=index)).sum()
        (gradient,) = torch.autograd.grad(loss, pixels, retain_graph=True)
        whole = bool(gradient.isfinite().all() and gradient.flatten(1).any(dim=1).all())
        expect(whole, f"the gradient of feature map {index} at the pixels is zero or not finite")


def _check_pretraining(encoder: Encoder, images: Tensor) -> None:
    """Check the objective of a ``trainable`` encoder, whose gradients this changes.

    It gives named scalar terms with ``loss``, sends gradients to the encoder, and draws all
    randomness from the given generator.

    Args:
        encoder: a fresh one.
        images: (B, 3, S, S) in [0, 1].
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
