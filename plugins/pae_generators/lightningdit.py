"""LightningDiT (hustvl/LightningDiT, commit 2725fed), with all its flags.

A diffusion transformer with adaLN-Zero conditioning, by default with RMSNorm, SwiGLU, rotary
positions and fixed absolute ones, like its released weights. State-dict keys are those of the
released files.

Legend: B batch, N tokens, D width, C latent channels, p patch.
"""

from __future__ import annotations

from torch import Tensor, nn

from pae_framework.config import LatentShape
from pae_framework.layers import unpatchify
from pae_generators.base import FlowTransformer
from pae_generators.blocks import DiTBlock, FinalLayer, linear_layers, zero_modulations
from pae_generators.config import LightningDiTConfig
from pae_generators.embeddings import LabelEmbedding, PatchEmbedding, time_embedding
from pae_generators.positions import RotaryPositions, fixed_positions


class LightningDiT(FlowTransformer):
    """The network; for its parameters see :class:`~pae_generators.config.LightningDiTConfig`.

    A new network returns velocity 0 everywhere (adaLN-Zero).
    """

    def __init__(self, config: LightningDiTConfig, latent: LatentShape, num_classes: int):
        super().__init__(config, latent, num_classes)
        size = config.architecture
        width, grid = size.width, latent.side // size.patch
        self.patch = size.patch
        self.channels_out = latent.channels * (2 if config.learn_sigma else 1)
        self.x_embedder = PatchEmbedding(latent.channels, width, size.patch)
        self.pos_embed = fixed_positions(grid, width) if config.absolute_positions else None
        self.t_embedder = time_embedding(config.time_embedding, width)
        self.y_embedder = LabelEmbedding(config.class_count(num_classes), width)
        self.feat_rope = RotaryPositions(grid, width // size.heads) if config.rope else None
        self.blocks = nn.ModuleList(DiTBlock(width, size.heads, config) for _ in range(size.depth))
        self.final_layer = FinalLayer(width, size.patch**2 * self.channels_out, config)
        self._initialize()

    def velocity(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        """Velocity in the network's own time convention; shapes as in :meth:`forward`."""
        tokens = self.x_embedder(x)  # (B, N, D)
        if self.pos_embed is not None:
            tokens = tokens + self.pos_embed
        condition = (self.t_embedder(t) + self.y_embedder(y))[:, None]  # (B, 1, D)
        rotation = None if self.feat_rope is None else self.feat_rope(tokens)
        for block in self.blocks:
            tokens = block(tokens, condition, rotation)
        patches = self.final_layer(tokens, condition)  # (B, N, p p C), or 2 C with learn_sigma
        return unpatchify(patches, self.patch, self.channels_out)[:, : self.latent.channels]

    def _initialize(self) -> None:
        """Initialize as the original does, in its order."""
        for layer in linear_layers(self):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
        self.x_embedder.initialize()
        nn.init.normal_(self.y_embedder.embedding_table.weight, std=0.02)
        for layer in linear_layers(self.t_embedder):
            nn.init.normal_(layer.weight, std=0.02)
        zero_modulations(self)
