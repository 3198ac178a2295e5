"""How easy the latents are to model by diffusion: SSC, LPC, GSQ, eRank (PAE, arXiv 2605.07915)."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path

from torch import Tensor

from pae_evaluators.config import ManifoldConfig
from pae_evaluators.diagnostics import Diagnostics, Of
from pae_evaluators.manifold_references import reference_metrics
from pae_framework.contracts import EvaluationInputs, Evaluator, Metric
from pae_framework.layers import map_to_tokens


class Manifold(Evaluator):
    """Diagnostics of the latents of the test images, and of what they are compared with.

    SSC and GSQ are also computed for the features of a frozen encoder, as a bound for latents
    aligned with them. :mod:`pae_evaluators.manifold_references` describes the other references,
    whose metrics have the key ``reference`` in their subject.
    """

    config: ManifoldConfig

    def evaluate(self, inputs: EvaluationInputs, directory: Path) -> list[Metric]:
        """Compute the diagnostics that are turned on."""
        diagnostics = Diagnostics(self.config, inputs)
        tokenizer = Of(inputs.protocol_of("tokenizer"))
        metrics: list[Metric] = []
        if self.config.ssc:
            chosen = diagnostics.chosen()
            tokens = map_to_tokens(inputs.latents[chosen])
            metrics += _ssc(diagnostics, tokenizer, tokens, chosen)
            if encoder := self._encoder(inputs, "SSC"):
                metrics += _ssc(diagnostics, encoder, inputs.features(chosen), chosen)
        if lacking := diagnostics.lacks_lpc:
            self.notes.not_available["LPC"] = lacking
        elif self.config.lpc:
            latents = inputs.latents[diagnostics.chosen()]
            metrics.append(diagnostics.lpc(tokenizer, latents, inputs.decode))
        pooled = inputs.latents.flatten(2).mean(2)
        if self.config.gsq and diagnostics.classes == 1:
            warnings.warn("GSQ is skipped: all test images are of one class", stacklevel=2)
        elif self.config.gsq:
            draws = diagnostics.draws()
            metrics.append(diagnostics.gsq(tokenizer, pooled, draws))
            if encoder := self._encoder(inputs, "GSQ"):
                metrics.append(diagnostics.gsq(encoder, inputs.pooled_features, draws))
        if self.config.erank:
            metrics.append(diagnostics.erank(tokenizer, pooled))
        return [*metrics, *reference_metrics(diagnostics)]

    def _encoder(self, inputs: EvaluationInputs, label: str) -> Of | None:
        """The encoder's features; None, with a note, if there are none or it is not frozen."""
        if (lacking := inputs.unavailable.get("features")) is not None:
            self.notes.not_available[f"{label} encoder"] = lacking
            return None
        return Of(inputs.protocol_of("encoder"), "_encoder", " encoder")


def _ssc(diagnostics: Diagnostics, of: Of, tokens: Tensor, chosen: Tensor) -> Iterator[Metric]:
    if (metric := diagnostics.ssc(of, tokens, chosen)) is not None:
        yield metric
        return
    warnings.warn(
        f"SSC{of.word} is skipped: none of {len(chosen)} masks has two segments on the grid of "
        f"{tokens.shape[1]} tokens",
        stacklevel=2,
    )
