"""The tokenizer's training objective: reconstruction, adversarial and regularizer terms.

    L = l1 |x - x^| + perceptual d(x, x^) + lpips LPIPS(x, x^)
        + adversarial G(x^) + sum of weight * regularizer

(PAE, arXiv 2605.07915, section 3.) Adversarial and regularizer terms can have an adaptive factor.

Legend: B batch, S image side in px, S' side of the encoder's input, N tokens, D encoder width,
C x h x w latents.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from pae_framework import seeding
from pae_framework.contracts import Batch, LossTerms, RegularizerInputs, cached_tokens
from pae_framework.errors import UsageError
from pae_framework.frozen import UsesFrozen
from pae_framework.layers import tokens_to_map
from pae_framework.tokenizer.losses.adaptive_weight import gradient_norm
from pae_framework.tokenizer.losses.adversarial import AdversarialTerm
from pae_framework.tokenizer.losses.known_gradient import with_known_gradients
from pae_framework.tokenizer.losses.reconstruction import ReconstructionTerms, total
from pae_framework.tokenizer.losses.term_shares import measure_shares
from pae_framework.tokenizer.losses.terms import LossTerm, NamedModules, RegularizerTerm
from pae_framework.tokenizer.model import ComposedTokenizer
from pae_framework.tokenizer.refinement import PriorRefiner
from pae_framework.tokenizer.teacher import Teacher
from pae_framework.tokenizer.tokenizer_settings import ADVERSARIAL, FACTOR
from pae_framework.world import ONE_PROCESS, World

SIGNED = (ADVERSARIAL,)
"""Terms that may be negative or scale with an adaptive factor; the jump check ignores them."""


class TokenizerObjective(UsesFrozen):
    """The tokenizer with its loss. Only active terms are passed (weight not 0).

    Args:
        tokenizer: is trained, with the parameters of the regularizers if they have any.
        reconstruction: the reconstruction terms. Adaptive terms need at least one.
        regularizers: in the order of the sum. Adaptive ones need a projector or a trained encoder.
        adversarial: its discriminator stays outside the module tree.
        target: what the regularizers align with; None if no regularizer needs a target.
        refiner: computes the refined targets; gets frozen.
        teacher: computes the features of regularizers; gets frozen. None: the encoder's are used.
        noise: tau, strength of the noise on the decoder's input in training.
        world: the processes that share each batch; adaptive weights are those of the whole batch.
        shares_every: steps between measurements of :func:`measure_shares`; None: no measurement.
    """

    refiner: PriorRefiner
    teacher: Teacher

    def __init__(
        self,
        tokenizer: ComposedTokenizer,
        reconstruction: ReconstructionTerms,
        regularizers: Sequence[RegularizerTerm] = (),
        adversarial: AdversarialTerm | None = None,
        *,
        target: Literal["refined", "raw"] | None = None,
        refiner: PriorRefiner | None = None,
        teacher: Teacher | None = None,
        noise: float = 0.0,
        world: World = ONE_PROCESS,
        shares_every: int | None = None,
    ):
        assert refiner is not None or target != "refined"
        super().__init__()
        self.tokenizer = tokenizer
        self.regularizers = NamedModules({term.name: term.regularizer for term in regularizers})
        self.reconstruction = reconstruction
        self.terms: list[LossTerm] = [*([adversarial] if adversarial else []), *regularizers]
        self._adversarial = adversarial
        self.target, self.noise = target, noise
        self.step = 0
        self._world, self._shares_every = world, shares_every
        if refiner is not None:
            self.hold_frozen("refiner", refiner)
        self._taught = teacher is not None
        if teacher is not None:
            self.hold_frozen("teacher", teacher)

    def begin_step(self, step: int) -> None:
        """Set the step of the terms' schedules; the first optimizer step is 0."""
        self.step = step
        if self._adversarial:
            self._adversarial.begin_step()

    def check(self) -> None:
        """Reject adaptive terms without a reconstruction term, or whose layer is absent or frozen.

        Call it after ``lr_factors`` are applied. The recipe check rejects the first two earlier if
        the regularizer's config states ``adapts_weight``.

        Raises:
            UsageError: names the term and what is missing or frozen.
        """
        for term in self.terms:
            if not term.adaptive:
                continue
            if not self.reconstruction.weights:
                raise UsageError(
                    f"the adaptive weight of {term.name!r} needs a reconstruction term, but all "
                    "have weight 0; set tokenizer.reconstruction.l1=1"
                )
            if not term.layer(self.tokenizer).requires_grad:
                raise UsageError(
                    f"the adaptive weight of {term.name!r} is measured at the {term.layer_name}, "
                    "which tokenizer.train.lr_factors freezes; remove that factor or set "
                    "adaptive=false"
                )

    def forward(self, batch: Batch, generator: torch.Generator) -> LossTerms:
        """:meth:`loss` of the batch; called by the training loop."""
        return self.loss(batch[0], generator, cached_tokens(batch))

    def loss(
        self, images: Tensor, generator: torch.Generator, features: Tensor | None = None
    ) -> LossTerms:
        """Every weighted term and their sum ``loss``, for images (B, 3, S, S) in [0, 1].

        The result also holds the adaptive factors, as ``adversarial_weight`` and
        ``<label>_weight``, and in some steps the shares of :func:`measure_shares`. They are not
        part of the sum.

        Args:
            images: a batch.
            generator: draws the seed of the step. The bottleneck, the noise, the discriminator and
                each regularizer have generators of their own, so none affects the others.
            features: a frozen encoder's tokens (B, N, D) of the images; None: they are computed.
        """
        seed = seeding.draw_seed(generator)
        rows = seeding.rows_of(generator)
        random_of = partial(seeding.generator, seed, device=generator.device, rows=rows)
        tokenizer = self.tokenizer
        pixels = tokenizer.encoder.normalize(images)  # (B, 3, S', S')
        if features is None:
            features = tokenizer.features_of_pixels(pixels).tokens  # (B, N, D)
        random = random_of("bottleneck")
        posterior = tokenizer.encode_features(pixels, features, random)  # latents (B, C, h, w)
        features = features.detach()
        tau = self.noise if self.training else 0.0
        random = random_of("noise")
        reconstruction = tokenizer.decode(posterior.latents, tau, random)  # (B, 3, S, S)

        if self._adversarial and not tokenizer.trains_encoder:
            self._adversarial.share_tokens(self.step, images, features)

        compare = self.reconstruction.comparison()
        aligned = self.teacher(images) if self._taught else features
        inputs = RegularizerInputs(
            images=images,
            reconstruction=reconstruction,
            features=aligned,
            posterior=posterior,
            target=self._target(features, aligned),
            decode=tokenizer.decode,
            distance=lambda a, b: total(compare(a, b), a),
            generator=generator,
        )
        share = 1.0 if rows is None else rows.share
        active = [(term, x) for term in self.terms if (x := term.weight_at(self.step))]
        if any(term.adaptive for term, _ in active):
            terms = with_known_gradients(lambda x: compare(x, images), reconstruction)
            compare.detach()
        else:
            terms = compare(reconstruction, images)
        reconstruction_loss = total(terms, images)

        norm_of = partial(gradient_norm, world=self._world, share=share)
        factors: LossTerms = {}
        norms: dict[nn.Parameter, Tensor] = {}  # of the reconstruction's gradient at each layer
        for term, weight in active:  # adversarial, then regularizers
            value = _value(term, replace(inputs, generator=random_of(*term.purpose)), share)
            if term.adaptive:
                layer = term.layer(tokenizer)
                if layer not in norms:
                    norms[layer] = norm_of(reconstruction_loss, layer, "the reconstruction")
                norm = norm_of(value, layer, f"the term {term.name!r}")
                factor = term.bounds.factor(norms[layer], norm)
                factors[f"{term.name}{FACTOR}"] = factor
                value = factor * value
            terms[term.name] = weight * value
        shares: LossTerms = {}
        if terms and self._shares_every and (self.step + 1) % self._shares_every == 0:
            shares = measure_shares(terms, posterior.latents, self._world, share)
        terms["loss"] = total(terms, images)
        return terms | factors | shares

    def _target(self, features: Tensor, aligned: Tensor) -> Tensor | None:
        """Refined targets (B, C, h, w) of the encoder's features, or a map of the aligned ones."""
        if self.target is None:
            return None
        return tokens_to_map(aligned) if self.target == "raw" else self.refiner.targets(features)


def _value(term: LossTerm, inputs: RegularizerInputs, share: float) -> Tensor:
    """The unweighted term. Its way back to the reconstruction is computed once, if it can be."""
    if not term.adaptive or not term.of_reconstruction or _repeats_bits(inputs.images):
        return term(inputs)
    values = with_known_gradients(
        lambda x: {term.name: term(replace(inputs, reconstruction=x))},
        inputs.reconstruction,
        share,
    )
    return values[term.name]


def _repeats_bits(images: Tensor) -> bool:
    """Whether results are the bits of earlier versions: in float32 on the CPU.

    Multiplying a known gradient by the adaptive factor rounds differently from multiplying the
    term, so there the discriminator's gradient is computed for the factor and once more.
    """
    return images.device.type == "cpu" and not torch.is_autocast_enabled("cpu")
