"""The adversarial term: hinge loss, schedule, and what neither side may leave in the other."""

from __future__ import annotations

import copy
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pae_discriminators.config import PatchGANConfig
from pae_discriminators.dino import DinoDiscriminator
from pae_discriminators.patchgan import PatchGAN
from pae_framework.build import build_discriminator
from pae_framework.config import DiscriminatorConfig
from pae_framework.contracts import Discriminator
from pae_framework.errors import UsageError
from pae_framework.recipe.models import AdversarialSection, TokenizerSection
from pae_framework.registry import Registry
from pae_framework.tokenizer.losses.adversarial import (
    AdversarialTerm,
    DiscriminatorLoss,
    Schedule,
    eval_mode,
    hinge,
    to_levels,
    without_updates,
)
from pae_framework.tokenizer.model import ComposedTokenizer

Build = Callable[..., ComposedTokenizer]
NOW = Schedule(0, 0, 0)


class Brightness(Discriminator):
    """One logit: ``slope`` times the mean pixel. Augments by adding a random number."""

    def __init__(self, slope: float = 1.0):
        super().__init__(DiscriminatorConfig(), 16)
        self.slope = nn.Parameter(torch.tensor(slope))
        self.seen: list[Tensor] = []

    def forward(self, images: Tensor) -> Tensor:
        self.seen.append(images.detach())
        return self.slope * images.mean((1, 2, 3))[:, None]

    def augment(self, images: Tensor, generator: torch.Generator) -> Tensor:
        return images + torch.rand((), generator=generator)


class Plain(Brightness):
    def augment(self, images: Tensor, generator: torch.Generator) -> Tensor:
        return images


def adversarial(discriminator: Discriminator, images: Tensor, seed: int = 0) -> Tensor:
    """The tokenizer's adversarial term of reconstructions ``images``."""
    inputs: Any = SimpleNamespace(reconstruction=images, generator=generator(seed))
    return AdversarialTerm(discriminator, NOW, 1.0, True)(inputs)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def schedule(section: AdversarialSection, per_epoch: float, total: int) -> Schedule:
    points = (section.update_from, section.start, section.warmup)
    return Schedule.in_steps(*points, per_epoch=per_epoch, total=total)


def section(registry: Registry, **values: object) -> AdversarialSection:
    described = {"discriminator": {"use": "patchgan", "layers": 1, "width": 4}, **values}
    return AdversarialSection.model_validate(described, context={"registry": registry})


class TestHinge:
    def test_by_hand(self) -> None:
        # real 2 is beyond the margin, 0.5 lacks 0.5; false -2 is beyond it, 0.5 exceeds it by 1.5
        real, false = torch.tensor([[2.0, 0.5]]), torch.tensor([[-2.0, 0.5]])
        assert hinge(real, false).item() == 0.5 * ((0 + 0.5) / 2 + (0 + 1.5) / 2)

    def test_with_logits_0_it_is_1(self) -> None:
        assert hinge(torch.zeros(3, 4), torch.zeros(3, 7)).item() == 1.0


class TestLevels:
    def test_values_are_rounded_to_256_levels(self) -> None:
        values = torch.tensor([-0.3, 0.0, 0.2, 0.2 + 0.4 / 255, 0.2 + 0.6 / 255, 1.0, 1.7])
        expected = torch.tensor([0, 0, 51, 51, 52, 255, 255]) / 255
        assert torch.equal(to_levels(values), expected)

    def test_8_bit_images_do_not_change(self) -> None:
        images = torch.arange(256) / 255
        assert torch.equal(to_levels(images), images)


class TestSchedule:
    @pytest.mark.parametrize(
        ("step", "share"), [(0, 0), (9, 0), (10, 0), (11, 0.25), (13, 0.75), (14, 1), (99, 1)]
    )
    def test_the_share_grows_from_0_at_the_start(self, step: int, share: float) -> None:
        assert Schedule(update_from=5, start=10, warmup=4).share(step) == share

    def test_without_warmup_the_share_is_1_from_the_start(self) -> None:
        at_once = Schedule(update_from=0, start=3, warmup=0)
        assert [at_once.share(step) for step in range(5)] == [0, 0, 0, 1, 1]

    def test_in_epochs_and_steps(self, registry: Registry) -> None:
        """RAE: the discriminator learns from epoch 6 on, the term counts from epoch 8 on."""
        described = section(
            registry, update_from={"epochs": 6}, start={"epochs": 8}, warmup={"steps": 7}
        )
        assert schedule(described, 2.5, 40) == Schedule(update_from=15, start=20, warmup=7)

    def test_by_default_everything_starts_at_step_0(self, registry: Registry) -> None:
        assert schedule(section(registry), 100.0, 1) == NOW

    def test_a_start_before_update_from_is_rejected_in_any_unit(self, registry: Registry) -> None:
        described = section(registry, update_from={"epochs": 2}, start={"steps": 19})
        with pytest.raises(UsageError, match=r"start is step 19, .*update_from \(step 20\)"):
            schedule(described, 10.0, 100)
        assert schedule(described, 9.5, 100) == Schedule(update_from=19, start=19, warmup=0)

    def test_a_start_after_the_training_is_rejected(self, registry: Registry) -> None:
        described = section(registry, start={"epochs": 2})
        with pytest.raises(UsageError, match=r"adversarial\.start is step 20, .* 20 steps"):
            schedule(described, 10.0, 20)
        assert schedule(described, 10.0, 21).start == 20


class TestTerm:
    def test_is_minus_the_mean_logit_of_augmented_images(self) -> None:
        discriminator = Brightness(3.0)
        images = torch.full((2, 3, 4, 4), 0.5)
        found = adversarial(discriminator, images, seed=4)
        moved = 0.5 + torch.rand((), generator=generator(4))
        torch.testing.assert_close(found, -3 * moved)

    def test_does_not_change_the_discriminator(self) -> None:
        """Batch norm and spectral norm would move in train mode; gradients would pile up."""
        discriminator = PatchGAN(PatchGANConfig(layers=1, width=4), 16).train()
        before = {name: value.clone() for name, value in discriminator.state_dict().items()}
        images = torch.rand(2, 3, 16, 16, requires_grad=True)
        adversarial(discriminator, images).backward()
        assert images.grad is not None
        assert images.grad.any()
        assert all(p.grad is None and p.requires_grad for p in discriminator.parameters())
        assert all(part.training for part in discriminator.modules())
        found = discriminator.state_dict()
        assert all(torch.equal(found[name], value) for name, value in before.items())

    @pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
    def test_patchgan_uses_batch_statistics_as_in_its_training(self, training: bool) -> None:
        """Whatever mode the loop left it in; running statistics, here of other images, rest."""
        torch.manual_seed(0)
        discriminator = PatchGAN(PatchGANConfig(layers=2, width=4), 16)
        discriminator(0.1 * torch.rand(4, 3, 16, 16))
        discriminator.train(training)
        before = copy.deepcopy(discriminator.state_dict())
        images = torch.rand(2, 3, 16, 16)

        def slope(of: Callable[[Tensor], Tensor]) -> Tensor:
            leaf = images.clone().requires_grad_()
            (gradient,) = torch.autograd.grad(of(leaf), leaf)
            return gradient

        learning, resting = (copy.deepcopy(discriminator).train(mode) for mode in (True, False))
        expected = slope(lambda x: -learning(x).mean())
        assert not torch.allclose(expected, slope(lambda x: -resting(x).mean()), rtol=0.1)

        torch.testing.assert_close(slope(lambda x: adversarial(discriminator, x)), expected)
        torch.testing.assert_close(discriminator.state_dict(), before, rtol=0, atol=0)
        norms = [m for m in discriminator.modules() if isinstance(m, nn.BatchNorm2d)]
        assert [norm.training for norm in norms] == [training] * 2
        assert all(norm.track_running_stats for norm in norms)

    def test_other_discriminators_are_in_eval_mode(self) -> None:
        """RAE's, and whatever does not ask for the batch's statistics."""
        assert not DinoDiscriminator.batch_statistics

        class Resting(PatchGAN):
            batch_statistics = False

        discriminator = Resting(PatchGANConfig(layers=1, width=4), 16).train()
        images = torch.rand(3, 3, 16, 16)
        found = adversarial(discriminator, images)
        torch.testing.assert_close(found, -discriminator.eval()(images).mean())

    def test_frozen_weights_stay_frozen_after_an_error(self) -> None:
        discriminator = PatchGAN(PatchGANConfig(layers=1, width=4), 16)
        discriminator.main[0].requires_grad_(False)
        before = [p.requires_grad for p in discriminator.parameters()]
        assert set(before) == {True, False}

        def fail() -> None:
            with without_updates(discriminator):
                assert not any(p.requires_grad for p in discriminator.parameters())
                raise RuntimeError

        with pytest.raises(RuntimeError):
            fail()
        assert [p.requires_grad for p in discriminator.parameters()] == before

    def test_eval_mode_restores_the_mode_of_every_module(self) -> None:
        module = nn.Sequential(nn.Dropout(), nn.Sequential(nn.Dropout())).train()
        module[1].eval()
        with eval_mode(module):
            assert not any(part.training for part in module.modules())
        assert [part.training for part in module.modules()] == [True, True, False, False]


class TestDiscriminatorLoss:
    def test_terms_are_those_of_images_and_reconstructions(
        self, build: Build, images: Tensor
    ) -> None:
        tokenizer, discriminator = build(), Plain(2.0)
        terms = DiscriminatorLoss(discriminator, tokenizer)((images,), generator())
        made = to_levels(tokenizer.decode(tokenizer.encode(images).latents)).detach()
        real, false = 2 * images.mean((1, 2, 3)), 2 * made.mean((1, 2, 3))
        torch.testing.assert_close(terms["logits_real"], real.mean())
        torch.testing.assert_close(terms["logits_fake"], false.mean())
        expected = 0.5 * ((1 - real).relu().mean() + (1 + false).relu().mean())
        torch.testing.assert_close(terms["discriminator"], expected)
        assert terms["loss"] is terms["discriminator"]
        assert torch.equal(discriminator.seen[0], images)
        assert torch.equal(discriminator.seen[1], made)

    def test_both_sides_are_augmented_from_the_generator(
        self, build: Build, images: Tensor
    ) -> None:
        discriminator = Brightness()
        DiscriminatorLoss(discriminator, build())((images,), generator(7))
        numbers = generator(7)
        first, second = (torch.rand((), generator=numbers) for _ in range(2))
        assert torch.equal(discriminator.seen[0], images + first)
        levels = (discriminator.seen[1] - second) * 255
        torch.testing.assert_close(levels, levels.round(), rtol=0, atol=1e-3)

    def test_only_the_discriminator_gets_gradients(self, build: Build, images: Tensor) -> None:
        tokenizer, discriminator = build().train(), Brightness()
        objective = DiscriminatorLoss(discriminator, tokenizer)
        objective((images,), generator())["loss"].backward()
        assert discriminator.slope.grad is not None
        assert all(p.grad is None and p.requires_grad for p in tokenizer.parameters())
        assert tokenizer.training
        assert [name for name, _ in objective.named_parameters()] == ["discriminator.slope"]
        assert list(objective.state_dict()) == ["discriminator.slope"]
        assert tokenizer not in list(objective.modules())

    def test_reconstructions_use_the_current_tokenizer(self, build: Build, images: Tensor) -> None:
        tokenizer, discriminator = build(), Plain()
        objective = DiscriminatorLoss(discriminator, tokenizer)
        objective((images,), generator())
        with torch.no_grad():
            tokenizer.decoder.last_layer().mul_(3.0)
        objective((images,), generator())
        assert not torch.equal(discriminator.seen[1], discriminator.seen[3])

    def test_a_few_steps_separate_images_from_reconstructions(
        self, build: Build, images: Tensor
    ) -> None:
        torch.manual_seed(0)
        discriminator = PatchGAN(PatchGANConfig(layers=1, width=8), 16)
        objective = DiscriminatorLoss(discriminator, build())
        optimizer = torch.optim.Adam(objective.parameters(), lr=2e-3)
        losses = []
        for step in range(30):
            terms = objective((images,), generator(step))
            optimizer.zero_grad()
            terms["loss"].backward()
            optimizer.step()
            losses.append(terms["loss"].item())
        assert losses[0] == pytest.approx(1.0, abs=0.4)
        assert losses[-1] < 0.5 * losses[0]
        assert terms["logits_real"] > terms["logits_fake"]


class TestBuilding:
    def test_by_its_name_for_the_image_size(self, registry: Registry) -> None:
        found = build_discriminator(section(registry).discriminator, 16, registry)
        assert isinstance(found, PatchGAN)
        assert found.main[0].out_channels == 4

    def test_too_small_images_are_rejected(self, registry: Registry) -> None:
        described = section(registry, discriminator="patchgan")
        with pytest.raises(ValueError, match="24 px or more"):
            build_discriminator(described.discriminator, 16, registry)

    def test_a_recipe_holds_it(self, section: Callable[..., TokenizerSection]) -> None:
        described = section(adversarial={"discriminator": {"use": "dino", "weights": "none"}})
        assert described.adversarial is not None
        assert described.adversarial.weight == 0.5
