"""Prior refinement: compact targets learned from the frozen features, before the tokenizer (PAE).

Stated by the paper (arXiv 2605.07915, section 3): a projector P_t makes targets Z_T = P_t(H) with
as many channels as the latents; a 4-layer ViT Q_t of width 1024 reproduces H from them; the loss is
``rep |Q_t(Z_T) - H|^2 + gram |Gram(Z_T) - Gram(H_ref)|_F^2``. H_ref: see ``structure.py``.

Inferred here: P_t has the form of the tokenizer's projector with its RMS norm, whatever the
tokenizer's bottleneck (losses that use the targets compare directions of tokens); Q_t is a linear
map, fixed positions, pre-norm blocks, a norm and a linear map; both squares are means per
entry; Gram matrices hold cosines.

Legend: B batch, N tokens, D encoder width, d latent channels, g grid side.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pae_framework.config import AttentionKernel
from pae_framework.contracts import Batch, Encoder, LossTerms, cached_tokens
from pae_framework.errors import DataError
from pae_framework.frozen import UsesFrozen
from pae_framework.layers import Block, cosine_gram, map_to_tokens, rms_norm, sincos_positions
from pae_framework.tokenizer.model import Projector
from pae_framework.tokenizer.structure import StructureReference
from pae_framework.tokenizer.tokenizer_settings import RefinementSettings


class PriorRefiner(nn.Module):
    """The projector P_t with the deprojector Q_t that trains it.

    Args:
        settings: the recipe's ``tokenizer.refinement``.
        encoder: defines D, g and the projector's attention heads; no reference is kept.
        channels: d.
        kernel: attention kernel of projector and deprojector.
    """

    mean: Tensor

    def __init__(
        self,
        settings: RefinementSettings,
        encoder: Encoder,
        channels: int,
        kernel: AttentionKernel = "sdpa",
    ):
        super().__init__()
        self.settings = settings
        self.projector = Projector(encoder.width, encoder.heads, channels, kernel)
        self.deprojector = TargetDecoder(settings, channels, encoder, kernel)
        self.structure = StructureReference(settings)
        self.register_buffer("mean", torch.zeros(encoder.width))

    @torch.no_grad()
    def targets(self, tokens: Tensor) -> Tensor:
        """Refined targets Z_T (B, d, g, g) of frozen tokens (B, N, D); without gradient."""
        return self._project(self._centered(tokens))

    def loss(self, tokens: Tensor, images: Tensor) -> LossTerms:
        """The weighted terms ``reproduction`` and ``gram``, and their sum ``loss``.

        Args:
            tokens: H, (B, N, D), of the frozen encoder.
            images: their images, (B, 3, S, S) in [0, 1].
        """
        settings = self.settings
        tokens = self._centered(tokens)
        targets = self._project(tokens)  # (B, d, g, g)
        terms: LossTerms = {}
        if settings.reproduction:
            reproduced = self.deprojector(targets)
            terms["reproduction"] = settings.reproduction * F.mse_loss(reproduced.float(), tokens)
        if settings.gram:
            reference = cosine_gram(self.structure(tokens, images))
            gram = F.mse_loss(cosine_gram(map_to_tokens(targets)), reference)
            terms["gram"] = settings.gram * gram
        terms["loss"] = torch.stack(list(terms.values())).sum()
        return terms

    @torch.no_grad()
    def measure(self, batches: Iterable[Tensor]) -> None:
        """Measure the mean token (D,) of ``batches`` of tokens (B, N, D), for ``centre``.

        Raises:
            DataError: there are no tokens.
        """
        count, total = 0, torch.zeros_like(self.mean, dtype=torch.float64)
        for tokens in batches:
            flat = tokens.flatten(0, 1)  # (B N, D)
            total += flat.sum(dim=0, dtype=torch.float64)
            count += len(flat)
        if not count:
            raise DataError(
                "tokenizer.refinement.centre: there are no images to measure the mean on"
            )
        self.mean.copy_(total / count)

    def _centered(self, tokens: Tensor) -> Tensor:
        tokens = tokens.float()
        return tokens - self.mean if self.settings.centre else tokens

    def _project(self, tokens: Tensor) -> Tensor:
        return rms_norm(self.projector(tokens))


class RefinementObjective(UsesFrozen):
    """The refiner with the frozen encoder whose tokens it is trained on.

    Args:
        refiner: is trained.
        encoder: gets frozen; stays outside the module tree.
    """

    encoder: Encoder

    def __init__(self, refiner: PriorRefiner, encoder: Encoder):
        super().__init__()
        self.refiner = refiner
        self.hold_frozen("encoder", encoder)

    def forward(self, batch: Batch, generator: torch.Generator) -> LossTerms:
        """The refiner's loss on a batch of images; called by the training loop."""
        images, tokens = batch[0], cached_tokens(batch)
        if tokens is None:
            with torch.no_grad():
                tokens = self.encoder(self.encoder.normalize(images)).tokens
        return self.refiner.loss(tokens, images)


class TargetDecoder(nn.Module):
    """Q_t: a small ViT that reproduces the encoder's tokens from their targets."""

    positions: Tensor

    def __init__(
        self,
        settings: RefinementSettings,
        channels: int,
        encoder: Encoder,
        kernel: AttentionKernel,
    ):
        super().__init__()
        inner = settings.width or encoder.width
        heads = settings.heads or encoder.heads
        self.embed = nn.Linear(channels, inner)
        self.register_buffer("positions", sincos_positions(encoder.grid, inner), persistent=False)
        self.blocks = nn.ModuleList(
            Block(inner, heads, kernel=kernel) for _ in range(settings.depth)
        )
        self.norm = nn.LayerNorm(inner, eps=1e-6)
        self.predict = nn.Linear(inner, encoder.width)

    def forward(self, targets: Tensor) -> Tensor:
        """Tokens (B, N, D) of targets (B, d, g, g)."""
        x = self.embed(map_to_tokens(targets)) + self.positions  # (B, N, width)
        for block in self.blocks:
            x = block(x)
        return self.predict(self.norm(x))
