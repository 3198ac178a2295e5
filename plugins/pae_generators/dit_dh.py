"""DiT-DH, the generator of RAE (bytetriper/RAE, commit a4d18c4; Zheng et al. 2025).

An encoder of narrow blocks reads the noisy latents, conditioned on time and label. Its tokens plus
the time then condition a head of few wide blocks, token by token (like DDT's decoder). State-dict
keys are those of the released files.

Legend: B batch, N tokens, De and Dd widths of encoder and head, C latent channels, p patch.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from pae_framework.config import LatentShape
from pae_framework.layers import unpatchify
from pae_generators.base import FlowTransformer
from pae_generators.blocks import DiTBlock, FinalLayer, linear_layers, zero_modulations
from pae_generators.config_dh import DiTDHConfig
from pae_generators.embeddings import LabelEmbedding, PatchEmbedding, time_embedding
from pae_generators.positions import RotaryPositions, fixed_positions


class DiTDH(FlowTransformer):
    """The network; for its parameters see :class:`~pae_generators.config_dh.DiTDHConfig`.

    A new network returns velocity 0 everywhere (adaLN-Zero).
    """

    def __init__(self, config: DiTDHConfig, latent: LatentShape, num_classes: int):
        super().__init__(config, latent, num_classes)
        encoder, head = config.architecture.encoder, config.architecture.head
        narrow, wide, grid = encoder.width, head.width, latent.side // config.patch
        self.patch = config.patch
        self.encoder_depth = encoder.depth
        self.s_embedder = PatchEmbedding(latent.channels, narrow, config.patch)
        self.x_embedder = PatchEmbedding(latent.channels, wide, config.patch)
        self.s_projector = nn.Identity() if narrow == wide else nn.Linear(narrow, wide)
        self.t_embedder = time_embedding("fourier", narrow)
        self.y_embedder = LabelEmbedding(config.class_count(num_classes), narrow)
        self.pos_embed = fixed_positions(grid, narrow) if config.absolute_positions else None
        self.enc_feat_rope = RotaryPositions(grid, narrow // encoder.heads) if config.rope else None
        self.dec_feat_rope = RotaryPositions(grid, wide // head.heads) if config.rope else None
        sizes = [encoder] * encoder.depth + [head] * head.depth
        self.blocks = nn.ModuleList(DiTBlock(size.width, size.heads, config) for size in sizes)
        self.final_layer = FinalLayer(wide, config.patch**2 * latent.channels, config)
        self._initialize()

    def velocity(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        """Velocity in the network's own time convention; shapes as in :meth:`forward`."""
        time = self.t_embedder(t)[:, None]  # (B, 1, De)
        per_token = self.s_projector(F.silu(time + self._encode(x, time, y)))  # (B, N, Dd)
        tokens = self.x_embedder(x)  # (B, N, Dd)
        rotation = None if self.dec_feat_rope is None else self.dec_feat_rope(tokens)
        for block in self.blocks[self.encoder_depth :]:
            tokens = block(tokens, per_token, rotation)
        return unpatchify(self.final_layer(tokens, per_token), self.patch, self.latent.channels)

    def _encode(self, x: Tensor, time: Tensor, y: Tensor) -> Tensor:
        """Tokens (B, N, De) of the encoder, given time (B, 1, De) and labels (B,)."""
        tokens = self.s_embedder(x)  # (B, N, De)
        if self.pos_embed is not None:
            tokens = tokens + self.pos_embed
        # Modulations apply SiLU again: it is applied twice, as in the original.
        condition = F.silu(time + self.y_embedder(y)[:, None])  # (B, 1, De)
        rotation = None if self.enc_feat_rope is None else self.enc_feat_rope(tokens)
        for block in self.blocks[: self.encoder_depth]:
            tokens = block(tokens, condition, rotation)
        return tokens

    def _initialize(self) -> None:
        """Initialize as the original does: torch's defaults, except for these layers."""
        self.s_embedder.initialize()
        self.x_embedder.initialize()
        nn.init.normal_(self.y_embedder.embedding_table.weight, std=0.02)
        for layer in linear_layers(self.t_embedder):
            nn.init.normal_(layer.weight, std=0.02)
        zero_modulations(self)
