"""The evaluator `sharpness`."""

from acme_texture.contrast import local_contrast
from pae_framework.contracts import Evaluator, Metric


class Sharpness(Evaluator):
    """Whether reconstructions are as sharp as their images: 1 if they are."""

    def evaluate(self, inputs, directory):
        """One metric."""
        ratio = _contrast(inputs.reconstructions) / max(_contrast(inputs.images), 1e-6)
        return [
            Metric(
                name="sharpness/ratio",
                label="sharpness",
                value=ratio,
                higher_is_better=True,
                protocol=dict(inputs.protocol),
                subject=inputs.protocol_of("tokenizer"),
            )
        ]


def _contrast(images):
    parts = [local_contrast(part / 255).sum().item() for part in images.split(500)]
    return sum(parts) / len(images)
