"""The table of component kinds, used by hooks, registry, recipes, help and contract checks.

Classes are given by name and imported on demand: importing this module loads neither pydantic nor
torch.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pae_framework.config import ComponentConfig


@dataclass(frozen=True)
class Kind:
    """One kind of component."""

    name: str
    config: str
    """Name of the class in :mod:`pae_framework.config` that its config models derive from."""
    contract: str
    """Name of the class in :mod:`pae_framework.contracts` that its components derive from."""
    path: tuple[str, ...]
    """Key path of such a component in a recipe; ``{name}`` stands for its label."""

    @property
    def hook(self) -> str:
        """Name of the hook that registers components of this kind."""
        return f"pae_register_{self.name}s"

    def config_class(self) -> type[ComponentConfig]:
        """The base class of its config models."""
        found: type[ComponentConfig] = _import("pae_framework.config", self.config)
        return found

    def contract_class(self) -> type[Any]:
        """The base class of its components; imports torch."""
        found: type[Any] = _import("pae_framework.contracts", self.contract)
        return found


def _import(module: str, name: str) -> Any:
    return getattr(importlib.import_module(module), name)


_DISCRIMINATOR = ("tokenizer", "adversarial", "discriminator")
_REGULARIZER = ("tokenizer", "regularizers", "{name}")

KINDS = {
    kind.name: kind
    for kind in (
        Kind("dataset", "DataSourceConfig", "DataSource", ("data", "train")),
        Kind("tokenizer", "TokenizerConfig", "Tokenizer", ("tokenizer",)),
        Kind("encoder", "EncoderConfig", "Encoder", ("tokenizer", "encoder")),
        Kind("modulator", "ModulatorConfig", "Modulator", ("tokenizer", "modulator")),
        Kind("bottleneck", "BottleneckConfig", "Bottleneck", ("tokenizer", "bottleneck")),
        Kind("decoder", "DecoderConfig", "Decoder", ("tokenizer", "decoder")),
        Kind("discriminator", "DiscriminatorConfig", "Discriminator", _DISCRIMINATOR),
        Kind("regularizer", "RegularizerConfig", "Regularizer", _REGULARIZER),
        Kind("generator", "GeneratorConfig", "Generator", ("generator",)),
        Kind("evaluator", "EvaluatorConfig", "Evaluator", ("evaluate", "{name}")),
        Kind("tracker", "TrackerConfig", "Tracker", ("trackers", "{name}")),
    )
}
"""By name, in the order of the data flow."""
