"""The contract of regularizers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pae_framework.config import LatentShape, RegularizerConfig
from pae_framework.contracts import LossTerms, Posterior, Regularizer, RegularizerInputs
from pae_framework.seeding import Rows
from pae_framework.testing.expect import expect, expect_tensor
from pae_framework.testing.modules import expect_bf16, expect_repeatable, expect_state
from pae_framework.testing.shared_batch import expect_means_over_images, without_batch_norm
from pae_framework.testing.synthetic import normal, synthetic_images

IMAGES, PATCH, WIDTH, CHANNELS = 6, 2, 8, 4


def check_regularizer(regularizer: Regularizer, config: RegularizerConfig, grid: int = 4) -> None:
    """Check a regularizer built as ``Regularizer(config)``, on ``grid`` x ``grid`` latents.

    Its term is a finite scalar and a mean over images, since micro-batches and processes share a
    batch; so an image's random numbers do not depend on who computes it. The gradient reaches the
    latents or the decoder. It changes none of its inputs, uses no randomness but
    ``inputs.generator``, and needs only the inputs that its config names. It is ``adaptive`` if and
    only if the config's ``adapts_weight`` is true.

    Raises:
        AssertionError: the component breaks the contract; the message says how.
    """
    expect(isinstance(regularizer, Regularizer), f"{regularizer!r} is no contracts.Regularizer")

    expect(
        regularizer.adaptive == config.adapts_weight,
        f"{type(regularizer).__name__}.adaptive is {regularizer.adaptive}, but "
        f"{type(config).__name__}.adapts_weight is {config.adapts_weight}",
    )
    prepared(regularizer, config, grid)

    def term(module: nn.Module = regularizer) -> Tensor:
        value: Tensor = module(synthetic_inputs(config, grid)[0])
        return value

    _check_needs(regularizer, config, grid)
    _check_one_step(regularizer, config, grid)
    expect_repeatable(term, "the term")
    expect_bf16(term, "the term")
    _check_mean_over_images(regularizer, config, grid)
    expect_state(
        regularizer,
        lambda: prepared(type(regularizer)(config), config, grid),
        term,
    )


def prepared(regularizer: Regularizer, config: RegularizerConfig, grid: int) -> Regularizer:
    """Call ``prepare``, as the engine does before training."""
    target_channels = CHANNELS if type(config).needs_target else None
    regularizer.prepare(LatentShape(CHANNELS, grid), WIDTH, target_channels)
    return regularizer


def synthetic_inputs(
    config: RegularizerConfig, grid: int
) -> tuple[RegularizerInputs, list[Tensor]]:
    """Inputs of a synthetic training step, and the tensors that gradients may reach.

    They hold a target and moments only if ``config`` needs them. The decoder is one linear layer.
    """
    shape = (IMAGES, CHANNELS, grid, grid)
    latents = normal(*shape, seed=1).requires_grad_()
    weight = (0.3 * normal(CHANNELS, 3, PATCH, PATCH, seed=2)).requires_grad_()
    posterior, leaves = Posterior(latents), [latents, weight]
    if type(config).needs_moments:
        leaves.append((0.1 * latents.detach()).requires_grad_())
        posterior = replace(posterior, mean=latents, logvar=leaves[-1])

    def decode(z: Tensor) -> Tensor:
        return F.conv_transpose2d(z, weight, stride=PATCH).sigmoid()

    inputs = RegularizerInputs(
        images=synthetic_images(IMAGES, grid * PATCH),
        reconstruction=decode(latents),
        features=normal(IMAGES, grid**2, WIDTH, seed=4),
        posterior=posterior,
        target=normal(*shape, seed=3) if type(config).needs_target else None,
        decode=decode,
        distance=F.l1_loss,
        generator=torch.Generator().manual_seed(5),
    )
    return inputs, leaves


def term_of_latents(
    config: RegularizerConfig, grid: int, regularizer: nn.Module, latents: Tensor
) -> Tensor:
    """The term of latents (B, 4, grid, grid), with synthetic inputs for all else."""
    count = len(latents)
    part = _part(synthetic_inputs(config, grid)[0], Rows(0, count, count))
    device = latents.device

    def there(values: Any) -> Any:
        tensors = {k: v.to(device) for k, v in vars(values).items() if isinstance(v, Tensor)}
        return replace(values, **tensors)

    posterior = replace(there(part.posterior), latents=latents)
    if posterior.mean is not None:
        posterior = replace(posterior, mean=latents)
    weight = (0.3 * normal(CHANNELS, 3, PATCH, PATCH, seed=2)).to(device)

    def decode(z: Tensor) -> Tensor:
        return F.conv_transpose2d(z, weight, stride=PATCH).sigmoid()

    inputs = replace(
        there(part), posterior=posterior, decode=decode, reconstruction=decode(latents)
    )
    term: Tensor = regularizer(inputs)
    return term


def _check_needs(regularizer: Regularizer, config: RegularizerConfig, grid: int) -> None:
    needs = [name for name in ("needs_target", "needs_moments") if getattr(type(config), name)]
    try:
        regularizer(synthetic_inputs(config, grid)[0])
    except Exception as error:
        raise AssertionError(
            f"{type(config).__name__} sets {' and '.join(needs) or 'no needs'}, but with no other "
            f"inputs the term fails: {type(error).__name__}: {error}"
        ) from error


def _check_mean_over_images(regularizer: Regularizer, config: RegularizerConfig, grid: int) -> None:
    def terms(rows: Rows, generator: torch.Generator) -> LossTerms:
        inputs = replace(_part(synthetic_inputs(config, grid)[0], rows), generator=generator)
        return {type(regularizer).__name__: without_batch_norm(regularizer)(inputs)}

    expect_means_over_images(terms, IMAGES, "the term")


def _part(inputs: RegularizerInputs, rows: Rows) -> RegularizerInputs:
    """The inputs of some images."""

    def take(values: Any) -> Any:
        tensors = {k: v for k, v in vars(values).items() if isinstance(v, Tensor)}
        return replace(values, **{k: v[rows.start : rows.stop] for k, v in tensors.items()})

    return replace(take(inputs), posterior=take(inputs.posterior))


def _check_one_step(regularizer: Regularizer, config: RegularizerConfig, grid: int) -> None:
    """One forward and backward pass: a scalar, gradients, inputs unchanged."""
    inputs, leaves = synthetic_inputs(config, grid)
    tensors = {
        "images": inputs.images,
        "features": inputs.features,
        "latents": inputs.posterior.latents,
        **({} if inputs.target is None else {"target": inputs.target}),
    }
    before = {name: tensor.detach().clone() for name, tensor in tensors.items()}
    term = expect_tensor(regularizer(inputs), (), "the term", dtype=None)
    expect(term.requires_grad, "the term has no gradient, so it trains nothing")
    gradients = torch.autograd.grad(term, leaves, allow_unused=True)
    reached = [gradient for gradient in gradients if gradient is not None]
    finite = all(bool(gradient.isfinite().all()) for gradient in reached)
    expect(finite, "a gradient of the term is not finite")
    expect(
        any(bool(gradient.any()) for gradient in reached),
        "no gradient of the term reaches the latents or the decoder, so it trains nothing",
    )
    for name, tensor in tensors.items():
        same = torch.equal(tensor, before[name])
        expect(same, f"the term changed inputs.{name} in place; other terms use it too")
