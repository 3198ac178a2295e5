"""How tiny_vit trains itself: masked autoencoding with a class loss on what is visible."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pae_encoders.augment import random_crop
from pae_encoders.tiny_vit import TinyViT
from pae_framework.contracts import LossTerms, PretrainingObjective
from pae_framework.layers import Block, patchify


class MaskedObjective(PretrainingObjective):
    """MAE (He et al., 2111.06377) with a linear classifier on the mean of the visible tokens.

    One pass through the encoder serves both terms: it sees a random part of the tokens, a small
    decoder predicts the pixels of the hidden patches (squared error), and the classifier must name
    the class from the same part. MAE standardises each patch first; not here, since then the tokens
    of a small ViT hardly differ within an image, and such a prior has no structure to align with.
    """

    def __init__(self, encoder: TinyViT, num_classes: int):
        super().__init__()
        settings = encoder.settings
        self.encoder = encoder
        self.class_weight = settings.class_weight
        self.crop = settings.crop
        tokens = encoder.grid**2
        self.visible = max(1, tokens - round(settings.mask_ratio * tokens))
        self.mask_token = nn.Parameter(torch.randn(encoder.width) * 0.02)
        self.decoder = nn.Sequential(
            *(Block(encoder.width, encoder.heads) for _ in range(settings.decoder_depth)),
            nn.LayerNorm(encoder.width, eps=1e-6),
            nn.Linear(encoder.width, 3 * encoder.patch**2),
        )
        self.classifier = nn.Sequential(
            nn.BatchNorm1d(encoder.width, affine=False), nn.Linear(encoder.width, num_classes)
        )

    def loss(self, images: Tensor, labels: Tensor, generator: torch.Generator) -> LossTerms:
        """Terms ``masked`` (mean squared error per hidden pixel) and ``class`` (nats, weighted)."""
        pixels = self.encoder.normalize(random_crop(images, self.crop, generator))
        order = random_orders(len(images), self.encoder.grid**2, generator).to(pixels.device)
        seen, hidden = order[:, : self.visible], order[:, self.visible :]

        tokens = self.encoder.encode(take(self.encoder.embed_patches(pixels), seen))
        predicted = self._predict_hidden(tokens, hidden)
        target = take(patchify(pixels, self.encoder.patch), hidden)
        masked = F.mse_loss(predicted, target)
        if not self.class_weight:
            return {"loss": masked, "masked": masked}
        classes = F.cross_entropy(self.classifier(tokens.mean(dim=1)), labels)
        classes = self.class_weight * classes
        return {"loss": masked + classes, "masked": masked, "class": classes}

    def _predict_hidden(self, tokens: Tensor, hidden: Tensor) -> Tensor:
        """Pixels (B, n, p*p*3) of the hidden patches."""
        positions = self.encoder.positions.expand(len(tokens), -1, -1)
        questions = self.mask_token + take(positions, hidden)
        x = torch.cat([tokens, questions], dim=1)
        return self.decoder(x)[:, tokens.shape[1] :]


def random_orders(count: int, tokens: int, generator: torch.Generator) -> Tensor:
    """A random permutation of the tokens for each image, (B, N)."""
    return torch.rand(count, tokens, generator=generator).argsort(dim=1)


def take(tokens: Tensor, places: Tensor) -> Tensor:
    """Tokens (B, n, D) at the places (B, n) of (B, N, D)."""
    return tokens.gather(1, places[..., None].expand(-1, -1, tokens.shape[-1]))
