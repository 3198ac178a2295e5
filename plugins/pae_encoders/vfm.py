"""Pretrained vision transformers as encoders.

Legend: B batch, N patch tokens, P class and register tokens, D width, S' side of the input.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pae_encoders.positions import resize_positions
from pae_encoders.pretrained import read_pretrained
from pae_encoders.transformers_names import NAMES, Same, from_released, to_released
from pae_encoders.trunks import build_trunk, image_statistics
from pae_encoders.vfm_config import FoundationConfig
from pae_framework.contracts import Encoder, Features
from pae_framework.errors import CheckpointError
from pae_framework.hub import weights_path
from pae_framework.tensor_files import differences, load_state


class FoundationEncoder(Encoder):
    """A timm ViT without classifier: patch tokens after a last norm without affine (RAE, PAE).

    Pooled is the class token, after the same norm, where there is one; else the mean of the tokens.
    SigLIP2's own attention pooling would expect tokens after the affine part of the norm, which
    released tokenizers do not keep, so its mean is taken too; its weights stay, unused, for those
    files. So does the mask token of DINOv2 and DINOv3.

    Always in eval mode. Whether weights learn is for who holds the encoder to say.
    """

    vit: Any  # nn.Module, whose attributes would all be unknown
    class_position: Tensor | None
    mask_token: Tensor | None

    def __init__(self, config: FoundationConfig, image_size: int):
        super().__init__(config, image_size)
        self.settings, form = config, config.form
        self.form = form
        self.grid, self.input_side = config.token_grid(image_size), config.input_side(image_size)
        self.width, self.heads, self.patch = form.width, form.heads, form.patch
        self.mean, self.std = image_statistics(config.variant.hub_name(config.tag))
        self.vit = build_trunk(config.family, config.variant.name, form)
        # timm adds it to the class token where there are registers, and keeps it among the
        # positions where there are none; apart, it survives the way to a released file and back.
        position = nn.Parameter(torch.zeros(1, 1, form.width)) if form.class_position else None
        self.register_parameter("class_position", position)
        self.register_buffer("mask_token", self._mask_token() if form.mask_token else None)
        self.eval()

    def normalize(self, images: Tensor) -> Tensor:
        """Resize images (B, 3, S, S) in [0, 1] to (B, 3, S', S') and standardise them.

        Bicubic without antialiasing, as PAE and RAE do.
        """
        if images.shape[-1] != self.input_side:
            images = F.interpolate(
                images, size=self.input_side, mode="bicubic", align_corners=False
            )
        return super().normalize(images)

    def forward(self, pixels: Tensor) -> Features:
        """Features of normalised pixels (B, 3, S', S')."""
        *_, x = self._blocks(pixels)
        x = self.vit.norm(x)
        tokens = x[:, self.form.prefix :]
        return Features(tokens, pooled=x[:, 0] if self.form.class_token else tokens.mean(dim=1))

    def feature_maps(self, pixels: Tensor) -> Iterator[Tensor]:
        """Patch tokens (B, N, D) after each block, without the last norm."""
        for x in self._blocks(pixels):
            yield x[:, self.form.prefix :]

    def train(self, mode: bool = True) -> Self:
        """Stay in eval mode."""
        return super().train(False)

    def load_pretrained(self) -> None:
        """Load the weights the config names; see :class:`pae_framework.contracts.Encoder`."""
        config = self.settings
        if config.weights == "none":
            return
        path = weights_path(config.weights, config.remote)
        load_state(self, read_pretrained(path, self), f"{path}, taken for a {config.model},")

    def names(self) -> list[Same]:
        """Which weights are which in released tokenizers."""
        return NAMES[self.settings.family.use](self.form)

    def from_released(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """This encoder's state dict from a released tokenizer; see the contract."""
        state, names = self.state_dict(), self.names()
        shapes = {name: tensor.to("meta") for name, tensor in state.items()}
        if problems := differences(to_released(shapes, names), tensors):
            model = self.settings.model
            lines = "\n  ".join(problems)
            raise CheckpointError(f"its encoder is no {model} as released PAEs have:\n  {lines}")
        return from_released(tensors, names, state)

    def to_released(self) -> dict[str, Tensor]:
        """This encoder's weights by the names they have in a released tokenizer."""
        return to_released({n: t.detach() for n, t in self.state_dict().items()}, self.names())

    def _blocks(self, pixels: Tensor) -> Iterator[Tensor]:
        """All tokens (B, P + N, D) after each block."""
        x, arguments = self._embed(pixels), self._block_arguments()
        for block in self.vit.blocks:
            x = block(x, **arguments)
            yield x

    def _embed(self, pixels: Tensor) -> Tensor:
        """Tokens (B, P + N, D) before the first block."""
        x = self.vit.patch_embed(pixels).flatten(1, 2)
        if self.form.grid:
            x = x + resize_positions(self.vit.pos_embed, self.grid, self._antialias)
        if not self.form.class_token:
            return x
        first = self.vit.cls_token
        if self.class_position is not None:
            first = first + self.class_position
        before = [first] if self.vit.reg_token is None else [first, self.vit.reg_token]
        return torch.cat([*(token.expand(len(x), -1, -1) for token in before), x], dim=1)

    @property
    def _antialias(self) -> bool:
        """Of the resized positions: only DINOv2 with registers has it."""
        return self.form.registers > 0

    def _block_arguments(self) -> dict[str, Any]:
        """What each block is given besides the tokens."""
        return {}

    def _mask_token(self) -> Tensor:
        return torch.zeros(1, self.form.width)


class DINOv2(FoundationEncoder):
    """DINOv2, with or without registers."""


class DINOv3(FoundationEncoder):
    """DINOv3: positions are rotations of queries and keys, for any grid."""

    def _block_arguments(self) -> dict[str, Any]:
        return {"rope": self.vit.rope.get_embed(shape=[self.grid, self.grid])}

    def _mask_token(self) -> Tensor:
        return torch.zeros(1, 1, self.form.width)


class MAE(FoundationEncoder):
    """The encoder of a masked autoencoder: no token is masked."""


class SigLIP2(FoundationEncoder):
    """SigLIP2's image tower."""
