"""The setting that names Inception weights. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Self

from pydantic import Field, field_validator

from pae_framework.config import ComponentConfig, PathText
from pae_framework.hub import default_or_file, is_file_name, weights_files
from pae_framework.metrics.inception import WEIGHTS, inception_file, missing_inception


class InceptionWeights(ComponentConfig):
    """Parameters of a component that uses the Inception network."""

    weights: PathText = Field(
        "default",
        description="Inception weights: `default`: the published file, from the cache of "
        "torch.hub; a local file; `none`: random weights, and no metric is called FID",
    )

    @field_validator("weights")
    @classmethod
    def _known(cls, weights: str) -> str:
        return default_or_file(weights)

    def files(self) -> Mapping[str, Path]:
        """The weights, if they are a local file."""
        return weights_files(self.weights)

    def missing(self) -> str | None:
        """What is missing if the weights are not on this machine."""
        return missing_inception(self.weights)

    def fetch(self) -> str | None:
        """Download the weights if they are missing."""
        if is_file_name(self.weights) or missing_inception(self.weights) is None:
            return None
        inception_file(self.weights)
        return WEIGHTS.where


class OptionalInceptionWeights(ComponentConfig):
    """Parameters of a component that uses the Inception network only if it is asked for."""

    weights: PathText | None = Field(
        None,
        description="Inception weights for the same distance in Inception's features, as in `adm`: "
        "`default`, a local file, or `none` for random weights; null: without it",
    )

    @field_validator("weights")
    @classmethod
    def _known(cls, weights: str | None) -> str | None:
        return None if weights is None else default_or_file(weights)

    def _inception(self) -> InceptionWeights | None:
        return None if self.weights is None else InceptionWeights(weights=self.weights)

    def files(self) -> Mapping[str, Path]:
        """The weights, if they are a local file."""
        inception = self._inception()
        return {} if inception is None else inception.files()

    def missing(self) -> str | None:
        """What is missing if weights are asked for that are not on this machine."""
        inception = self._inception()
        return None if inception is None else inception.missing()

    def fetch(self) -> str | None:
        """Download the weights if they are asked for and missing."""
        inception = self._inception()
        return None if inception is None else inception.fetch()

    def smoke(self) -> Self:
        """With random weights, if they are asked for."""
        return self if self.weights is None else self.model_copy(update={"weights": "none"})
