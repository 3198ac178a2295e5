"""PatchGAN as VQGAN and latent diffusion have it."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from pae_discriminators.config import PatchGANConfig
from pae_discriminators.patchgan import PatchGAN


def test_at_256_px_it_judges_30_by_30_patches_with_2_77_million_weights() -> None:
    with torch.device("meta"):
        network = PatchGAN(PatchGANConfig(), 256)
        logits = network(torch.empty(2, 3, 256, 256))
    assert logits.shape == (2, 30 * 30)
    # 4x4 kernels; biases in the first and last; two numbers per channel of the three norms
    kernels = 16 * (3 * 64 + 64 * 128 + 128 * 256 + 256 * 512 + 512)
    others = 64 + 1 + 2 * (128 + 256 + 512)
    assert kernels + others == 2_765_633
    assert sum(weight.numel() for weight in network.parameters()) == kernels + others


def test_a_patch_is_70_px_wide() -> None:
    """A logit depends on the 70 x 70 px it looks at and on no other (Isola et al., PatchGAN)."""
    network = PatchGAN(PatchGANConfig(width=8), 128).eval()
    images = torch.rand(1, 3, 128, 128, requires_grad=True)
    logits = network(images).view(14, 14)
    (gradient,) = torch.autograd.grad(logits[7, 7], images)
    seen = gradient[0].abs().sum(0) > 0
    rows = seen.any(1).nonzero().flatten()
    assert (rows.max() - rows.min() + 1).item() == 70


def test_the_state_dict_has_the_names_of_taming_transformers() -> None:
    with torch.device("meta"):
        network = PatchGAN(PatchGANConfig(), 256)
    weights = {f"main.{index}.weight" for index in (0, 2, 3, 5, 6, 8, 9, 11)}
    biases = {f"main.{index}.bias" for index in (0, 3, 6, 9, 11)}
    assert {name for name, _ in network.named_parameters()} == weights | biases
    strides = [layer.stride[0] for layer in network.main if isinstance(layer, nn.Conv2d)]
    assert strides == [2, 2, 2, 1, 1]


def test_first_weights_are_normal() -> None:
    torch.manual_seed(0)
    network = PatchGAN(PatchGANConfig(width=32), 64)
    convolution, norm = network.main[8], network.main[9]
    assert isinstance(convolution, nn.Conv2d)
    # 128 * 256 * 16 numbers: standard errors of 0.02 / 724 and 0.02 / 1024
    assert convolution.weight.mean().item() == pytest.approx(0.0, abs=2e-4)
    assert convolution.weight.std().item() == pytest.approx(0.02, abs=2e-4)
    assert norm.weight.mean().item() == pytest.approx(1.0, abs=0.01)
    assert norm.weight.std().item() == pytest.approx(0.02, abs=0.005)
    assert not norm.bias.any()


def test_gray_is_the_middle_of_its_input() -> None:
    """Images in [0, 1] become [-1, 1]: of gray images nothing but biases is seen."""
    network = PatchGAN(PatchGANConfig(layers=1, width=4), 16).eval()
    first = network.main[0]
    assert isinstance(first, nn.Conv2d)
    seen = []
    first.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    network(torch.tensor([0.0, 0.5, 1.0]).view(1, 3, 1, 1).expand(1, 3, 16, 16))
    assert seen[0][0, :, 0, 0].tolist() == [-1.0, 0.0, 1.0]


@pytest.mark.parametrize(("layers", "size"), [(1, 6), (2, 12), (3, 24)])
def test_the_smallest_images_give_one_logit(layers: int, size: int) -> None:
    config = PatchGANConfig(layers=layers, width=2)
    config.check_image_size(size)
    assert PatchGAN(config, size).eval()(torch.rand(2, 3, size, size)).shape == (2, 1)
    with pytest.raises(ValueError, match=f"{size} px or more, not {size - 1}"):
        config.check_image_size(size - 1)


def test_smoke_is_small() -> None:
    config = PatchGANConfig().smoke()
    config.check_image_size(8)
    assert sum(p.numel() for p in PatchGAN(config, 8).parameters()) < 3000
