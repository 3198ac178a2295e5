"""RAE's discriminator against formulas written anew here (B images, D channels, N tokens)."""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import pytest
import timm
import torch
from torch import Tensor, nn

from pae_discriminators.config import DINO_VIT_S8, DinoDiscriminatorConfig
from pae_discriminators.dino import DinoDiscriminator, Head, VirtualBatchNorm
from pae_framework.errors import CheckpointError, DataError
from pae_framework.hub import HubFile

SMALL = DinoDiscriminatorConfig(
    weights="none", resolution=32, width=24, depth=3, heads=2, layers=(0, 2)
)


@pytest.fixture
def network() -> DinoDiscriminator:
    return DinoDiscriminator(SMALL, 20)


def moved(module: nn.Module) -> None:
    """Weights and biases away from the zeros and ones they begin with."""
    for parameter in module.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)


def true_weight(convolution: nn.Conv1d) -> Tensor:
    """The weight over its largest singular value, as a matrix of output x everything else."""
    raw = convolution.parametrizations.weight.original.detach()  # type: ignore[union-attr]
    return raw / torch.linalg.svdvals(raw.flatten(1)).max()


def circular(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """A convolution (B, D, N) over a ring of tokens, tap by tap."""
    out = bias.view(1, -1, 1)
    reach = weight.shape[2] // 2
    for tap in range(weight.shape[2]):
        out = out + torch.einsum("oi,bin->bon", weight[:, :, tap], x.roll(reach - tap, dims=2))
    return out


def normed(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    mean = x.mean(2, keepdim=True)
    variance = ((x - mean) ** 2).mean(2, keepdim=True)
    return (x - mean) / (variance + 1e-6).sqrt() * weight.view(1, -1, 1) + bias.view(1, -1, 1)


class TestHeads:
    def test_by_formula(self) -> None:
        torch.manual_seed(0)
        head = Head(6).train()
        moved(head)
        x = torch.randn(2, 6, 11)
        for _ in range(300):  # one power iteration each: the norms become those of the weights
            head(x)
        head.eval()

        def block(part: nn.Module, x: Tensor) -> Tensor:
            convolution, norm, _ = part
            x = circular(x, true_weight(convolution), convolution.bias)
            x = normed(x, norm.weight, norm.bias)
            return torch.where(x > 0, x, 0.2 * x)

        with torch.no_grad():
            y = block(head.first, x)
            y = (block(head.second, y) + y) / math.sqrt(2)
            expected = circular(y, true_weight(head.last), head.last.bias)[:, 0]
            torch.testing.assert_close(head(x), expected, rtol=1e-4, atol=1e-4)

    def test_norms_are_of_each_image_alone_in_float32(self) -> None:
        norm = VirtualBatchNorm(4)
        moved(norm)
        x = torch.randn(3, 4, 9) * 5 + 2
        torch.testing.assert_close(norm(x), normed(x, norm.weight, norm.bias))
        assert norm(x.bfloat16()).dtype == torch.float32

    def test_power_iterations_move_in_train_mode_only(self) -> None:
        head = Head(6)
        before = {name: value.clone() for name, value in head.state_dict().items()}
        head.eval()(torch.randn(1, 6, 9))
        assert all(torch.equal(value, before[name]) for name, value in head.state_dict().items())
        head.train()(torch.randn(1, 6, 9))
        changed = [n for n, value in head.state_dict().items() if not torch.equal(value, before[n])]
        assert changed
        assert all(name.endswith(("_u", "_v")) for name in changed)


class TestFeatures:
    def test_by_formula(self, network: DinoDiscriminator) -> None:
        torch.manual_seed(0)
        moved(network.frozen)
        images = torch.rand(2, 3, 32, 32)  # of the network's own size: nothing is resized
        last, first, third = network.features(images)
        expected = self.blocks(dict(network.frozen.state_dict()), images)
        torch.testing.assert_close(first, expected[0], rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(third, expected[2], rtol=1e-4, atol=1e-4)
        assert torch.equal(last, third)
        assert last.shape == (2, 24, 16)

    def blocks(self, w: dict[str, Tensor], images: Tensor) -> list[Tensor]:
        """Patch tokens (B, D, N) after each block of a pre-norm ViT with a class token."""

        def linear(x: Tensor, name: str) -> Tensor:
            return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

        def norm(x: Tensor, name: str) -> Tensor:
            x = x - x.mean(-1, keepdim=True)
            x = x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt()
            return x * w[f"{name}.weight"] + w[f"{name}.bias"]

        def attention(x: Tensor, name: str) -> Tensor:
            q, k, v = linear(x, f"{name}.qkv").unflatten(-1, (3, 2, 12)).permute(2, 0, 3, 1, 4)
            mixed = (q @ k.mT / math.sqrt(12)).softmax(-1) @ v
            return linear(mixed.transpose(1, 2).flatten(2), f"{name}.proj")

        def tanh_gelu(x: Tensor) -> Tensor:
            return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))

        mean = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
        std = torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)
        patches = ((images - mean) / std).unfold(2, 8, 8).unfold(3, 8, 8)  # B 3 4 4 8 8
        patches = patches.permute(0, 2, 3, 1, 4, 5).flatten(3).flatten(1, 2)
        x = patches @ w["patch_embed.proj.weight"].flatten(1).T + w["patch_embed.proj.bias"]
        x = torch.cat([w["cls_token"].expand(len(x), -1, -1), x], 1) + w["pos_embed"]
        found = []
        for index in range(3):
            block = f"blocks.{index}"
            x = x + attention(norm(x, f"{block}.norm1"), f"{block}.attn")
            hidden = tanh_gelu(linear(norm(x, f"{block}.norm2"), f"{block}.mlp.fc1"))
            x = x + linear(hidden, f"{block}.mlp.fc2")
            found.append(x[:, 1:].mT)
        return found

    def test_of_the_released_size(self) -> None:
        with torch.device("meta"):
            network = DinoDiscriminator(DinoDiscriminatorConfig(), 256)
            logits = network(torch.empty(2, 3, 256, 256))
            theirs = timm.create_model("vit_small_patch8_224.dino", pretrained=False)
        assert logits.shape == (2, 5 * 28 * 28)
        ours = {name: value.shape for name, value in network.frozen.state_dict().items()}
        assert ours == {name: value.shape for name, value in theirs.state_dict().items()}
        # a head: two blocks (kernels 1 and 9, bias, norm) and the last convolution
        head = 384 * 384 * (1 + 9) + 2 * 3 * 384 + 384 + 1
        assert sum(p.numel() for p in network.parameters()) == 5 * head

    def test_logits_are_head_after_head(self, network: DinoDiscriminator) -> None:
        network.eval()
        images = torch.rand(2, 3, 20, 20)
        logits = network(images).view(2, 3, 16)
        features = network.features(images)
        for index, (head, x) in enumerate(zip(network.heads, features, strict=True)):
            assert torch.equal(logits[:, index], head(x))


class TestFrozenPart:
    def test_is_in_no_state_dict_and_never_trains(self, network: DinoDiscriminator) -> None:
        network.train()
        assert not network.frozen.training
        assert {name.split(".")[0] for name in network.state_dict()} == {"heads"}
        assert {name.split(".")[0] for name, _ in network.named_parameters()} == {"heads"}
        network(torch.rand(1, 3, 20, 20)).sum().backward()
        assert all(p.grad is None for p in network.frozen.parameters())

    def test_follows_the_heads(self, network: DinoDiscriminator) -> None:
        assert next(network.double().frozen.parameters()).dtype == torch.float64

    @pytest.mark.parametrize("layout", ["timm", "facebook", "training", "checkpoint"])
    def test_is_loaded_without_the_biases_of_keys(
        self,
        network: DinoDiscriminator,
        layout: str,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        torch.manual_seed(1)
        weights = {n: torch.randn_like(v) for n, v in network.frozen.state_dict().items()}
        written = {
            "timm": weights,
            "facebook": weights | {"head.weight": torch.zeros(2)},
            "training": {f"module.backbone.{name}": value for name, value in weights.items()},
            "checkpoint": {
                "student": {f"module.backbone.{n}": v + 1 for n, v in weights.items()},
                "teacher": {f"backbone.{n}": v for n, v in weights.items()},
                "args": argparse.Namespace(arch="vit_small"),
            },
        }[layout]
        path = tmp_path / "dino.pth"
        torch.save(written, path)
        named = DinoDiscriminator(SMALL.model_copy(update={"weights": str(path)}), 20)
        named.load_pretrained()
        loaded = named.frozen.state_dict()
        for name, value in weights.items():
            if name.endswith("qkv.bias"):
                value[24:48] = 0
            assert torch.equal(loaded[name], value), name

    def test_of_any_other_shape_is_refused(
        self, network: DinoDiscriminator, tmp_path: Path
    ) -> None:
        path = tmp_path / "dino.pth"
        named = DinoDiscriminator(SMALL.model_copy(update={"weights": str(path)}), 20)
        weights = network.frozen.state_dict()
        for name in (name for name in weights if "blocks.1" not in name):
            for shape in ((), (0,), (1, 1)):
                torch.save({**weights, name: torch.zeros(shape)}, path)
                with pytest.raises(CheckpointError, match=r"dino\.pth"):
                    named.load_pretrained()

    def test_of_another_network_is_refused(
        self, network: DinoDiscriminator, tmp_path: Path
    ) -> None:
        path = tmp_path / "dino.pth"
        torch.save({"cls_token": torch.zeros(1, 1, 24)}, path)
        named = DinoDiscriminator(SMALL.model_copy(update={"weights": str(path)}), 20)
        with pytest.raises(CheckpointError, match="missing"):
            named.load_pretrained()

    def test_that_is_not_here_is_said(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(HubFile, "cached", lambda file: None)
        monkeypatch.setenv("PAE_OFFLINE", "1")
        config = DinoDiscriminatorConfig()
        missing = config.missing()
        assert missing is not None
        assert DINO_VIT_S8.where in missing
        with pytest.raises(DataError, match="pae fetch"):
            config.fetch()
        assert config.smoke().missing() is None
        assert config.smoke().fetch() is None


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"depth": 6, "layers": [2, 5]}, "needs `weights: none`"),
        ({"resolution": 256}, "needs `weights: none`"),
        ({"layers": [12]}, "`layers` .* 0 to 11"),
        ({"weights": "none", "heads": 5}, "`heads` 5 does not divide `width` 384"),
    ],
)
def test_what_cannot_be_is_refused(parameters: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DinoDiscriminatorConfig.model_validate(parameters)


def test_smoke_is_a_valid_small_one() -> None:
    config = DinoDiscriminatorConfig().smoke()
    assert DinoDiscriminatorConfig.model_validate(config.model_dump()) == config
    assert DinoDiscriminator(config, 8)(torch.rand(2, 3, 8, 8)).shape == (2, 3 * 16)
