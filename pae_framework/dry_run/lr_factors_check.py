"""Whether a recipe's ``lr_factors`` name parts that its models have."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from pae_framework.build import META, Networks, build_regularizers
from pae_framework.errors import UsageError
from pae_framework.flow.matching import FlowObjective
from pae_framework.recipe.loaded import LoadedRecipe
from pae_framework.tokenizer.losses.terms import NamedModules
from pae_framework.tokenizer.refinement import RefinementObjective
from pae_framework.training.lr_factors import factors_by_name
from pae_framework.training.train_settings import TrainSettings

PATHS = {
    "extractor": "extractor.train",
    "encoder": "tokenizer.encoder.train",
    "refine": "tokenizer.refinement.train",
    "tokenizer": "tokenizer.train",
    "generator": "generator.train",
}
"""Stage -> where its recipe describes its training."""


def check_lr_factors(
    trainings: Mapping[str, TrainSettings], loaded: LoadedRecipe, networks: Networks, classes: int
) -> None:
    """Look for every part that the stages' ``lr_factors`` name.

    Raises:
        UsageError: a model has no such part; says the key and lists the parts it has.
        PluginError: a component does not import.
    """
    for stage, train in trainings.items():
        if not train.lr_factors:
            continue
        with META:
            module = trained_module(stage, loaded, networks, classes)
        try:
            factors_by_name(module, train.lr_factors)
        except UsageError as error:
            raise UsageError(f"{PATHS[stage]}.{error}") from error


def trained_module(stage: str, loaded: LoadedRecipe, networks: Networks, classes: int) -> nn.Module:
    """A module whose weights have the names they have where the stage trains them."""
    recipe, tokenizer = loaded.recipe, networks.tokenizer
    if stage in ("extractor", "encoder"):
        encoder = networks.extractor if stage == "extractor" else networks.encoder
        assert encoder is not None
        return encoder.pretraining(classes)
    if stage == "refine":
        assert networks.refiner is not None
        return RefinementObjective(networks.refiner, networks.encoder)
    if stage == "tokenizer":
        terms = build_regularizers(recipe.tokenizer, loaded.registry, tokenizer)
        regularizers = NamedModules({term.name: term.regularizer for term in terms})
        return NamedModules({"tokenizer": tokenizer, "regularizers": regularizers})
    assert recipe.generator is not None
    assert networks.generator is not None
    return FlowObjective(networks.generator, recipe.generator.objective)
