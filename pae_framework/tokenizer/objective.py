"""What the tokenizer is trained by: reconstruction terms, regularizers and a discriminator.

L = l1 |x - x^| + perceptual d(x, x^) + lpips LPIPS(x, x^) + adversarial G(x^) + sum of weight *
regularizer (PAE, arXiv 2605.07915, section 3). A term may have an adaptive factor besides.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from pae_framework import seeding
from pae_framework.contracts import Batch, LossTerms, Regularizer, RegularizerInputs
from pae_framework.errors import UsageError
from pae_framework.frozen import UsesFrozen
from pae_framework.layers import tokens_to_map
from pae_framework.plugins import Registry
from pae_framework.recipe.labels import FACTOR
from pae_framework.recipe.models import TokenizerSection
from pae_framework.tokenizer.adversary import Adversary
from pae_framework.tokenizer.balance import ADVERSARIAL, REGULARIZER, Balance
from pae_framework.tokenizer.model import Tokenizer
from pae_framework.tokenizer.reconstruction import ReconstructionTerms, total
from pae_framework.tokenizer.refinement import PriorRefiner
from pae_framework.tokenizer.regularization import active_weights, build_regularizers, needy

SIGNED = ("adversarial",)
"""Terms that are negative or positive, and large where their adaptive factor is."""


class TokenizerObjective(UsesFrozen):
    """The tokenizer with its loss; a term whose weight is 0 is neither built nor computed.

    Args:
        tokenizer: what is trained, with the parameters of the regularizers if they have any.
        section: the recipe's ``tokenizer``; weights are read from it.
        regularizers: by their label in the recipe; those of weight 0 may be left out.
        refiner: gives the refined targets; gets frozen. None where no regularizer needs them.
        adversary: the discriminator and when it counts; it stays outside the module tree.

    Raises:
        UsageError: a regularizer needs what is not there, or its label is a reserved name; or an
            adaptive weight has nothing to be measured by.
    """

    refiner: PriorRefiner

    def __init__(
        self,
        tokenizer: Tokenizer,
        section: TokenizerSection,
        regularizers: Mapping[str, Regularizer],
        refiner: PriorRefiner | None = None,
        adversary: Adversary | None = None,
    ):
        super().__init__()
        self.tokenizer = tokenizer
        self.tau = section.noise
        self.weights = active_weights(section)
        self.regularizers = nn.ModuleDict({label: regularizers[label] for label in self.weights})
        self.reconstruction = ReconstructionTerms(section.reconstruction, tokenizer.encoder)
        self.adversary = adversary
        self.step = 0
        self.target = section.target if needy(section) else None
        if refiner is not None:
            self.hold_frozen("refiner", refiner)
        self._check(section, refiner)

    def begin_step(self, step: int) -> None:
        """Set where the schedule of the adversarial term is; the first optimiser step is 0."""
        self.step = step

    def check(self) -> None:
        """Refuse adaptive terms where they cannot be measured; once what is frozen is frozen.

        Raises:
            UsageError: the layer at which one is balanced does not learn.
        """
        tokenizer = self.tokenizer
        layers: dict[str, tuple[str, nn.Parameter]] = {}
        if self.adversary is not None and self.adversary.adaptive:
            layers["adversarial"] = "decoder's last layer", tokenizer.decoder.last_layer()
        for label, term in self.regularizers.items():
            if term.adaptive:
                layers[label] = "last layer before the latents", tokenizer.layer_before_latents()
        for name, (where, layer) in layers.items():
            if not layer.requires_grad:
                raise UsageError(
                    f"the adaptive weight of {name!r} is measured at the {where}, which "
                    "tokenizer.train.lr_factors freeze; let it learn, or switch `adaptive` off"
                )

    def forward(self, batch: Batch, generator: torch.Generator) -> LossTerms:
        """What the training loop calls: :meth:`loss` of a batch's images."""
        return self.loss(batch[0], generator)

    def loss(self, images: Tensor, generator: torch.Generator) -> LossTerms:
        """Every weighted term and their sum ``loss``, for images (B, 3, S, S) in [0, 1].

        Adaptive factors stand beside them, as ``adversarial_weight`` and ``<label>_weight``.

        Args:
            images: a batch.
            generator: gives the seed from which the bottleneck, the noise, the discriminator and
                every regularizer get random numbers of their own: none depends on which others
                there are.
        """
        seed = int(torch.randint(2**63 - 1, (), generator=generator, device=generator.device))
        tokenizer = self.tokenizer
        pixels = tokenizer.encoder.normalize(images)
        features = tokenizer.features_of_pixels(pixels).tokens
        posterior = tokenizer.encode_features(
            pixels, features, seeding.generator(seed, "bottleneck")
        )
        tau = self.tau if self.training else 0.0
        reconstruction = tokenizer.decode(posterior.latents, tau, seeding.generator(seed, "noise"))
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
        factors = self._adversarial(terms, fidelity, reconstruction, seed)
        factors |= self._regularize(terms, fidelity, inputs, seed)
        terms["loss"] = total(terms, images)
        return terms | factors

    def _adversarial(
        self, terms: LossTerms, fidelity: Tensor, reconstruction: Tensor, seed: int
    ) -> LossTerms:
        """Add the adversarial term, where it counts at this step; return its adaptive factor."""
        if (adversary := self.adversary) is None:
            return {}
        if not (weight := adversary.weight * adversary.schedule.share(self.step)):
            return {}
        term = adversary.term(reconstruction, seeding.generator(seed, "discriminator"))
        factors: LossTerms = {}
        if adversary.adaptive:
            balance = Balance(fidelity, self.tokenizer.decoder.last_layer(), ADVERSARIAL)
            factors[f"adversarial{FACTOR}"] = factor = balance.factor(term, "the adversarial term")
            term = factor * term
        terms["adversarial"] = weight * term
        return factors

    def _regularize(
        self, terms: LossTerms, fidelity: Tensor, inputs: RegularizerInputs, seed: int
    ) -> LossTerms:
        """Add the regularizers' terms; return the factors of those that are adaptive."""
        factors: LossTerms = {}
        balance: Balance | None = None
        for label, weight in self.weights.items():
            regularizer = self.regularizers[label]
            own = seeding.generator(seed, "regularizer", label)
            term = regularizer(replace(inputs, generator=own))
            if regularizer.adaptive:
                layer = self.tokenizer.layer_before_latents()
                balance = balance or Balance(fidelity, layer, REGULARIZER)
                factors[f"{label}{FACTOR}"] = factor = balance.factor(term, f"the term {label!r}")
                term = factor * term
            terms[label] = weight * term
        return factors

    def _target(self, features: Tensor) -> Tensor | None:
        """What ssr and scr align with: the refined prior (B, C, h, w) or features (B, D, h, w)."""
        if self.target is None:
            return None
        return tokens_to_map(features) if self.target == "raw" else self.refiner.targets(features)

    def _check(self, section: TokenizerSection, refiner: PriorRefiner | None) -> None:
        """Refuse what would fail in the first step."""
        if self.target == "refined" and refiner is None:
            raise UsageError(
                f"tokenizer.regularizers.{needy(section)[0]} needs refined targets: the recipe "
                "needs a `tokenizer.refinement`, or `tokenizer.target: raw`"
            )
        adaptive = [label for label, term in self.regularizers.items() if term.adaptive]
        if adaptive:
            self.tokenizer.layer_before_latents()
        if self.adversary is not None and self.adversary.adaptive:
            adaptive.append("adversarial")
        if adaptive and not self.reconstruction.weights:
            raise UsageError(
                f"the adaptive weight of {adaptive[0]!r} is measured by the reconstruction terms, "
                "which all have weight 0 in tokenizer.reconstruction"
            )


def build_objective(
    tokenizer: Tokenizer,
    section: TokenizerSection,
    registry: Registry,
    refiner: PriorRefiner | None = None,
    adversary: Adversary | None = None,
) -> TokenizerObjective:
    """Build the loss a recipe describes around its tokenizer; terms of weight 0 are not built.

    Raises:
        UsageError, DataError, CheckpointError: see TokenizerObjective and ReconstructionTerms.
        PluginError: a component does not import.
    """
    regularizers = build_regularizers(section, registry, tokenizer)
    return TokenizerObjective(tokenizer, section, regularizers, refiner, adversary)
