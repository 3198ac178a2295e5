"""What the tokenizer is trained by: reconstruction terms and the recipe's regularizers.

L = l1 |x - x^| + perceptual d(x, x^) + sum of weight * regularizer (PAE, section 3, less its
adversarial term).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pae_framework import seeding
from pae_framework.contracts import Batch, LossTerms, Regularizer, RegularizerInputs
from pae_framework.errors import UsageError
from pae_framework.plugins import Registry
from pae_framework.recipe.models import TokenizerSection
from pae_framework.tokenizer.frozen import UsesFrozen
from pae_framework.tokenizer.model import Tokenizer
from pae_framework.tokenizer.perceptual import RememberedFeatures, build_distance
from pae_framework.tokenizer.refinement import PriorRefiner

Distance = Callable[[Tensor, Tensor], Tensor]
RESERVED = frozenset({"loss", "l1", "perceptual"})
"""Names of terms a regularizer's label must not take."""


class TokenizerObjective(UsesFrozen):
    """The tokenizer with its loss; a term whose weight is 0 is never computed.

    Args:
        tokenizer: what is trained, with the parameters of the regularizers if they have any.
        section: the recipe's ``tokenizer``; weights are read from it.
        regularizers: by their label in the recipe; those of weight 0 may be left out.
        refiner: gives the targets; gets frozen. None where no regularizer needs them.

    Raises:
        UsageError: a regularizer needs what is not there, or its label is a reserved name.
    """

    refiner: PriorRefiner

    def __init__(
        self,
        tokenizer: Tokenizer,
        section: TokenizerSection,
        regularizers: Mapping[str, Regularizer],
        refiner: PriorRefiner | None,
    ):
        super().__init__()
        self.tokenizer = tokenizer
        self.weights = active_weights(section)
        self.needs_target = _needs_target(section, self.weights, refiner)
        self.regularizers = nn.ModuleDict({label: regularizers[label] for label in self.weights})
        self.l1 = section.reconstruction.l1
        self.perceptual_weight = section.reconstruction.perceptual.weight
        self.perceptual = build_distance(section.reconstruction.perceptual, tokenizer.encoder)
        if refiner is not None:
            self.hold_frozen("refiner", refiner)

    def forward(self, batch: Batch, generator: torch.Generator) -> LossTerms:
        """What the training loop calls: :meth:`loss` of a batch's images."""
        return self.loss(batch[0], generator)

    def loss(self, images: Tensor, generator: torch.Generator) -> LossTerms:
        """Every weighted term and their sum ``loss``, for images (B, 3, S, S) in [0, 1].

        Args:
            images: a batch.
            generator: gives the seed from which the bottleneck and every regularizer get random
                numbers of their own: none depends on which others there are.
        """
        seed = int(torch.randint(2**63 - 1, (), generator=generator, device=generator.device))
        tokenizer = self.tokenizer
        pixels = tokenizer.encoder.normalize(images)
        features = tokenizer.features_of_pixels(pixels).tokens
        posterior = tokenizer.encode_features(
            pixels, features, seeding.generator(seed, "bottleneck")
        )
        reconstruction = tokenizer.decode(posterior.latents)
        compare = RememberedFeatures(self.perceptual)
        terms = self._reconstruction_terms(reconstruction, images, compare)
        inputs = RegularizerInputs(
            images=images,
            reconstruction=reconstruction,
            features=features,
            posterior=posterior,
            target=self._target(features),
            decode=tokenizer.decode,
            distance=lambda a, b: _total(self._reconstruction_terms(a, b, compare), a),
            generator=generator,
        )
        for label, weight in self.weights.items():
            own = seeding.generator(seed, "regularizer", label)
            terms[label] = weight * self.regularizers[label](replace(inputs, generator=own))
        terms["loss"] = _total(terms, images)
        return terms

    def _reconstruction_terms(self, a: Tensor, b: Tensor, perceptual: Distance) -> LossTerms:
        terms: LossTerms = {}
        if self.l1:
            terms["l1"] = self.l1 * F.l1_loss(a, b)
        if self.perceptual_weight:
            terms["perceptual"] = self.perceptual_weight * perceptual(a, b).mean()
        return terms

    def _target(self, features: Tensor) -> Tensor | None:
        return self.refiner.targets(features) if self.needs_target else None


def build_objective(
    tokenizer: Tokenizer,
    section: TokenizerSection,
    registry: Registry,
    refiner: PriorRefiner | None = None,
) -> TokenizerObjective:
    """Build the loss a recipe describes around its tokenizer; terms of weight 0 are not built.

    Raises:
        UsageError: see TokenizerObjective.
        PluginError: a component does not import.
    """
    regularizers = {
        label: registry.find(part.kind, part.use).component_class()(part.config)
        for label, part in section.regularizers.items()
        if part.config.weight
    }
    return TokenizerObjective(tokenizer, section, regularizers, refiner)


def active_weights(section: TokenizerSection) -> dict[str, float]:
    """Weights of the regularizers that are not 0, by label."""
    if taken := RESERVED & section.regularizers.keys():
        label = min(taken)
        raise UsageError(
            f"tokenizer.regularizers.{label}: this name is the objective's own; "
            f"give it another and say `use: {section.regularizers[label].use}`"
        )
    weights = {label: part.config.weight for label, part in section.regularizers.items()}
    return {label: weight for label, weight in weights.items() if weight}


def _needs_target(
    section: TokenizerSection, weights: Mapping[str, float], refiner: PriorRefiner | None
) -> bool:
    needy = [label for label in weights if section.regularizers[label].config.needs_target]
    if needy and refiner is None:
        raise UsageError(
            f"tokenizer.regularizers.{needy[0]} needs refined targets: "
            "the recipe needs a `tokenizer.refinement`"
        )
    return bool(needy)


def _total(terms: LossTerms, like: Tensor) -> Tensor:
    return torch.stack(list(terms.values())).sum() if terms else like.new_zeros(())
