"""Parameters of all components. No torch."""

from pydantic import Field

from pae_framework.config import EncoderConfig, EvaluatorConfig, RegularizerConfig, Side, Width


class TextureConfig(EncoderConfig):
    """Patches of an image and of its local contrast."""

    patch: Side = Field(4, description="side of a patch, px")
    width: Width = Field(24, description="token width")

    def token_grid(self, image_size):
        """Patches per side."""
        if image_size % self.patch:
            raise ValueError(f"images of {image_size} px have no whole patches of {self.patch} px")
        return image_size // self.patch

    def token_width(self):
        """The width."""
        return self.width

    def feature_maps(self):
        """The tokens only."""
        return 1

    def parameters(self, image_size):
        """One convolution of four channels, with biases."""
        return self.width * (4 * self.patch**2 + 1)

    def smoke(self):
        """Narrower."""
        return self.model_copy(update={"width": 24})


class ContrastConfig(RegularizerConfig):
    """Squared difference of local contrast."""

    reach: Side = Field(1, description="distance of the compared pixels, px")


class SharpnessConfig(EvaluatorConfig):
    """Ratio of local contrasts."""

    @property
    def needs(self):
        """What the engine must compute for it."""
        return frozenset({"reconstructions"})
