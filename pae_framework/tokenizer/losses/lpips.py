"""LPIPS: a perceptual distance whose channel weights were learned from human judgments.

Zhang, Isola, Efros, Shechtman and Wang, CVPR 2018, arXiv 1801.03924: version 0.1 on VGG-16, with
the same values as torch-fidelity 0.4. The networks are frozen.

Legend: B batch, S image side in px; a stage has c channels and s x s positions.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn

from pae_framework.errors import CheckpointError
from pae_framework.hub import is_file_name, weights_path
from pae_framework.seeding import derive_seed
from pae_framework.tensor_files import differences, load_state
from pae_framework.tokenizer.tokenizer_settings import LPIPS_HEADS, VGG16, LpipsNetwork
from pae_framework.weight_files import read_checkpoint

STAGES = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
"""Channels of VGG-16's convolutions; stages are separated by max pooling."""
MEAN, STD = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
"""LPIPS's channel means and deviations of images in [-1, 1]."""


class LPIPS(nn.Module):
    """``d(a, b) = sum_l mean_hw w_l . (f_l(a) - f_l(b))^2``, with ``|f_l| = 1`` over its channels.

    f_l are the features after the last ReLU of each stage of VGG-16; w_l >= 0. Gradients flow to
    both images, which are not clamped. Weights are random until :meth:`load`.
    """

    mean: Tensor
    std: Tensor
    eps = 1e-10
    layout = torch.contiguous_format

    def __init__(self) -> None:
        super().__init__()
        self.network = nn.Sequential(*_vgg16())
        self.heads = nn.ParameterList(torch.rand(stage[-1]) for stage in STAGES)
        self.register_buffer("mean", torch.tensor(MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(STD).view(1, 3, 1, 1), persistent=False)
        self.requires_grad_(False).eval()

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Distances (B,) between images (B, 3, S, S) in [0, 1], S at least 16."""
        return self.compare(self.features(a), self.features(b))

    def features(self, images: Tensor) -> list[Tensor]:
        """Channel-normalized features, one (B, c, s, s) per stage, float32."""
        features = []
        # Not in bf16: it cannot represent the differences of nearly equal images, which changes
        # their distance by tens of percent and the direction of its gradient. TF32
        # (`runtime.tf32`) keeps float32 cheap on GPUs; CPUs are slow at bf16.
        with torch.autocast(images.device.type, enabled=False):
            x = (2 * images.float() - 1 - self.mean) / self.std  # (B, 3, S, S)
            x = x.contiguous(memory_format=self.layout)
            for layer in self.network:
                if isinstance(layer, nn.MaxPool2d):
                    features.append(self._unit(x))  # (B, c, s, s)
                x = layer(x)
            return [*features, self._unit(x)]

    def compare(self, a: Sequence[Tensor], b: Sequence[Tensor]) -> Tensor:
        """Distances (B,) between two batches given by their :meth:`features`."""
        stages = [
            ((x - y).square() * head.view(1, -1, 1, 1)).sum(dim=1).mean(dim=(1, 2))
            for x, y, head in zip(a, b, self.heads, strict=True)
        ]
        return torch.stack(stages).sum(dim=0)

    def load(self, tensors: Mapping[str, Tensor], source: str) -> None:
        """Load the weights of a file with torchvision's, LPIPS's or torch-fidelity's names.

        Raises:
            CheckpointError: they belong to another network (lists what differs), or a channel
                weight is negative.
        """
        renamed = {_our_name(name): value for name, value in tensors.items()}
        state = {name: _flat(name, value) for name, value in renamed.items() if name is not None}
        if problems := differences(self.state_dict(), state):
            raise CheckpointError(
                f"{source} does not hold LPIPS on VGG-16 (expected `features.<i>.weight`, "
                "`features.<i>.bias` and `lin<k>.model.1.weight`):\n  " + "\n  ".join(problems)
            )
        if any(bool((value < 0).any()) for name, value in state.items() if "heads" in name):
            raise CheckpointError(f"{source}: LPIPS's channel weights must not be negative")
        load_state(self, state, source)

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> Self:
        # to, cuda and the like all call this.
        super()._apply(fn, recurse)
        if self.mean.is_cuda:
            self.layout = torch.channels_last
            self.network.to(memory_format=self.layout)
        return self

    def _unit(self, x: Tensor) -> Tensor:
        wide = x.float()
        # vector_norm: its gradient is 0 if all channels are 0; that of sqrt is NaN.
        return wide / (torch.linalg.vector_norm(wide, dim=1, keepdim=True) + self.eps)


def build_lpips(settings: LpipsNetwork) -> LPIPS:
    """LPIPS with the weights that the settings name; ``none``: random weights with a fixed seed.

    Raises:
        DataError: the weights are missing and cannot be downloaded.
        CheckpointError: they belong to another network.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed("lpips"))
        distance = LPIPS()
    if settings.weights == "none":
        return distance
    if is_file_name(settings.weights):
        path = weights_path(settings.weights, None)
        distance.load(read_checkpoint(path), str(path))
    else:
        network, heads = (read_checkpoint(weights_path("default", f)) for f in (VGG16, LPIPS_HEADS))
        distance.load(network | heads, f"{VGG16.where} with {LPIPS_HEADS.where}")
    return distance


def _vgg16() -> list[nn.Module]:
    """The convolutions of VGG-16 (configuration D), initialized as in torchvision."""
    layers: list[nn.Module] = []
    channels = 3
    for index, stage in enumerate(STAGES):
        layers += [nn.MaxPool2d(2)] if index else []
        for width in stage:
            convolution = nn.Conv2d(channels, width, kernel_size=3, padding=1)
            nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
            nn.init.zeros_(convolution.bias)  # type: ignore[arg-type]
            layers += [convolution, nn.ReLU()]
            channels = width
    return layers


_NETWORK = re.compile(r"(?:features|net\.slice\d)\.(\d+\.(?:weight|bias))")
_HEAD = re.compile(r"lin(\d)\.model\.1\.weight")
_UNUSED = ("classifier.", "pre_logits.", "head.", "lins.", "scaling_layer.")
"""VGG-16's classifier in torchvision and timm; duplicates and constants in LPIPS's files."""


def _our_name(name: str) -> str | None:
    """Our name of a file's tensor; None: the tensor is not used."""
    if match := _NETWORK.fullmatch(name):
        return f"network.{match[1]}"
    if match := _HEAD.fullmatch(name):
        return f"heads.{match[1]}"
    return None if name.startswith(_UNUSED) else name


def _flat(name: str, value: Tensor) -> Tensor:
    """Files keep channel weights as 1 x 1 convolutions (1, c, 1, 1)."""
    return value.flatten() if name.startswith("heads.") else value
