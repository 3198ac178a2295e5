"""Configs of the built-in modulators. No torch."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from pydantic import Field

from pae_framework.config import (
    HASHED_KERNELS,
    AttentionKernel,
    AttentionSetting,
    Depth,
    EncoderConfig,
    MlpRatio,
    ModulatorConfig,
    Width,
)


class DAMConfig(ModulatorConfig):
    """Detail-aware modulator: pixels attend to the encoder's tokens and modulate them (PAE)."""

    without_effect = frozenset({"attention"})
    hashed_values = HASHED_KERNELS

    depth: Depth = Field(6, description="blocks of self-attention, cross-attention, MLP")
    heads: Width | None = Field(None, description="attention heads; null: the encoder's")
    mlp_ratio: MlpRatio = Field(4.0, description="MLP width over token width")
    cross: bool = Field(
        True, description="whether each block attends to the encoder's tokens; false: pixels only"
    )
    fusion: Literal["sft", "add", "concat", "none"] = Field(
        "sft",
        description="how the detail h enters the tokens u. sft: scale and shift of u; add: W h + "
        "u; concat: W [u, h]; none: h replaces u",
    )
    attention: AttentionSetting = "sdpa"

    attends: ClassVar[bool] = True

    def stated_heads(self) -> int | None:
        """As configured."""
        return self.heads

    def attention_kernel(self) -> AttentionKernel:
        """That of ``attention``."""
        return self.attention

    def smoke(self) -> Self:
        """One block, with the encoder's heads."""
        return self.model_copy(update={"depth": 1, "heads": None, "attention": "sdpa"})

    def parameters(self, encoder: EncoderConfig, image_size: int) -> int:
        """Number of parameters, including the fixed positions."""
        grid = encoder.token_grid(image_size)
        return self.parameters_at(encoder.token_width(), grid, image_size // grid)

    def parameters_at(self, width: int, grid: int, patch: int) -> int:
        """The same for token width D, tokens per side and patch side in px."""
        hidden = int(width * self.mlp_ratio)
        attention = 4 * (width + 1) * width  # q, k, v and the output, each with bias
        mlp = (width + 1) * hidden + (hidden + 1) * width
        norms = 2 * width * (4 if self.cross else 2)
        layer = attention * (2 if self.cross else 1) + mlp + norms
        embedding = (3 * patch**2 + 1) * width + grid**2 * width
        widths = {"sft": (1, 2), "add": (1, 1), "concat": (2, 1), "none": (0, 0)}
        inputs, outputs = widths[self.fusion]
        fusion = (inputs * width + 1) * outputs * width
        final_norm = 0 if self.fusion == "none" else 2 * width
        return embedding + self.depth * layer + fusion + final_norm


class FinetuneConfig(ModulatorConfig):
    """A trainable copy of the frozen encoder instead of a modulator (PAE's Table 3b, finetuning).

    Features and targets still come from the frozen encoder.
    """

    replaces_tokens: ClassVar[bool] = True

    def parameters(self, encoder: EncoderConfig, image_size: int) -> int | None:
        """Those of the encoder."""
        return encoder.parameters(image_size)

    def activations(self, encoder: EncoderConfig, image_size: int) -> int | None:
        """Those of the encoder."""
        return encoder.activations(image_size)


class NoModulatorConfig(ModulatorConfig):
    """No modulator: the encoder's tokens go to the bottleneck unchanged (RAE)."""

    keeps_tokens: ClassVar[bool] = True

    def parameters(self, encoder: EncoderConfig, image_size: int) -> int:
        """Zero: it has no parameters."""
        return 0
