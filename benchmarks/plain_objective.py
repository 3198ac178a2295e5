"""A reference implementation of the tokenizer's loss, to compare with.

LPIPS and the discriminator are passed back through once for the adaptive weight and once more for
the step, and the discriminator's loss runs the frozen encoder again.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from pae_framework import seeding
from pae_framework.contracts import LossTerms, RegularizerInputs
from pae_framework.tokenizer.losses.adaptive_weight import gradient_norm
from pae_framework.tokenizer.losses.objective import TokenizerObjective
from pae_framework.tokenizer.losses.reconstruction import total


class PlainObjective(TokenizerObjective):
    """:class:`TokenizerObjective` with one graph from the weights to the loss."""

    def loss(
        self, images: Tensor, generator: torch.Generator, features: Tensor | None = None
    ) -> LossTerms:
        """Every weighted term, the adaptive factors, and their sum ``loss``."""
        seed = seeding.draw_seed(generator)
        random_of = partial(seeding.generator, seed)
        tokenizer = self.tokenizer
        pixels = tokenizer.encoder.normalize(images)
        if features is None:
            features = tokenizer.features_of_pixels(pixels).tokens
        posterior = tokenizer.encode_features(pixels, features, random_of("bottleneck"))
        tau = self.noise if self.training else 0.0
        reconstruction = tokenizer.decode(posterior.latents, tau, random_of("noise"))
        compare = self.reconstruction.comparison()
        terms = compare(reconstruction, images)
        reconstruction_loss = total(terms, images)
        inputs = RegularizerInputs(
            images=images,
            reconstruction=reconstruction,
            features=features,
            posterior=posterior,
            target=self._target(features, features),
            decode=tokenizer.decode,
            distance=lambda a, b: total(compare(a, b), a),
            generator=generator,
        )
        factors: LossTerms = {}
        for term in self.terms:
            value = term(replace(inputs, generator=random_of(*term.purpose)))
            if term.adaptive:
                layer = term.layer(tokenizer)
                whole = gradient_norm(reconstruction_loss, layer, "the reconstruction")
                factor = term.bounds.factor(whole, gradient_norm(value, layer, term.name))
                factors[f"{term.name}_weight"] = factor
                value = factor * value
            terms[term.name] = term.weight_at(self.step) * value
        terms["loss"] = total(terms, images)
        return terms | factors
