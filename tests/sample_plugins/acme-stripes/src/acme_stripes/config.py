"""Parameters. No torch."""

from pydantic import Field

from pae_framework.config import DataSourceConfig, GeneratorConfig, ModulatorConfig


class StripesConfig(DataSourceConfig):
    """Stripes of random period."""

    first: int = Field(0, ge=0, description="number of the first image")
    count: int = Field(120, gt=0, description="number of images")


class GainConfig(ModulatorConfig):
    """No parameters."""


class PointwiseConfig(GeneratorConfig):
    """Two layers on each position."""

    width: int = Field(16, gt=0, description="hidden channels")
