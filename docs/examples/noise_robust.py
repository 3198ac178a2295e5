"""A regularizer: latents with a little noise decode to the same image."""

from pydantic import Field

from pae_framework import hookimpl
from pae_framework.config import Magnitude, RegularizerConfig
from pae_framework.contracts import Regularizer
from pae_framework.seeding import randn

pae_api = 1


class NoiseRobustConfig(RegularizerConfig):
    """Distance, by the recipe's reconstruction terms, between two decoded images."""

    needs_distance = True
    noise: Magnitude = Field(0.1, description="standard deviation of the noise")

    @property
    def decodes(self):
        """Decoder passes with gradient in each step, for the estimate of memory."""
        return 1


class NoiseRobust(Regularizer):
    """The distance of what is decoded with and without noise."""

    def __init__(self, config):
        super().__init__(config)
        self.noise = config.noise

    def forward(self, inputs):
        """The unweighted term, a scalar: a mean over images."""
        latents = inputs.posterior.latents
        noise = randn(latents.shape, inputs.generator).to(latents)
        decoded = inputs.decode(latents + self.noise * noise)
        return inputs.distance(decoded, inputs.reconstruction.detach())


@hookimpl
def pae_register_regularizers(register):
    register(
        "noise_robust",
        target=f"{__name__}:NoiseRobust",
        config=f"{__name__}:NoiseRobustConfig",
        summary="latents with noise decode to the same image",
    )
