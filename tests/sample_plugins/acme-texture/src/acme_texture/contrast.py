"""The regularizer `contrast`."""

from pae_framework.contracts import Regularizer


class Contrast(Regularizer):
    """Squared difference of the local contrast of image and reconstruction, mean over images."""

    def __init__(self, config):
        super().__init__(config)
        self.reach = config.reach

    def forward(self, inputs):
        """The term, a scalar."""
        wanted = local_contrast(inputs.images, self.reach)
        return (local_contrast(inputs.reconstruction, self.reach) - wanted).square().mean()


def local_contrast(images, reach=1):
    """Mean absolute difference (B,) of pixels of (B, C, S, S) that are `reach` px apart."""
    across = (images[..., reach:] - images[..., :-reach]).abs().flatten(1).mean(1)
    down = (images[..., reach:, :] - images[..., :-reach, :]).abs().flatten(1).mean(1)
    return (across + down) / 2
