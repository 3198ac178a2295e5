"""LPIPS equals an independent implementation, whichever file its weights come from."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch_fidelity import sample_similarity_lpips as fidelity
from torchvision.models import vgg

from pae_framework.errors import CheckpointError, DataError
from pae_framework.hub import HubFile, UrlFile
from pae_framework.tokenizer.losses.lpips import LPIPS, STAGES, build_lpips
from pae_framework.tokenizer.tokenizer_settings import LpipsSettings


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def network() -> dict[str, Tensor]:
    """Random weights of torchvision's VGG-16 features, biases too, under torchvision's names."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        features = vgg.make_layers(vgg.cfgs["D"], batch_norm=False)
        state = {f"features.{name}": value for name, value in features.state_dict().items()}
        return {
            name: value if value.ndim > 1 else 0.1 * torch.randn_like(value)
            for name, value in state.items()
        }


@pytest.fixture(scope="module")
def heads() -> dict[str, Tensor]:
    channels = (64, 128, 256, 512, 512)
    return {
        f"lin{index}.model.1.weight": random(1, width, 1, 1, seed=index)
        for index, width in enumerate(channels)
    }


@pytest.fixture(scope="module")
def reference(
    network: dict[str, Tensor], heads: dict[str, Tensor]
) -> Iterator[fidelity.SampleSimilarityLPIPS]:
    """torch-fidelity's, given the same weights in place of its downloads."""
    features = vgg.make_layers(vgg.cfgs["D"], batch_norm=False)
    features.load_state_dict({name.removeprefix("features."): v for name, v in network.items()})
    trunk = type("VGG", (), {"features": features})()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fidelity, "torchvision_load_pretrained_vgg16", lambda: trunk)
        patch.setattr(fidelity, "load_state_dict_from_url", lambda *_, **__: heads)
        yield fidelity.SampleSimilarityLPIPS("lpips")


@pytest.fixture
def ours(network: dict[str, Tensor], heads: dict[str, Tensor]) -> LPIPS:
    distance = LPIPS()
    distance.load({**network, **heads}, "here")
    return distance


class TestValues:
    def test_are_those_of_torch_fidelity(
        self, ours: LPIPS, reference: fidelity.SampleSimilarityLPIPS
    ) -> None:
        a, b = random(2, 3, 40, 40, seed=1), random(2, 3, 40, 40, seed=2)
        expected = reference(255 * a, 255 * b).flatten()
        assert expected.min() > 0.1
        torch.testing.assert_close(ours(a, b), expected, rtol=1e-5, atol=1e-5)

    def test_are_those_of_torch_fidelity_where_images_nearly_agree(
        self, ours: LPIPS, reference: fidelity.SampleSimilarityLPIPS
    ) -> None:
        a = random(2, 3, 32, 32, seed=1)
        b = (a + 0.02 * random(2, 3, 32, 32, seed=2)).clamp(0, 1)
        expected = reference(255 * a, 255 * b).flatten()
        assert 0 < expected.max() < 0.1
        torch.testing.assert_close(ours(a, b), expected, rtol=1e-3, atol=1e-5)

    def test_images_are_at_no_distance_of_themselves(self, ours: LPIPS) -> None:
        a = random(2, 3, 16, 16)
        assert ours(a, a).tolist() == [0.0, 0.0]

    def test_gradients_reach_both_images_and_no_weight(self, ours: LPIPS) -> None:
        a = random(1, 3, 32, 32, seed=1).requires_grad_()
        b = random(1, 3, 32, 32, seed=2).requires_grad_()
        ours(a, b).sum().backward()
        for image in (a, b):
            assert image.grad is not None
            assert image.grad.abs().sum() > 0
        assert not any(weight.requires_grad for weight in ours.parameters())

    def test_on_a_cpu_they_are_those_of_float32_also_under_autocast(self, ours: LPIPS) -> None:
        a, b = random(1, 3, 16, 16, seed=1), random(1, 3, 16, 16, seed=2)
        with torch.autocast("cpu", torch.bfloat16):
            found = ours(a, b)
        assert torch.equal(found, ours(a, b))

    def test_on_no_device_it_computes_in_bf16(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Autocast is off for the device of the images, whichever that is."""
        asked: list[tuple[str, bool]] = []

        def autocast(device: str, enabled: bool) -> nullcontext[None]:
            asked.append((device, enabled))
            return nullcontext()

        distance = LPIPS().to("meta")
        monkeypatch.setattr(torch, "autocast", autocast)
        distance.features(torch.empty(1, 3, 16, 16, device="meta"))
        assert asked == [("meta", False)]

    @pytest.mark.parametrize("moved", [False, True], ids=["cpu", "gpu"])
    def test_on_a_gpu_images_and_weights_are_channels_last(
        self, ours: LPIPS, monkeypatch: pytest.MonkeyPatch, moved: bool
    ) -> None:
        """Distances stay the same; here the CPU passes for a GPU."""
        a, b = random(2, 3, 16, 16, seed=1), random(2, 3, 16, 16, seed=2)
        expected = ours(a, b)
        monkeypatch.setattr(Tensor, "is_cuda", moved)
        ours.to("cpu")
        seen: list[bool] = []
        for layer in ours.network:
            layer.register_forward_hook(
                lambda layer, given, out: seen.append(
                    out.is_contiguous(memory_format=torch.channels_last)
                )
            )
        found = ours(a, b)
        kernels = [weight for weight in ours.network.parameters() if weight.ndim == 4]
        layouts = [w.is_contiguous(memory_format=torch.channels_last) for w in kernels]
        assert seen[0] is any(layouts) is moved
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-7)

    @pytest.mark.gpu
    def test_on_a_gpu_small_distances_and_their_slopes_are_those_of_float32(
        self, ours: LPIPS
    ) -> None:
        distance = ours.to("cuda")
        a = random(4, 3, 64, 64, seed=1).cuda()
        b = (a + 0.01 * random(4, 3, 64, 64, seed=2).cuda()).requires_grad_()
        found = []
        for enabled in (False, True):
            with torch.autocast("cuda", torch.bfloat16, enabled=enabled):
                values = distance(a, b)
            found.append((values.detach(), *torch.autograd.grad(values.sum(), b)))
        for exact, under in zip(*found, strict=True):
            torch.testing.assert_close(under, exact, rtol=1e-4, atol=1e-6)

    def test_gradients_are_finite_where_no_channel_is_active(self) -> None:
        distance = LPIPS()
        for weight in distance.network.parameters():
            weight.zero_()
        a = random(1, 3, 16, 16, seed=1).requires_grad_()
        distance(a, random(1, 3, 16, 16, seed=2)).sum().backward()
        assert a.grad is not None
        assert a.grad.isfinite().all()
        unit = torch.zeros(1, 4, 2, 2, requires_grad=True)
        distance._unit(unit).sum().backward()
        assert unit.grad is not None
        assert unit.grad.isfinite().all()

    def test_each_channel_counts_by_its_weight(self) -> None:
        """Unit features e_1 and e_2 differ by 1 in two channels: d = w_1 + w_2 in each place."""
        distance = LPIPS()
        for head in distance.heads:
            head.fill_(5.0)
        for head in distance.heads:
            head[:2] = torch.tensor([0.25, 0.5])
        one = [torch.zeros(1, stage[-1], 2, 2) for stage in STAGES]
        other = [x.clone() for x in one]
        for x, y in zip(one, other, strict=True):
            x[:, 0], y[:, 1] = 1, 1
        assert distance.compare(one, other).item() == pytest.approx(5 * 0.75)


class TestFiles:
    def layouts(self, network: dict[str, Tensor], heads: dict[str, Tensor]) -> dict[str, Any]:
        classifier = {"classifier.0.weight": torch.zeros(2, 2)}
        slices = {}
        for name, value in network.items():
            index = int(name.split(".")[1])
            number = 1 + sum(index >= first for first in (4, 9, 16, 23))
            slices[name.replace("features", f"net.slice{number}")] = value
        twice = {name.replace("lin", "lins."): value for name, value in heads.items()}
        shift = {"scaling_layer.shift": torch.zeros(1, 3, 1, 1)}
        return {
            "torchvision": {**network, **classifier, **heads},
            "torch-fidelity": {**slices, **heads},
            "lpips": {**slices, **heads, **twice, **shift},
        }

    @pytest.mark.parametrize("layout", ["torchvision", "torch-fidelity", "lpips"])
    def test_of_every_layout(
        self, layout: str, ours: LPIPS, network: dict[str, Tensor], heads: dict[str, Tensor]
    ) -> None:
        distance = LPIPS()
        distance.load(self.layouts(network, heads)[layout], "here")
        for name, value in ours.state_dict().items():
            assert torch.equal(distance.state_dict()[name], value)

    def test_the_names_of_torch_fidelity_are_as_above(
        self,
        reference: fidelity.SampleSimilarityLPIPS,
        network: dict[str, Tensor],
        heads: dict[str, Tensor],
    ) -> None:
        assert set(reference.state_dict()) == set(self.layouts(network, heads)["torch-fidelity"])

    def test_a_local_file(
        self, tmp_path: Path, ours: LPIPS, network: dict[str, Tensor], heads: dict[str, Tensor]
    ) -> None:
        path = tmp_path / "lpips.pth"
        torch.save({**network, **heads}, path)
        settings = LpipsSettings(weight=1.0, weights=str(path))
        assert settings.missing() is None
        a, b = random(1, 3, 16, 16, seed=1), random(1, 3, 16, 16, seed=2)
        assert torch.equal(build_lpips(settings)(a, b), ours(a, b))

    def test_without_heads_it_is_refused(self, network: dict[str, Tensor]) -> None:
        with pytest.raises(CheckpointError, match=r"expected .*lin<k>(.|\n)*5 missing: heads.0"):
            LPIPS().load(network, "vgg16.pth")

    def test_negative_channel_weights_are_refused(
        self, network: dict[str, Tensor], heads: dict[str, Tensor]
    ) -> None:
        wrong = {name: value - 0.5 for name, value in heads.items()}
        with pytest.raises(CheckpointError, match="must not be negative"):
            LPIPS().load({**network, **wrong}, "here")

    def test_none_is_the_same_random_network_every_time(self) -> None:
        settings = LpipsSettings(weight=1.0, weights="none")
        before = torch.random.get_rng_state()
        one = build_lpips(settings)
        assert torch.equal(torch.random.get_rng_state(), before)
        torch.rand(3)
        two = build_lpips(settings).state_dict()
        assert all(torch.equal(two[name], value) for name, value in one.state_dict().items())
        assert min(head.min().item() for head in one.heads) >= 0


class TestFetching:
    @pytest.fixture(autouse=True)
    def _empty_caches(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(HubFile, "cached", lambda file: None)
        monkeypatch.setattr(UrlFile, "cached", lambda file: None)
        for name in ("HF_HUB_OFFLINE", "PAE_OFFLINE"):
            monkeypatch.delenv(name, raising=False)

    def test_what_is_missing_is_said_with_what_to_do(self) -> None:
        found = LpipsSettings(weight=1.0).missing()
        assert found is not None
        assert "LPIPS" in found
        assert "pae fetch" in found
        absent = LpipsSettings(weight=1.0, weights="no/such.pth").missing()
        assert absent is not None
        assert "no/such.pth" in absent

    def test_of_random_weights_nothing_is_missing(self) -> None:
        settings = LpipsSettings(weight=1.0, weights="none")
        assert settings.missing() is None
        assert settings.fetch() is None

    def test_both_files_are_brought(self, monkeypatch: pytest.MonkeyPatch) -> None:
        brought = []
        for kind in (HubFile, UrlFile):
            monkeypatch.setattr(kind, "fetch", lambda file: brought.append(file.where) or Path("x"))
        assert LpipsSettings(weight=1.0).fetch() is not None
        assert len(brought) == 2
        assert "vgg16" in brought[0]
        assert brought[1].endswith("weights-vgg16-lpips.pth")

    def test_offline_it_is_refused(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PAE_OFFLINE", "1")
        with pytest.raises(DataError, match="pae fetch"):
            build_lpips(LpipsSettings(weight=1.0))
