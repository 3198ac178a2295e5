"""The tokenizer's training objective: reconstruction, adversarial and regularizer terms.

L = l1 |x - x^| + perceptual d(x, x^) + lpips LPIPS(x, x^) + adversarial G(x^) + sum of weight *
regularizer (PAE, arXiv 2605.07915, section 3). A term may also have an adaptive factor.

Legend: B batch, S image side in px, N tokens, D encoder width, C x h x w latents.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor, nn

from pae_framework import seeding
from pae_framework.contracts import Batch, LossTerms, RegularizerInputs
from pae_framework.errors import UsageError
from pae_framework.frozen import UsesFrozen
from pae_framework.layers import tokens_to_map
from pae_framework.tokenizer.losses.adaptive_weight import Balance
from pae_framework.tokenizer.losses.adversarial import AdversarialTerm
from pae_framework.tokenizer.losses.reconstruction import ReconstructionTerms, total
from pae_framework.tokenizer.losses.terms import LossTerm, NamedModules, RegularizerTerm
from pae_framework.tokenizer.model import Tokenizer
from pae_framework.tokenizer.refinement import PriorRefiner
from pae_framework.tokenizer.tokenizer_settings import ADVERSARIAL, FACTOR

SIGNED = (ADVERSARIAL,)
"""Terms that are negative or positive, and large where their adaptive factor is."""


class TokenizerObjective(UsesFrozen):
    """The tokenizer with its loss. Terms that are off (weight 0) are not given.

    Args:
        tokenizer: is trained, with the parameters of the regularizers if they have any.
        reconstruction: the reconstruction terms.
        regularizers: in the order of the sum.
        adversarial: its discriminator stays outside the module tree.
        target: what the regularizers align with; None: none of them needs a target.
        refiner: gives refined targets; gets frozen. None: no regularizer needs them.
        noise: tau, strength of the noise on the decoder's input in training.

    Raises:
        UsageError: an adaptive regularizer has nothing to be balanced by: the bottleneck has no
            projector, or there is no reconstruction term.
    """

    refiner: PriorRefiner

    def __init__(
        self,
        tokenizer: Tokenizer,
        reconstruction: ReconstructionTerms,
        regularizers: Sequence[RegularizerTerm] = (),
        adversarial: AdversarialTerm | None = None,
        *,
        target: Literal["refined", "raw"] | None = None,
        refiner: PriorRefiner | None = None,
        noise: float = 0.0,
    ):
        assert refiner is not None or target != "refined"
        super().__init__()
        self.tokenizer = tokenizer
        self.regularizers = NamedModules({term.name: term.regularizer for term in regularizers})
        self.reconstruction = reconstruction
        self.terms: list[LossTerm] = [*([adversarial] if adversarial else []), *regularizers]
        self.target, self.noise = target, noise
        self.step = 0
        if refiner is not None:
            self.hold_frozen("refiner", refiner)
        for term in regularizers:
            if term.adaptive:
                tokenizer.layer_before_latents()
                self._require_reconstruction(term)

    def begin_step(self, step: int) -> None:
        """Set the step of the terms' schedules; the first optimiser step is 0."""
        self.step = step

    def check(self) -> None:
        """Refuse adaptive terms whose layer is frozen. Call it after ``lr_factors`` are applied.

        Raises:
            UsageError: names the term and the layer.
        """
        for term in self.terms:
            if term.adaptive and not term.layer(self.tokenizer).requires_grad:
                raise UsageError(
                    f"the adaptive weight of {term.name!r} is measured at the {term.layer_name}, "
                    "which tokenizer.train.lr_factors freeze; let it learn, or set `adaptive` to "
                    "false"
                )

    def forward(self, batch: Batch, generator: torch.Generator) -> LossTerms:
        """What the training loop calls: :meth:`loss` of a batch's images."""
        return self.loss(batch[0], generator)

    def loss(self, images: Tensor, generator: torch.Generator) -> LossTerms:
        """Every weighted term and their sum ``loss``, for images (B, 3, S, S) in [0, 1].

        Adaptive factors are added as ``adversarial_weight`` and ``<label>_weight``; they are no
        part of the sum.

        Args:
            images: a batch.
            generator: gives the seed of the step. The bottleneck, the noise, the discriminator and
                each regularizer draw from generators of their own, so none depends on the others.
        """
        seed = int(torch.randint(2**63 - 1, (), generator=generator, device=generator.device))
        tokenizer = self.tokenizer
        pixels = tokenizer.encoder.normalize(images)  # (B, 3, S', S')
        features = tokenizer.features_of_pixels(pixels).tokens  # (B, N, D)
        posterior = tokenizer.encode_features(  # latents (B, C, h, w)
            pixels, features, seeding.generator(seed, "bottleneck")
        )
        tau = self.noise if self.training else 0.0
        reconstruction = tokenizer.decode(  # (B, 3, S, S)
            posterior.latents, tau, seeding.generator(seed, "noise")
        )
        compare = self.reconstruction.comparison()
        terms = compare(reconstruction, images)
        fidelity = total(terms, images)
        inputs = RegularizerInputs(
            images=images,
            reconstruction=reconstruction,
            features=features,
            posterior=posterior,
            target=self._target(features),
            decode=tokenizer.decode,
            distance=lambda a, b: total(compare(a, b), a),
            generator=generator,
        )
        factors: LossTerms = {}
        balances: dict[nn.Parameter, Balance] = {}
        for term in self.terms:
            share = term.share(self.step)
            if share == 0:  # its schedule has not begun
                continue
            value = term(replace(inputs, generator=seeding.generator(seed, *term.purpose)))
            if term.adaptive:
                layer = term.layer(tokenizer)
                balance = balances.setdefault(layer, Balance(fidelity, layer, term.bounds))
                factor = balance.factor(value, f"the term {term.name!r}")
                factors[f"{term.name}{FACTOR}"] = factor
                value = factor * value
            terms[term.name] = term.weight * share * value
        terms["loss"] = total(terms, images)
        return terms | factors

    def _target(self, features: Tensor) -> Tensor | None:
        """Refined targets (B, C, h, w) or features (B, D, h, w) of features (B, N, D)."""
        if self.target is None:
            return None
        return tokens_to_map(features) if self.target == "raw" else self.refiner.targets(features)

    def _require_reconstruction(self, term: LossTerm) -> None:
        if not self.reconstruction.weights:
            raise UsageError(
                f"the adaptive weight of {term.name!r} is measured by the reconstruction terms, "
                "which all have weight 0; set tokenizer.reconstruction.l1=1"
            )
