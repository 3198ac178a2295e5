"""The regularizers of a recipe: which count, built for their tokenizer, with what they need."""

from __future__ import annotations

from pae_framework.contracts import Regularizer
from pae_framework.errors import UsageError
from pae_framework.plugins import Registry
from pae_framework.recipe.labels import RESERVED, label_fault
from pae_framework.recipe.models import TokenizerSection
from pae_framework.tokenizer.model import Tokenizer


def active_weights(section: TokenizerSection) -> dict[str, float]:
    """Weights of the regularizers that are not 0, by label.

    Raises:
        UsageError: a label is not one, or a name the engine uses itself.
    """
    for label, part in section.regularizers.items():
        if (fault := label_fault(label, RESERVED)) is not None:
            hint = f"give it another label and say `use: {part.use}`"
            raise UsageError(f"tokenizer.regularizers.{label}: {fault}; {hint}")
    weights = {label: part.config.weight for label, part in section.regularizers.items()}
    return {label: weight for label, weight in weights.items() if weight}


def build_regularizers(
    section: TokenizerSection, registry: Registry, tokenizer: Tokenizer
) -> dict[str, Regularizer]:
    """Build the regularizers that count, by label, with the parameters they make for themselves.

    Initial weights are drawn from torch's default generator.

    Raises:
        UsageError: see :func:`active_weights`.
        PluginError: a component does not import.
    """
    width, latent = tokenizer.encoder.width, tokenizer.latent
    channels = width if section.target == "raw" else latent.channels
    built: dict[str, Regularizer] = {}
    for label in active_weights(section):
        part = section.regularizers[label]
        regularizer = registry.find(part.kind, part.use).component_class()(part.config)
        regularizer.prepare(latent, width, channels if part.config.needs_target else None)
        built[label] = regularizer
    return built


def needy(section: TokenizerSection) -> list[str]:
    """Labels of the regularizers that count and need a target."""
    regularizers = section.regularizers
    return [label for label in active_weights(section) if regularizers[label].config.needs_target]
