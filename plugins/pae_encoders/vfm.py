"""Pretrained vision transformers as encoders.

Legend: B batch, N patch tokens, P class and register tokens, D width, S image side, S' input side.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, ClassVar, Self

import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from pae_encoders import families
from pae_encoders.families import Family, Form
from pae_encoders.pretrained import read_pretrained
from pae_encoders.transformers_names import NAMES, Same, from_released, to_released
from pae_encoders.vfm_config import FoundationConfig
from pae_framework.config import AttentionKernel
from pae_framework.contracts import Encoder, Features
from pae_framework.errors import CheckpointError
from pae_framework.hub import weights_path
from pae_framework.layers import Kernel, attention_kernel, map_to_tokens, tokens_to_map
from pae_framework.tensor_files import load_state

MAE_EPS = 1e-12
"""Epsilon of the norms in transformers' ViTMAE, used by PAE and RAE; MAE's own is 1e-6."""


class FoundationEncoder(Encoder):
    """A timm ViT without classifier: patch tokens after a last norm without affine (RAE, PAE).

    ``pooled`` is the class token after the same norm, or the mean of the tokens if there is no
    class token. SigLIP2's attention pooling is not used, because it expects the affine part of the
    norm, which released tokenizers drop. Its weights are kept so that released files can be
    written. So is the mask token of DINOv2 and DINOv3.

    Always in eval mode. The caller decides whether parameters are trainable.
    """

    mask_token_axes: ClassVar[int] = 2
    vit: Any  # an nn.Module, whose attributes mypy does not know
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
        # The class token's position. timm adds it to the class token in models with registers, and
        # keeps it among the positions in others. As a parameter of its own it survives export and
        # import bit for bit.
        position = nn.Parameter(torch.zeros(1, 1, form.width)) if form.class_position else None
        self.register_parameter("class_position", position)
        shape = (1,) * (self.mask_token_axes - 1) + (form.width,)
        self.register_buffer("mask_token", torch.zeros(shape) if form.mask_token else None)
        if config.attention != "sdpa":
            use_kernel(self.vit, config.attention)
        self.eval()

    def normalize(self, images: Tensor) -> Tensor:
        """Resize images (B, 3, S, S) in [0, 1] to (B, 3, S', S') and standardize them.

        Bicubic without antialiasing, as PAE and RAE do.
        """
        return super().normalize(resized(images, self.input_side))

    def forward(self, pixels: Tensor) -> Features:
        """Features of normalized pixels (B, 3, S', S')."""
        *_, x = self._blocks(pixels)
        x = self.vit.norm(x)
        tokens = x[:, self.form.prefix :]
        return Features(tokens, pooled=x[:, 0] if self.form.class_token else tokens.mean(dim=1))

    def distance_label(self, label: str, name: str) -> str:
        """With the model; see :class:`pae_framework.contracts.Encoder`."""
        return self.settings.distance_label(label, name)

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
        weights = read_pretrained(path, config.family, self.form, self.names(), self.state_dict())
        load_state(self, weights, f"{path}, read as a {config.model},")

    def names(self) -> list[Same]:
        """How our names map to those in released tokenizers."""
        return NAMES[self.settings.family.use](self.form)

    def from_released(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """This encoder's state dict from a released tokenizer; see the contract."""
        try:
            return from_released(tensors, self.names(), self.state_dict())
        except CheckpointError as error:
            model = self.settings.model
            raise CheckpointError(f"its encoder is not a released {model}:\n  {error}") from error

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
            # Antialiasing only in DINOv2 with registers, as in transformers.
            antialias = self.form.registers > 0
            x = x + resize_positions(self.vit.pos_embed, self.grid, antialias)
        if not self.form.class_token:
            return x
        first = self.vit.cls_token
        if self.class_position is not None:
            first = first + self.class_position
        prefix = [first] if self.vit.reg_token is None else [first, self.vit.reg_token]
        return torch.cat([*(token.expand(len(x), -1, -1) for token in prefix), x], dim=1)

    def _block_arguments(self) -> dict[str, Any]:
        """Keyword arguments of every block."""
        return {}


class DINOv2(FoundationEncoder):
    """DINOv2, with or without registers."""


class DINOv3(FoundationEncoder):
    """DINOv3: rotary positions, for any grid."""

    mask_token_axes: ClassVar[int] = 3

    def _block_arguments(self) -> dict[str, Any]:
        return {"rope": self.vit.rope.get_embed(shape=[self.grid, self.grid])}


class MAE(FoundationEncoder):
    """The encoder of a masked autoencoder; it masks no tokens here."""


class SigLIP2(FoundationEncoder):
    """SigLIP2's image tower."""


def resized(images: Tensor, side: int) -> Tensor:
    """Images (B, 3, side, side), bicubic without antialiasing; unchanged if they have that size."""
    if images.shape[-1] == side:
        return images
    return F.interpolate(images, size=side, mode="bicubic", align_corners=False)


def resize_positions(positions: Tensor, grid: int, antialias: bool) -> Tensor:
    """Resize learned positions (1, n * n, D) to (1, grid * grid, D).

    Bicubic (``align_corners`` False), in float32; unchanged if the grid is the same. transformers
    4.57 resizes at every forward pass, with antialiasing only for DINOv2 with registers. (timm
    resizes once, when it loads the weights, and always with antialiasing.)
    """
    if positions.shape[1] == grid * grid:
        return positions
    learned = tokens_to_map(positions.float())
    resized = F.interpolate(
        learned, size=(grid, grid), mode="bicubic", align_corners=False, antialias=antialias
    )
    return map_to_tokens(resized).to(positions.dtype)


def build_trunk(family: Family, name: str, form: Form) -> Any:
    """timm's network ``name`` with the sizes of ``form`` and random weights.

    It takes images of any multiple of its patch size. Class and register tokens have no positions.
    The last norm has no affine part (PAE, RAE).
    """
    # timm counts the two input layers of a gated MLP as one layer, except in DINOv3.
    layers = 2 if form.gated and family is not families.DINOV3 else 1
    arguments: dict[str, Any] = {
        "embed_dim": form.width,
        "depth": form.depth,
        "num_heads": form.heads,
        "mlp_ratio": (layers * form.mlp + 0.5) / form.width,  # timm rounds the product down
        "num_classes": 0,
        "dynamic_img_size": True,
    }
    if family is families.DINOV3:
        arguments["qkv_bias"] = form.biases > 0
    else:
        arguments |= {"img_size": form.grid * form.patch, "no_embed_class": True}
    if family is families.MAE:
        arguments["norm_layer"] = partial(nn.LayerNorm, eps=MAE_EPS)
    if family is families.SIGLIP2:
        # SigLIP was trained with the tanh approximation; timm uses exact GELU in its B and L sizes.
        arguments["act_layer"] = "gelu_tanh"
    trunk: Any = timm.create_model(name, pretrained=False, **arguments)
    trunk.norm = nn.LayerNorm(form.width, eps=trunk.norm.eps, elementwise_affine=False)
    return trunk


def use_kernel(trunk: Any, name: AttentionKernel) -> None:
    """Compute the attention of timm's blocks with another kernel than torch's."""
    for block in trunk.blocks:
        block.attn.forward = partial(_with_kernel, block.attn.forward, attention_kernel(name))


def _with_kernel(
    forward: Callable[..., Tensor], kernel: Kernel, /, *args: Any, **kwargs: Any
) -> Tensor:
    with _InPlaceOfTorch(kernel):
        return forward(*args, **kwargs)


class _InPlaceOfTorch(TorchFunctionMode):
    """Calls a kernel where timm calls torch's: neither masked nor, in eval mode, with dropout."""

    def __init__(self, kernel: Kernel):
        super().__init__()
        self._kernel = kernel

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is not F.scaled_dot_product_attention:
            return func(*args, **(kwargs or {}))
        assert not any((kwargs or {}).values()), kwargs
        q, k, v = (x.transpose(1, 2) for x in args)  # (B, N, H, K)
        return self._kernel(q, k, v).transpose(1, 2)


def image_statistics(name: str) -> tuple[Any, Any]:
    """Mean and standard deviation per channel that the weights ``name.tag`` were trained with."""
    config = timm.get_pretrained_cfg(name)
    assert config is not None, f"timm has no {name}"
    return config.mean, config.std
