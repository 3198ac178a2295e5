"""How tokens and pooled features are computed by the image towers that open-clip builds.

Legend: B batch, N patch tokens, D width, E width of the features compared with text, S' input side.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from functools import partial
from typing import Any

import open_clip
import timm
import torch
import torch.nn.functional as F
from open_clip.modified_resnet import ModifiedResNet
from open_clip.transformer import QuickGELU, VisionTransformer
from timm.layers import Mlp
from torch import Tensor, nn
from torch.func import functional_call

from pae_encoders.clip_models import ClipForm, ResNetForm
from pae_encoders.clip_timm_models import TimmForm
from pae_encoders.families import Form
from pae_encoders.vfm import resize_positions, use_kernel
from pae_framework.config import AttentionKernel
from pae_framework.contracts import Features
from pae_framework.layers import Kernel, attention_kernel, map_to_tokens

_LAYER_SCALE = 1e-4
"""Initial value of layer scale."""
_RESNET_EPS = 1e-12
"""Small, since the residual branches of an untrained ResNet are zero."""
_TIMM_EPS = 1e-6


class Tower(ABC):
    """Reads a network ``visual`` of open-clip's for a grid of ``grid`` x ``grid`` tokens."""

    def __init__(self, visual: Any, grid: int):
        self.visual, self.grid = visual, grid

    @abstractmethod
    def features(self, pixels: Tensor) -> Features:
        """Features of normalized pixels (B, 3, S', S')."""

    @abstractmethod
    def embedding(self, pixels: Tensor) -> Tensor:
        """The features (B, E) that open-clip compares with text."""

    @abstractmethod
    def feature_maps(self, pixels: Tensor) -> Iterator[Tensor]:
        """Patch tokens after each block or stage."""


class ViTTower(Tower):
    """A plain ViT: tokens after the last norm, without its affine part."""

    def features(self, pixels: Tensor) -> Features:
        """Patch tokens; ``pooled`` is the class token after the same norm."""
        *_, x = self._blocks(pixels)
        x = _normalized(x, self.visual.ln_post.eps)
        return Features(x[:, 1:], pooled=x[:, 0])

    def embedding(self, pixels: Tensor) -> Tensor:
        """The pooled and projected tokens (B, E)."""
        *_, x = self._blocks(pixels)
        pooled: Tensor = self.visual._pool(x)[0] @ self.visual.proj
        return pooled

    def feature_maps(self, pixels: Tensor) -> Iterator[Tensor]:
        """Patch tokens (B, N, D) after each block, without the last norm."""
        for x in self._blocks(pixels):
            yield x[:, 1:]

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


class ResNetTower(Tower):
    """OpenAI's ResNet: tokens are the map of stage 4, before the attention pooling, normalized."""

    def features(self, pixels: Tensor) -> Features:
        """Tokens in the order of rows; ``pooled`` is the mean of the map before the norm."""
        *_, tokens = self.feature_maps(pixels)
        return Features(_normalized(tokens, _RESNET_EPS), pooled=tokens.mean(dim=1))

    def embedding(self, pixels: Tensor) -> Tensor:
        """The output of the attention pooling (B, E), with positions resized to the grid."""
        *_, x = self._stages(pixels)
        pool = self.visual.attnpool
        learned = pool.positional_embedding
        positions = resize_positions(learned[None, 1:], self.grid, antialias=True)[0]
        resized = {"positional_embedding": torch.cat([learned[:1], positions])}
        pooled: Tensor = functional_call(pool, resized, (x,))
        return pooled

    def feature_maps(self, pixels: Tensor) -> Iterator[Tensor]:
        """Tokens (B, n, d) after each stage; n falls and d rises."""
        for x in self._stages(pixels):
            yield map_to_tokens(x)

    def _stages(self, pixels: Tensor) -> Iterator[Tensor]:
        visual = self.visual
        x = visual.stem(pixels)
        for stage in (visual.layer1, visual.layer2, visual.layer3, visual.layer4):
            x = stage(x)
            yield x


class TimmViTTower(Tower):
    """A transformer of timm's: tokens of the last block, each one normalized."""

    def features(self, pixels: Tensor) -> Features:
        """Patch tokens; ``pooled`` is the class token after the same norm, or else their mean."""
        x, first = self._blocks(pixels)[-1]
        tokens = _normalized(x, _TIMM_EPS)
        return Features(
            tokens, pooled=x.mean(1) if first is None else _normalized(first, _TIMM_EPS)
        )

    def embedding(self, pixels: Tensor) -> Tensor:
        """The pooled and projected tokens (B, E)."""
        embedded: Tensor = self.visual(pixels)
        return embedded

    def feature_maps(self, pixels: Tensor) -> Iterator[Tensor]:
        """Patch tokens (B, N, D) after each block, without the last norm."""
        yield from (tokens for tokens, _ in self._blocks(pixels))

    def _blocks(self, pixels: Tensor) -> list[tuple[Tensor, Tensor | None]]:
        """Patch tokens (B, N, D) and the class token (B, D), if there is one, after each block."""
        trunk = self.visual.trunk
        arguments = {"intermediates_only": True, "output_fmt": "NLC"}
        if not trunk.num_prefix_tokens:
            return [(x, None) for x in trunk.forward_intermediates(pixels, **arguments)]
        found = trunk.forward_intermediates(pixels, return_prefix_tokens=True, **arguments)
        return [(x, prefix[:, 0]) for x, prefix in found]


class TimmStagesTower(TimmViTTower):
    """Stages of timm's: tokens are the last map, each one normalized."""

    def _blocks(self, pixels: Tensor) -> list[tuple[Tensor, Tensor | None]]:
        """Tokens (B, n, d) after each stage; n falls and d rises."""
        trunk = self.visual.trunk
        *maps, last = trunk.forward_intermediates(pixels, intermediates_only=True)
        maps.append(getattr(trunk, "final_conv", nn.Identity())(last))
        return [(map_to_tokens(x), None) for x in maps]


def build_tower(model: str, form: Form, grid: int, attention: AttentionKernel) -> Tower:
    """open-clip's image tower of ``model`` with the sizes of ``form`` and random weights."""
    if isinstance(form, ResNetForm):
        return ResNetTower(_build_resnet(form), grid)
    if isinstance(form, TimmForm):
        visual = _build_timm(model, form)
        if attention != "sdpa":
            use_kernel(visual.trunk, attention)
        return (TimmViTTower if hasattr(visual.trunk, "blocks") else TimmStagesTower)(visual, grid)
    assert isinstance(form, ClipForm)
    visual = _build_vit(form)
    if attention != "sdpa":
        kernel = attention_kernel(attention)
        for block in visual.transformer.resblocks:
            block.attention = partial(_attention, block.attn, kernel)
    return ViTTower(visual, grid)


class _TimmVisual(nn.Module):
    """open-clip's ``TimmModel``, which builds its network for one size of images only."""

    def __init__(self, trunk: Any, head: nn.Sequential):
        super().__init__()
        self.trunk, self.head = trunk, head

    def forward(self, pixels: Tensor) -> Tensor:
        embedded: Tensor = self.head(self.trunk(pixels))
        return embedded


def _build_timm(model: str, form: TimmForm) -> Any:
    settings: Any = open_clip.get_model_config(model)
    vision, embedding = settings["vision_cfg"], settings["embed_dim"]
    projection, bias = vision.get("timm_proj", "linear"), vision.get("timm_proj_bias", False)
    arguments: dict[str, Any] = {"num_classes": 0 if projection else embedding}
    if pool := vision.get("timm_pool", "avg"):
        arguments["global_pool"] = pool
    if form.kind in ("vit", "rope", "hybrid"):
        arguments["dynamic_img_size"] = True
    if form.mlp:
        arguments |= {
            "img_size": form.grid * form.patch,
            "embed_dim": form.width,
            "depth": form.depth,
            "num_heads": form.heads,
            "mlp_ratio": (form.mlp + 0.5) / form.width,  # timm rounds the product down
        }
    trunk: Any = timm.create_model(vision["timm_model_name"], pretrained=False, **arguments)
    head = nn.Sequential()
    if projection == "linear":
        head.add_module("proj", nn.Linear(trunk.num_features, embedding, bias=bias))
    if projection == "mlp":
        head.add_module("mlp", Mlp(trunk.num_features, 2 * embedding, embedding, bias=(True, bias)))
    return _TimmVisual(trunk, head)


def _build_resnet(form: ResNetForm) -> Any:
    return ModifiedResNet(
        layers=list(form.blocks),
        output_dim=form.embedding,
        heads=form.heads,
        image_size=form.grid * form.patch,
        width=form.stem,
    )


def _build_vit(form: ClipForm) -> Any:
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


def _normalized(tokens: Tensor, eps: float) -> Tensor:
    return F.layer_norm(tokens, tokens.shape[-1:], eps=eps)


def _attention(
    layer: nn.MultiheadAttention, kernel: Kernel, /, q_x: Tensor, **others: object
) -> Tensor:
    """What a block of open-clip asks of its attention, for tokens (B, P, D); ``others`` are None.

    ``nn.MultiheadAttention`` has no place for another kernel.
    """
    assert not any(other is not None for other in others.values()), others
    packed = F.linear(q_x, layer.in_proj_weight, layer.in_proj_bias)  # (B, P, 3 D)
    q, k, v = packed.unflatten(-1, (3, layer.num_heads, -1)).unbind(2)  # (B, P, H, K)
    attended: Tensor = layer.out_proj(kernel(q, k, v).flatten(2))
    return attended
