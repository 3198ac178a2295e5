"""CLIP's image towers as encoders, built by open-clip.

Legend: B batch, N patch tokens, D width, S image side, S' input side.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any, Self

import torch
import torch.nn.functional as F
from open_clip.transformer import QuickGELU, VisionTransformer
from torch import Tensor, nn

from pae_encoders.clip_config import CLIPConfig
from pae_encoders.clip_models import ClipForm
from pae_encoders.vfm import resize_positions, resized
from pae_framework.contracts import Encoder, Features
from pae_framework.errors import CheckpointError
from pae_framework.hub import weights_path
from pae_framework.tensor_files import load_state
from pae_framework.weight_files import read_checkpoint

_TOWER = "visual."
"""What precedes the names of the image tower in open-clip's files."""
_LAYER_SCALE = 1e-4
"""Initial value of layer scale."""


class CLIP(Encoder):
    """An image tower of open-clip's: patch tokens after the last norm, without its affine part.

    ``pooled`` is the class token after the same norm. Names of weights are open-clip's. CoCa's
    attention pooling and the projection to text are not used; they are kept for files.

    Always in eval mode. The caller decides whether parameters are trainable.
    """

    visual: Any  # an nn.Module, whose attributes mypy does not know

    def __init__(self, config: CLIPConfig, image_size: int):
        super().__init__(config, image_size)
        self.settings, form = config, config.form
        self.form = form
        self.grid, self.input_side = config.token_grid(image_size), config.input_side(image_size)
        self.width, self.heads, self.patch = form.width, form.heads, form.patch
        self.mean, self.std = config.statistics
        self.visual = build_tower(form)
        self.eval()

    def normalize(self, images: Tensor) -> Tensor:
        """Resize images (B, 3, S, S) in [0, 1] to (B, 3, S', S') and standardize them."""
        return super().normalize(resized(images, self.input_side))

    def forward(self, pixels: Tensor) -> Features:
        """Features of normalized pixels (B, 3, S', S')."""
        *_, x = self._blocks(pixels)
        x = F.layer_norm(x, (self.width,), eps=self.visual.ln_post.eps)
        return Features(x[:, 1:], pooled=x[:, 0])

    def pool(self, pixels: Tensor, pooling: str) -> Tensor:
        """Features of an image; ``head``: those that open-clip compares with text."""
        if pooling != "head":
            return super().pool(pixels, pooling)
        *_, x = self._blocks(pixels)
        pooled: Tensor = self.visual._pool(x)[0] @ self.visual.proj
        return pooled

    def distance_label(self, label: str, name: str) -> str:
        """With the model; see :class:`pae_framework.contracts.Encoder`."""
        return self.settings.distance_label(label, name)

    def feature_maps(self, pixels: Tensor) -> Iterator[Tensor]:
        """Patch tokens (B, N, D) after each block, without the last norm."""
        for x in self._blocks(pixels):
            yield x[:, 1:]

    def train(self, mode: bool = True) -> Self:
        """Stay in eval mode."""
        return super().train(False)

    def load_pretrained(self) -> None:
        """Load the weights the config names; see :class:`pae_framework.contracts.Encoder`."""
        config = self.settings
        if config.weights == "none":
            return
        path = weights_path(config.weights, config.remote)
        found = read_checkpoint(path, "average", ("visual.conv1.weight",))
        tower = {name: t for name, t in found.items() if name.startswith(_TOWER)}
        if not tower:
            raise CheckpointError(f"{path} holds no image tower with open-clip's names (visual.*)")
        load_state(self, tower, f"{path}, read as a {config.model},")

    def _blocks(self, pixels: Tensor) -> Iterator[Tensor]:
        """The class token and the patch tokens (B, 1 + N, D) after each block."""
        visual = self.visual
        x = visual.conv1(pixels).flatten(2).transpose(1, 2)
        learned = visual.positional_embedding
        positions = resize_positions(learned[None, 1:], self.grid, antialias=True)
        first = (visual.class_embedding + learned[0]).expand(len(x), 1, -1)
        x = visual.ln_pre(torch.cat([first, x + positions], dim=1))
        for block in visual.transformer.resblocks:
            x = block(x)
            yield x


def build_tower(form: ClipForm) -> VisionTransformer:
    """open-clip's image tower with the sizes of ``form`` and random weights."""
    return VisionTransformer(
        image_size=form.grid * form.patch,
        patch_size=form.patch,
        width=form.width,
        layers=form.depth,
        heads=form.heads,
        mlp_ratio=(form.mlp + 0.5) / form.width,  # open-clip rounds the product down
        ls_init_value=_LAYER_SCALE if form.layer_scale else None,
        attentional_pool=form.pool == "attention",
        no_ln_pre=not form.first_norm,
        pool_type="avg" if form.pool == "avg" else "tok",
        final_ln_after_pool=form.pool == "avg",
        output_dim=form.embedding,
        act_layer=QuickGELU if form.quick_gelu else nn.GELU,
        norm_layer=partial(nn.LayerNorm),
    )
