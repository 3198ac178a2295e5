"""The contract of encoders."""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from pae_framework.contracts import Encoder, Features, LossTerms, PretrainingObjective
from pae_framework.promises import (
    attributes_problem,
    features_problem,
    pixels_problem,
    token_order_problem,
)
from pae_framework.seeding import Rows
from pae_framework.testing.expect import (
    expect,
    expect_close,
    expect_none,
    expect_tensor,
    global_randomness_untouched,
)
from pae_framework.testing.modules import (
    expect_input_gradient,
    expect_per_image,
    expect_state,
)
from pae_framework.testing.shared_batch import expect_means_over_images, without_batch_norm
from pae_framework.testing.synthetic import synthetic_images


def check_encoder(encoder: Encoder) -> None:
    """Check an encoder as the engine uses it: frozen, in eval mode, on float32 images in [0, 1].

    Its attributes agree with its config. ``normalize`` gives what ``forward`` takes, and
    ``denormalize`` inverts it. There is one token for each cell of the grid, computed from one
    image alone, and normalized unless its config is ``trained_with_tokenizer``. Gradients reach the
    pixels through ``feature_maps``, as perceptual distances need. The state dict is complete. If
    its config is ``trainable``, it has a pretraining objective, whose terms are means over images.

    Raises:
        AssertionError: the component breaks the contract; the message says how.
    """
    expect(isinstance(encoder, Encoder), f"{encoder!r} is no contracts.Encoder")
    expect_none(attributes_problem(encoder))
    frozen = copy.deepcopy(encoder).requires_grad_(False).eval()
    images = synthetic_images(3, encoder.image_size)
    _check_normalization(frozen, images)
    pixels = frozen.normalize(images)

    def tokens(x: Tensor) -> Tensor:
        return frozen(x).tokens

    _check_features(frozen, frozen(pixels), len(images))
    expect_per_image(tokens, pixels, what="the encoder")
    expect_none(token_order_problem(frozen, pixels[:1]))
    if frozen.grid**2 == frozen.width:
        _check_another_size(frozen)
    _check_feature_maps(frozen, pixels)

    def build() -> Encoder:
        return type(encoder)(encoder.config, encoder.image_size)

    expect_state(frozen, build, lambda module: module(pixels).tokens)
    if type(encoder.config).trainable:
        _check_pretraining(build(), images)


def _check_normalization(encoder: Encoder, images: Tensor) -> None:
    expect_none(pixels_problem(encoder, encoder.normalize(images), len(images)))
    flat = torch.tensor([0.2, 0.5, 0.9]).view(1, 3, 1, 1).expand_as(images[:1])
    back = encoder.denormalize(encoder.normalize(flat))
    colors = flat[..., :1, :1].expand_as(back)
    expect_close(back, colors, 1e-3, "denormalize(normalize(x)) must keep a uniform color")


def _check_features(encoder: Encoder, features: Features, count: int) -> None:
    expect_none(features_problem(encoder, features, count))
    if encoder.config.trained_with_tokenizer:  # no frozen features that a modulator builds on
        return
    size = features.tokens.square().mean().item()
    expect(
        0.5 < size < 1.5,
        f"the tokens have a mean square of {size:.2g}; after a final norm without affine "
        "parameters it must be about 1",
    )


@torch.no_grad()
def _check_another_size(encoder: Encoder) -> None:
    """With N = D, the shape of the tokens cannot tell their axes apart; that of other images can.

    Nothing is checked if the encoder takes no other size.
    """
    for size in (2 * encoder.image_size, encoder.image_size // 2):
        try:
            encoder.config.token_grid(size)
            other = type(encoder)(encoder.config, size).eval()
        except ValueError:
            continue
        images = synthetic_images(2, size)
        expect_none(features_problem(other, other(other.normalize(images)), len(images)))


def _check_feature_maps(encoder: Encoder, pixels: Tensor) -> None:
    pixels = pixels.clone().requires_grad_()
    maps = list(encoder.feature_maps(pixels))
    expect(bool(maps), "feature_maps must give at least one map")
    promised = encoder.config.feature_maps()
    agree = promised in (None, len(maps))
    expect(agree, f"config.feature_maps gives {promised}, but the encoder gives {len(maps)}")
    for index, tokens in enumerate(maps):
        what = f"feature map {index}"
        expect(tokens.ndim == 3, f"{what} has the shape {tuple(tokens.shape)}, not (B, n, d)")
        expect_tensor(tokens, (len(pixels), *tokens.shape[1:]), what)
        expect_input_gradient(tokens, pixels, what)


def _check_pretraining(encoder: Encoder, images: Tensor) -> None:
    """The objective gives scalar terms, one of them ``loss``, and trains the encoder."""
    objective = encoder.pretraining(num_classes=3)
    expect(
        isinstance(objective, PretrainingObjective), "pretraining must give a PretrainingObjective"
    )
    held = {id(parameter) for parameter in objective.parameters()}
    weights = list(encoder.parameters())
    expect(all(id(p) in held for p in weights), "the objective must contain the encoder")
    objective.train()
    labels = torch.arange(len(images)) % 3
    with global_randomness_untouched("the pretraining loss"):
        terms = objective.loss(images, labels, torch.Generator().manual_seed(0))
    expect("loss" in terms, f"the terms {sorted(terms)} lack `loss`, which is minimized")
    for name, term in terms.items():
        expect_tensor(term, (), f"the term {name!r}", dtype=None)
    terms["loss"].backward()
    expect(
        any(p.grad is not None and bool(p.grad.any()) for p in weights),
        "no gradient of the pretraining loss reaches the encoder",
    )
    again = objective.loss(images, labels, torch.Generator().manual_seed(0))["loss"]
    expect(
        torch.equal(again, terms["loss"]),
        "the pretraining loss must use no randomness but the generator that is passed in",
    )

    def terms_of(rows: Rows, generator: torch.Generator) -> LossTerms:
        part = slice(rows.start, rows.stop)
        return without_batch_norm(objective).loss(images[part], labels[part], generator)

    expect_means_over_images(terms_of, len(images), "the pretraining term")
