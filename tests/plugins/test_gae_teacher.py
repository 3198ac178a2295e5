"""GAE's semantic teacher: formulas, what is trained, sizes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from pae_encoders.gae_config import GaeTeacherConfig
from pae_encoders.gae_teacher import GaeTeacher, SemanticObjective

WIDTH, CHANNELS, SIZE, GRID = 128, 6, 32, 2
TINY = {"width": WIDTH, "depth": 1, "heads": 2, "grid": 2}


def teacher(**parameters: Any) -> GaeTeacher:
    given = {"weights": "none", "size": TINY, "channels": CHANNELS, **parameters}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return GaeTeacher(GaeTeacherConfig.model_validate(given), SIZE)


def objective(encoder: GaeTeacher) -> SemanticObjective:
    built = encoder.pretraining(0)
    assert isinstance(built, SemanticObjective)
    return built


def images() -> Tensor:
    return torch.rand(3, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))


def rms(x: Tensor) -> Tensor:
    return x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt()


def attention(weights: dict[str, Tensor], x: Tensor) -> Tensor:
    """Heads of 64 channels with normalized queries and keys."""
    q, k, v = (x @ weights["qkv.weight"].T).split(WIDTH, dim=-1)
    heads = []
    for rows in (slice(0, 64), slice(64, 128)):
        scores = rms(q[..., rows]) @ rms(k[..., rows]).mT / 8
        heads.append(scores.softmax(-1) @ v[..., rows])
    return torch.cat(heads, -1) @ weights["proj.weight"].T


@pytest.mark.parametrize("window", [1, 2])
@torch.no_grad()
def test_the_formula(window: int) -> None:
    encoder = teacher(window=window)
    pixels = encoder.normalize(images())
    target = rms(encoder.base(pixels).tokens)  # (B, N, D)
    x = rms(target + encoder.positions)
    x = rms(attention(encoder.attention.state_dict(), x))  # no residual
    if window == 2:  # all 2 x 2 tokens are one window
        x = (x.flatten(1) @ encoder.compressor.weight.T).view(3, 4, CHANNELS)
    else:
        x = x @ encoder.compressor.weight.T
    torch.testing.assert_close(encoder(pixels).tokens, rms(x), rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_the_loss_is_the_error_of_normalized_tokens() -> None:
    encoder = teacher()
    training = objective(encoder)
    pixels = encoder.normalize(images())
    code = encoder(pixels).tokens
    decoded = rms(training.block(code @ training.expand.weight.T + training.positions))
    expected = (decoded - rms(encoder.base(pixels).tokens)).square().mean()
    found = training.loss(images(), torch.zeros(3).long(), torch.Generator())["loss"]
    torch.testing.assert_close(found, expected)


def test_all_but_dinov2_is_trained() -> None:
    encoder = teacher()
    training = objective(encoder)
    training.loss(images(), torch.zeros(3).long(), torch.Generator())["loss"].backward()
    base = {f"encoder.base.{name}" for name, _ in encoder.base.named_parameters()}
    for name, weight in training.named_parameters():
        assert (weight.grad is None) == (name in base), name


@pytest.mark.parametrize("window", [1, 2])
def test_the_config_counts_the_parameters(window: int) -> None:
    encoder = teacher(window=window)
    tensors = encoder.state_dict().values()  # with DINOv2's mask token, as its config counts
    assert encoder.config.parameters(SIZE) == sum(tensor.numel() for tensor in tensors)


@pytest.mark.parametrize(("width", "heads"), [(128, 2), (200, 2), (32, 1), (192, 3)])
def test_a_head_per_64_channels_that_divides_the_width(width: int, heads: int) -> None:
    size = {**TINY, "width": width, "heads": 4}
    assert teacher(size=size).config.neck_heads == heads


def test_windows_divide_the_grid() -> None:
    with pytest.raises(ValueError, match=r"3.*16"):
        GaeTeacherConfig(window=3).token_grid(256)
