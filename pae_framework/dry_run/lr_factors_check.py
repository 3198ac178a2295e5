"""Checks that ``lr_factors`` name parts of the trained models."""

from __future__ import annotations

from torch import nn

from pae_framework.build import META, Networks, build_regularizers
from pae_framework.errors import UsageError
from pae_framework.flow.matching import FlowObjective
from pae_framework.recipe.loaded import LoadedRecipe
from pae_framework.recipe.nodes import dotted
from pae_framework.recipe.stage_table import STAGES, trainings
from pae_framework.tokenizer.losses.terms import NamedModules
from pae_framework.tokenizer.refinement import RefinementObjective
from pae_framework.training.optimizer import parameter_factors


def check_lr_factors(loaded: LoadedRecipe, networks: Networks, classes: int) -> None:
    """Check that ``lr_factors`` of every stage name parts of the model it trains.

    Raises:
        UsageError: a model has no such part; names the key and lists the parts.
        PluginError: a component cannot be imported.
    """
    for name, train in trainings(loaded.recipe).items():
        if not train.lr_factors:
            continue
        with META:
            module = trained_module(name, loaded, networks, classes)
        try:
            if module is not None:
                parameter_factors(module, train.lr_factors)
        except UsageError as error:
            path = dotted(STAGES[name].train_path or ())
            raise UsageError(f"{path}.{error}") from error


def trained_module(
    stage: str, loaded: LoadedRecipe, networks: Networks, classes: int
) -> nn.Module | None:
    """A module whose weights are named as in the stage; None if the stage is unknown here."""
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
    if stage == "generator":
        assert recipe.generator is not None
        assert networks.generator is not None
        return FlowObjective(networks.generator, recipe.generator.objective)
    return None
