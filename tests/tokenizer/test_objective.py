from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from tokenizer_fakes import FakeEncoder
from torch import Tensor

from pae_framework.build import build_objective, build_tokenizer
from pae_framework.config import DiscriminatorConfig, LatentShape
from pae_framework.contracts import Discriminator, Regularizer, RegularizerInputs
from pae_framework.data.statistics import STANDARD_EPS
from pae_framework.errors import UsageError
from pae_framework.layers import tokens_to_map
from pae_framework.recipe.models import TokenizerSection
from pae_framework.registry import Registry
from pae_framework.tokenizer.losses.adversarial import AdversarialTerm, Schedule
from pae_framework.tokenizer.losses.objective import TokenizerObjective
from pae_framework.tokenizer.losses.reconstruction import ReconstructionTerms
from pae_framework.tokenizer.losses.terms import NamedModules, Ramp, RegularizerTerm
from pae_framework.tokenizer.model import ComposedTokenizer, noisy
from pae_framework.tokenizer.refinement import PriorRefiner
from pae_framework.training.blocks import find_blocks, recompute_blocks

REFINEMENT = {"depth": 1, "heads": 2, "train": {"steps": 1}}
ALIGNED = {"ssr": {"weight": 0.2}, "mcr": {"weight": 0.5}, "scr": {}}
Section = Callable[..., TokenizerSection]


class Sees(Regularizer):
    """A term that keeps what it is given and answers with a fixed value."""

    def __init__(self, value: float = 1.0):
        torch.nn.Module.__init__(self)
        self.value = value
        self.inputs: RegularizerInputs

    def forward(self, inputs: RegularizerInputs) -> Tensor:
        self.inputs = inputs
        return inputs.reconstruction.new_full((), self.value)


class Draws(Regularizer):
    """A term that is a random number, after ``waste`` others that it has no use for."""

    def __init__(self, waste: int = 0):
        torch.nn.Module.__init__(self)
        self.waste = waste

    def forward(self, inputs: RegularizerInputs) -> Tensor:
        return torch.rand(1 + self.waste, generator=inputs.generator)[-1]


class Refuses(Regularizer):
    def __init__(self) -> None:
        torch.nn.Module.__init__(self)

    def forward(self, inputs: RegularizerInputs) -> Tensor:
        raise AssertionError("a term of weight 0 was computed")


class Scaled(Regularizer):
    """An adaptive term: ``slope`` times the mean of the latents."""

    adaptive = True

    def __init__(self, slope: float):
        torch.nn.Module.__init__(self)
        self.slope = slope

    def forward(self, inputs: RegularizerInputs) -> Tensor:
        return self.slope * inputs.posterior.latents.mean()


class Slope(Discriminator):
    """A logit per image: three times its mean pixel."""

    def __init__(self) -> None:
        super().__init__(DiscriminatorConfig(), 16)
        self.slope = torch.nn.Parameter(torch.tensor(3.0))
        self.calls = 0

    def forward(self, images: Tensor) -> Tensor:
        self.calls += 1
        return self.slope * images.mean((1, 2, 3))[:, None]


def adversarial(weight: float = 0.5, adaptive: bool = True, **schedule: int) -> AdversarialTerm:
    times = {"update_from": 0, "start": 0, "warmup": 0, **schedule}
    return AdversarialTerm(Slope(), Schedule(**times), weight, adaptive)


@pytest.fixture
def make(
    section: Section, registry: Registry, encoder: FakeEncoder
) -> Callable[..., TokenizerObjective]:
    """An objective of the given section; with ``regularizers`` objects, by label, in place."""

    def make(
        objects: dict[str, Regularizer] | None = None,
        adversarial: AdversarialTerm | None = None,
        per_epoch: float = 1.0,
        **changes: Any,
    ) -> TokenizerObjective:
        described = section(**changes)
        tokenizer = build_tokenizer(described, 16, registry, encoder)
        refiner = None
        if described.refinement:
            refiner = PriorRefiner(described.refinement, encoder, 6)
        if objects is None:
            return build_objective(
                tokenizer, described, registry, refiner, adversarial, per_epoch=per_epoch
            )
        regularizers = [
            RegularizerTerm(label, objects[label], Ramp(last=component.config.weight))
            for label, component in described.active_regularizers.items()
        ]
        return TokenizerObjective(
            tokenizer,
            ReconstructionTerms(described.reconstruction, encoder),
            regularizers,
            adversarial,
            target=described.active_target,
            refiner=refiner,
            noise=described.noise,
        )

    return make


Make = Callable[..., TokenizerObjective]


def test_the_weight_of_a_regularizer_comes_in_late_and_grows(make: Make) -> None:
    """From step 2 on, a fifth more each step: 0, 0, 0, 1/5, 2/5, ..., 1, 1."""
    changes = {"start": {"steps": 2}, "weight": {"to": 0.5, "epochs": 2}}
    found = []
    for ramp in ({}, changes):
        torch.manual_seed(6)
        terms = {"ssr": {"weight": 0.5, **ramp}}
        found.append(make(regularizers=terms, refinement=REFINEMENT, per_epoch=2.5))
    plain, growing = found
    full = loss_of(plain)
    for step in range(9):
        growing.begin_step(step)
        terms, share = loss_of(growing), min(1.0, max(0.0, (step - 2) / 5))
        assert ("ssr" in terms) == (share > 0)
        expected = full["loss"] + (share - 1) * full["ssr"]
        torch.testing.assert_close(terms["loss"], expected)
        if share:
            torch.testing.assert_close(terms["ssr"], share * full["ssr"])


def test_the_weight_of_a_regularizer_falls(make: Make) -> None:
    """From 1 to 0.2 in 4 steps; one that falls to 0 is then not computed."""
    weights = {"ssr": {"from": 1, "to": 0.2, "steps": 4}, "scr": {"from": 1, "to": 0, "steps": 4}}
    terms = {label: {"weight": weight} for label, weight in weights.items()}
    objective = make(regularizers=terms, refinement=REFINEMENT)
    found = []
    for step in range(6):
        objective.begin_step(step)
        found.append(loss_of(objective))
    for label, expected in {
        "ssr": (1, 0.8, 0.6, 0.4, 0.2, 0.2),
        "scr": (1, 0.75, 0.5, 0.25),
    }.items():
        values = [terms[label] for terms in found if label in terms]
        torch.testing.assert_close(torch.stack(values), found[0][label] * torch.tensor(expected))


def loss_of(objective: TokenizerObjective) -> dict[str, Tensor]:
    images = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(4))
    return objective.eval().loss(images, torch.Generator().manual_seed(5))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class TestTerms:
    def test_the_loss_is_the_sum_of_all_terms(self, make: Make, images: Tensor) -> None:
        terms = make(regularizers=ALIGNED, refinement=REFINEMENT).loss(images, generator())
        names = ["l1", "perceptual", "ssr", "mcr", "scr"]
        assert list(terms) == [*names, "loss"]
        total = sum(terms[name].item() for name in names)
        assert terms["loss"].item() == pytest.approx(total, rel=1e-6)

    def test_reconstruction_terms_by_definition(self, make: Make, images: Tensor) -> None:
        objective = make(reconstruction={"l1": 2.0, "perceptual": {"weight": 3.0}})
        terms = objective.loss(images, generator())
        tokenizer = objective.tokenizer
        reconstruction = tokenizer.decode(tokenizer.encode(images).latents)
        l1 = 2 * (reconstruction - images).abs().mean()
        perceptual = 3 * objective.reconstruction.perceptual(reconstruction, images).mean()
        torch.testing.assert_close(terms["l1"], l1)
        torch.testing.assert_close(terms["perceptual"], perceptual)

    def test_regularizers_are_weighted(self, make: Make, images: Tensor) -> None:
        terms = make({"kl": Sees(8.0)}, regularizers={"kl": {"weight": 0.25}}).loss(
            images, generator()
        )
        assert terms["kl"].item() == 2.0

    def test_without_any_term_the_loss_is_0(self, make: Make, images: Tensor) -> None:
        objective = make(reconstruction={"l1": 0.0, "perceptual": {"weight": 0.0}})
        terms = objective.loss(images, generator())
        assert {name: term.item() for name, term in terms.items()} == {"loss": 0.0}


class TestWeightZero:
    def test_a_regularizer_is_neither_computed_nor_logged(self, make: Make, images: Tensor) -> None:
        objective = make({"mcr": Refuses()}, regularizers={"mcr": {"weight": 0.0}})
        assert "mcr" not in objective.loss(images, generator())
        with pytest.raises(AssertionError, match="was computed"):
            make({"mcr": Refuses()}, regularizers={"mcr": {}}).loss(images, generator())

    def test_a_regularizer_is_not_built_and_needs_no_refinement(self, make: Make) -> None:
        objective = make(regularizers={"ssr": {"weight": 0.0}, "mcr": {}})
        assert list(dict(objective.regularizers.named_children())) == ["mcr"]

    def test_the_perceptual_term_runs_no_encoder(
        self, make: Make, images: Tensor, encoder: FakeEncoder
    ) -> None:
        objective = make(regularizers={"mcr": {}}, reconstruction={"perceptual": {"weight": 0.0}})
        assert "perceptual" not in objective.loss(images, generator())
        assert encoder.map_calls == 0

    def test_without_alignment_no_targets_are_computed(self, make: Make, images: Tensor) -> None:
        seen = Sees()
        make({"kl": seen}, regularizers={"kl": {}}, refinement=REFINEMENT).loss(images, generator())
        assert seen.inputs.target is None


class TestInputs:
    def test_inputs_of_a_regularizer(self, make: Make, images: Tensor) -> None:
        seen = Sees()
        objective = make({"ssr": seen}, regularizers={"ssr": {}}, refinement=REFINEMENT)
        objective.loss(images, generator())
        inputs, tokenizer = seen.inputs, objective.tokenizer
        assert inputs.images is images
        assert inputs.reconstruction.requires_grad
        assert inputs.posterior.latents.requires_grad
        assert torch.equal(inputs.features, tokenizer.features(images).tokens)
        assert torch.equal(inputs.decode(inputs.posterior.latents), inputs.reconstruction)
        assert inputs.target is not None
        assert not inputs.target.requires_grad
        assert torch.equal(inputs.target, objective.refiner.targets(inputs.features))

    def test_distance_is_the_reconstruction_distance(self, make: Make, images: Tensor) -> None:
        seen = Sees()
        reconstruction = {"l1": 2.0, "perceptual": {"weight": 3.0}}
        objective = make({"mcr": seen}, regularizers={"mcr": {}}, reconstruction=reconstruction)
        objective.loss(images, generator())
        other = torch.rand_like(images)
        l1 = 2 * (images - other).abs().mean()
        perceptual = 3 * objective.reconstruction.perceptual(images, other).mean()
        torch.testing.assert_close(seen.inputs.distance(images, other), l1 + perceptual)

    def test_frozen_features_are_computed_once(
        self, make: Make, images: Tensor, encoder: FakeEncoder
    ) -> None:
        make(regularizers=ALIGNED, refinement=REFINEMENT).loss(images, generator())
        assert encoder.calls == 1
        # the image, the reconstruction, and the two decodes of the cascade
        assert encoder.map_calls == 4


def gradient(term: Tensor, weight: Tensor) -> Tensor:
    (found,) = torch.autograd.grad(term, weight, retain_graph=True)
    return found


class TestTarget:
    def test_raw_is_the_features_as_a_map(self, make: Make, images: Tensor) -> None:
        seen = Sees()
        objective = make({"ssr": seen}, regularizers={"ssr": {}}, target="raw")
        objective.loss(images, generator())
        target = seen.inputs.target
        assert target is not None
        assert target.shape == (3, 32, 4, 4)
        assert not target.requires_grad
        assert torch.equal(target, tokens_to_map(seen.inputs.features))

    def test_raw_does_not_use_an_existing_refinement(self, make: Make, images: Tensor) -> None:
        seen = Sees()
        regularizers = {"ssr": {}}
        make({"ssr": seen}, regularizers=regularizers, target="raw", refinement=REFINEMENT).loss(
            images, generator()
        )
        assert seen.inputs.target is not None
        assert seen.inputs.target.shape[1] == 32

    @pytest.mark.parametrize(("target", "channels"), [("raw", 32), ("refined", 6)])
    def test_regularizers_are_prepared_for_their_tokenizer(
        self, make: Make, monkeypatch: pytest.MonkeyPatch, target: str, channels: int
    ) -> None:
        given: list[Any] = []
        monkeypatch.setattr(Regularizer, "prepare", lambda own, *shapes: given.append(shapes))
        make(
            regularizers={"ssr": {}, "mcr": {}, "scr": {"weight": 0.0}},
            target=target,
            refinement=REFINEMENT,
        )
        latent = LatentShape(6, 4)
        assert given == [(latent, 32, channels), (latent, 32, None)]


class TestNoise:
    def test_its_deviation_is_uniform_per_image(self) -> None:
        """sigma ~ U(0, tau): mean tau / 2, deviation tau / sqrt(12); within an image normal."""
        noise = noisy(torch.zeros(2000, 8, 8, 8), 0.8, generator())
        sigma = noise.flatten(1).std(1)
        assert sigma.max() < 0.8 * 1.15
        assert sigma.mean().item() == pytest.approx(0.4, rel=0.03)
        assert sigma.std().item() == pytest.approx(0.8 / 12**0.5, rel=0.05)
        unit = noise / sigma.view(-1, 1, 1, 1)
        assert unit.mean().item() == pytest.approx(0.0, abs=0.01)
        assert unit.pow(4).mean().item() == pytest.approx(3.0, rel=0.05)

    def test_it_is_added_to_the_input_of_the_deprojector(
        self, build: Callable[..., ComposedTokenizer], images: Tensor
    ) -> None:
        """Not to the standardized latents, where the bottleneck standardizes (RAE)."""
        tokenizer = build(modulator="none", bottleneck="identity")
        tokenizer.bottleneck.var.fill_(4.0)
        latents = tokenizer.encode(images).latents
        taken = noisy(tokenizer.bottleneck.invert(latents), 0.8, generator(3))
        tokenizer.bottleneck.mean.zero_()
        tokenizer.bottleneck.var.fill_(1 - STANDARD_EPS)  # takes latents as they are
        expected = tokenizer.decode(taken)
        tokenizer.bottleneck.var.fill_(4.0)
        torch.testing.assert_close(tokenizer.decode(latents, 0.8, generator(3)), expected)

    def test_in_training_only_and_for_the_reconstruction_only(
        self, make: Make, images: Tensor
    ) -> None:
        seen = Sees()
        objective = make({"mcr": seen}, regularizers={"mcr": {}}, noise=0.8).train()
        objective.loss(images, generator())
        inputs = seen.inputs
        clean = objective.tokenizer.decode(inputs.posterior.latents)
        assert not torch.allclose(inputs.reconstruction, clean, atol=1e-3)
        assert torch.equal(inputs.decode(inputs.posterior.latents), clean)
        objective.eval().loss(images, generator())
        assert torch.equal(seen.inputs.reconstruction, clean)

    def test_changes_no_other_random_number(self, make: Make, images: Tensor) -> None:
        one, other = (
            make({"mcr": Draws()}, regularizers={"mcr": {}}, noise=tau).loss(images, generator())
            for tau in (0.0, 0.8)
        )
        assert one["mcr"] == other["mcr"]
        assert one["l1"] != other["l1"]


class TestAdaptiveRegularizers:
    def test_the_gradient_norm_equals_that_of_the_reconstruction(
        self, make: Make, images: Tensor
    ) -> None:
        objective = make({"mcr": Scaled(7.0)}, regularizers={"mcr": {"weight": 0.5}})
        terms = objective.loss(images, generator())
        layer = objective.tokenizer.layer_before_latents()
        assert layer is objective.tokenizer.latent_compressor[1].weight  # type: ignore[index]
        reconstruction = gradient(terms["l1"] + terms["perceptual"], layer).norm()
        term = gradient(terms["mcr"], layer).norm() / (0.5 * terms["mcr_weight"])
        torch.testing.assert_close(terms["mcr_weight"], reconstruction / (term + 1e-4))
        assert not terms["mcr_weight"].requires_grad

    def test_the_scale_of_the_term_hardly_matters(self, make: Make, images: Tensor) -> None:
        small, large = (
            make({"mcr": Scaled(slope)}, regularizers={"mcr": {}}) for slope in (100.0, 1000.0)
        )
        large.load_state_dict(small.state_dict())
        one, other = (objective.loss(images, generator()) for objective in (small, large))
        torch.testing.assert_close(one["mcr"], other["mcr"], rtol=1e-2, atol=0)
        assert one["mcr_weight"] > 5 * other["mcr_weight"]

    def test_the_factor_is_logged_but_not_part_of_the_loss(
        self, make: Make, images: Tensor
    ) -> None:
        terms = make({"mcr": Scaled(7.0)}, regularizers={"mcr": {}}).loss(images, generator())
        assert list(terms) == ["l1", "perceptual", "mcr", "loss", "mcr_weight"]
        total = terms["l1"] + terms["perceptual"] + terms["mcr"]
        torch.testing.assert_close(terms["loss"], total)

    def test_it_needs_a_projector(self, make: Make) -> None:
        """The recipe check cannot reject it: mcr's config does not state that it is adaptive."""
        objective = make({"mcr": Scaled(1.0)}, regularizers={"mcr": {}}, bottleneck="identity")
        with pytest.raises(UsageError, match=r"'mcr'.*projector.*regularizers\.mcr\.weight=0"):
            objective.check()

    def test_it_needs_a_reconstruction_term(self, make: Make) -> None:
        nothing = {"l1": 0.0, "perceptual": {"weight": 0.0}}
        objective = make({"mcr": Scaled(1.0)}, regularizers={"mcr": {}}, reconstruction=nothing)
        with pytest.raises(UsageError, match=r"'mcr'.*tokenizer\.reconstruction\.l1=1"):
            objective.check()
        objective = make(adversarial=adversarial(), reconstruction=nothing)
        with pytest.raises(UsageError, match=r"'adversarial'.*tokenizer\.reconstruction\.l1=1"):
            objective.check()


class TestAdversarial:
    def test_the_gradient_at_the_last_layer_is_proportional_to_the_weight(
        self, make: Make, images: Tensor
    ) -> None:
        objective = make(adversarial=adversarial(weight=0.75))
        terms = objective.loss(images, generator())
        layer = objective.tokenizer.decoder.last_layer()
        reconstruction = gradient(terms["l1"] + terms["perceptual"], layer).norm()
        torch.testing.assert_close(
            gradient(terms["adversarial"], layer).norm(), 0.75 * reconstruction
        )
        made = objective.tokenizer.decode(objective.tokenizer.encode(images).latents)
        expected = 0.75 * terms["adversarial_weight"] * -3 * made.mean()
        torch.testing.assert_close(terms["adversarial"], expected)

    def test_without_adaptive_only_the_weight_applies(self, make: Make, images: Tensor) -> None:
        objective = make(adversarial=adversarial(weight=0.75, adaptive=False))
        terms = objective.loss(images, generator())
        made = objective.tokenizer.decode(objective.tokenizer.encode(images).latents)
        torch.testing.assert_close(terms["adversarial"], 0.75 * -3 * made.mean())
        assert list(terms) == ["l1", "perceptual", "adversarial", "loss"]
        parts = terms["l1"] + terms["perceptual"] + terms["adversarial"]
        torch.testing.assert_close(terms["loss"], parts)

    def test_the_factor_is_not_part_of_the_loss(self, make: Make, images: Tensor) -> None:
        terms = make(adversarial=adversarial()).loss(images, generator())
        assert list(terms) == ["l1", "perceptual", "adversarial", "loss", "adversarial_weight"]
        parts = terms["l1"] + terms["perceptual"] + terms["adversarial"]
        torch.testing.assert_close(terms["loss"], parts)

    def test_it_starts_at_its_step_and_warms_up(self, make: Make, images: Tensor) -> None:
        term = adversarial(adaptive=False, start=4, warmup=2)
        objective = make(adversarial=term)
        found = []
        for step in range(8):
            objective.begin_step(step)
            found.append(objective.loss(images, generator()).get("adversarial"))
        assert found[:5] == [None] * 5
        half, *full = found[5:]
        assert half is not None
        for value in full:
            torch.testing.assert_close(value, 2 * half)
        assert isinstance(term.discriminator, Slope)
        assert term.discriminator.calls == 3

    def test_the_discriminator_is_not_part_of_the_objective(
        self, make: Make, images: Tensor
    ) -> None:
        term = adversarial()
        objective = make(adversarial=term).train()
        objective.loss(images, generator())["loss"].backward()
        assert {key.split(".")[0] for key in objective.state_dict()} == {"tokenizer"}
        assert term.discriminator not in list(objective.modules())
        (slope,) = term.discriminator.parameters()
        assert slope.grad is None
        assert slope.requires_grad
        assert all(p.grad is not None for p in objective.tokenizer.parameters())

    def test_a_frozen_decoder_is_rejected(self, make: Make, images: Tensor) -> None:
        objective = make(adversarial=adversarial())
        objective.tokenizer.decoder.requires_grad_(False)
        with pytest.raises(UsageError, match="lr_factors"):
            objective.loss(images, generator())

    def test_check_names_the_term_whose_layer_is_frozen(self, make: Make) -> None:
        adaptive, regularizers = {"mcr": Scaled(1.0)}, {"mcr": {}}
        objective = make(adaptive, adversarial(start=9), regularizers=regularizers)
        objective.check()
        objective.tokenizer.layer_before_latents().requires_grad_(False)
        with pytest.raises(UsageError, match=r"'mcr' .* last layer before the latents"):
            objective.check()
        objective.tokenizer.decoder.requires_grad_(False)
        with pytest.raises(UsageError, match=r"'adversarial' .*lr_factors"):
            objective.check()

    def test_terms_that_are_not_adaptive_need_no_layer(self, make: Make) -> None:
        objective = make(regularizers={"mcr": {}}, adversarial=adversarial(adaptive=False))
        objective.tokenizer.requires_grad_(False)
        objective.check()

    def test_works_with_activation_checkpointing(self, make: Make, images: Tensor) -> None:
        """Both adaptive weights go backward through the graph before the loss does."""
        regularizers = {"mcr": {}}
        objective = make({"mcr": Scaled(7.0)}, adversarial(), regularizers=regularizers)
        objective.loss(images, generator())["loss"].backward()
        expected = [p.grad.clone() for p in objective.parameters() if p.grad is not None]
        objective.zero_grad()
        assert len(find_blocks(objective)) >= 4
        recompute_blocks(objective)
        objective.loss(images, generator())["loss"].backward()
        found = [p.grad for p in objective.parameters() if p.grad is not None]
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(one, other)


class TestGradients:
    def test_reach_the_whole_tokenizer_but_no_frozen_network(
        self, make: Make, images: Tensor
    ) -> None:
        objective = make(regularizers=ALIGNED, refinement=REFINEMENT).train()
        objective.loss(images, generator())["loss"].backward()
        assert all(p.grad is not None for p in objective.tokenizer.parameters())
        for frozen in (objective.tokenizer.encoder, objective.refiner):
            assert not frozen.training
            assert all(p.grad is None and not p.requires_grad for p in frozen.parameters())

    def test_the_parameters_are_those_of_the_tokenizer(self, make: Make) -> None:
        objective = make(regularizers=ALIGNED, refinement=REFINEMENT)
        assert {key.split(".")[0] for key in objective.state_dict()} == {"tokenizer"}

    def test_a_few_steps_lower_the_loss(self, make: Make, images: Tensor) -> None:
        objective = make(regularizers=ALIGNED, refinement=REFINEMENT)
        optimizer = torch.optim.Adam(objective.parameters(), lr=5e-3)
        losses = []
        for step in range(15):
            loss = objective.loss(images, generator(step))["loss"]
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        assert sum(losses[-3:]) < 0.8 * sum(losses[:3])


class TestRandomness:
    @pytest.mark.parametrize("bottleneck", ["sphere", "gaussian"])
    def test_depends_only_on_the_generator(
        self, make: Make, images: Tensor, bottleneck: str
    ) -> None:
        objective = make(
            bottleneck={"use": bottleneck, "channels": 6},
            regularizers=ALIGNED,
            refinement=REFINEMENT,
        )
        first = objective.loss(images, generator(1))["loss"]
        torch.rand(7)  # the default generator plays no part
        assert torch.equal(objective.loss(images, generator(1))["loss"], first)
        assert not torch.equal(objective.loss(images, generator(2))["loss"], first)

    def test_of_a_term_does_not_depend_on_other_terms(self, make: Make, images: Tensor) -> None:
        def terms(*labels: str, bottleneck: str = "sphere") -> dict[str, Tensor]:
            objects = {label: Draws(waste=3 * (label == "wasteful")) for label in labels}
            described = {label: {"use": "mcr"} for label in labels}
            part = {"use": bottleneck, "channels": 6}
            return make(objects, regularizers=described, bottleneck=part).loss(images, generator())

        alone = terms("plain")["plain"]
        both = terms("wasteful", "plain", "twin")
        assert both["plain"] == alone
        assert terms("plain", "wasteful")["wasteful"] == both["wasteful"]
        assert terms("plain", bottleneck="gaussian")["plain"] == alone
        assert both["plain"] != both["twin"]

    def test_of_the_bottleneck_differs_from_that_of_regularizers(
        self, make: Make, images: Tensor
    ) -> None:
        """A term labeled ``bottleneck`` does not draw the numbers of the bottleneck again."""
        seen = Sees()
        objective = make(
            {"bottleneck": seen},
            bottleneck={"use": "gaussian", "channels": 6},
            regularizers={"bottleneck": {"use": "mcr"}},
        )
        objective.loss(images, generator())
        found = seen.inputs.posterior
        assert found.mean is not None
        assert found.logvar is not None
        noise = (found.latents - found.mean) / (0.5 * found.logvar).exp()
        drawn = torch.randn(noise.shape, generator=seen.inputs.generator)
        assert not torch.allclose(noise, drawn, atol=1e-3)


class TestTraining:
    def test_forward_computes_the_loss(self, make: Make, images: Tensor) -> None:
        objective = make(regularizers={"mcr": {}})
        labels = torch.zeros(3, dtype=torch.int64)
        called = objective((images, labels), generator(4))
        assert called == objective.loss(images, generator(4))


class TestPrecision:
    def test_runs_under_bf16_autocast_near_float32(self, make: Make, images: Tensor) -> None:
        objective = make(regularizers=ALIGNED, refinement=REFINEMENT)
        exact = objective.loss(images, generator())
        with torch.autocast("cpu", torch.bfloat16):
            terms = objective.loss(images, generator())
        terms["loss"].backward()
        assert all(p.grad is not None for p in objective.parameters())
        for name, term in terms.items():
            assert term.dtype == torch.float32
            # bf16 keeps 8 bits; the terms are sums of many roundings
            torch.testing.assert_close(term, exact[name], rtol=0.05, atol=0.01)


class TestLabels:
    @pytest.mark.parametrize("label", ["half", "train", "type", "keys", "state_dict", "training"])
    def test_a_label_may_be_the_name_of_a_module_attribute(
        self, make: Make, images: Tensor, label: str
    ) -> None:
        raw = {"target": "raw", "regularizers": {label: {"use": "scr"}}}
        objective = make(**raw).train()
        assert label in objective.loss(images, generator())
        key = f"regularizers.{label}.project.weight"
        assert key in dict(objective.named_parameters())
        other = make(**raw)
        other.load_state_dict(objective.state_dict())
        assert torch.equal(other.state_dict()[key], objective.state_dict()[key])
        assert all(part.training for part in objective.regularizers.modules())

    def test_a_module_cannot_be_set_afterwards(self) -> None:
        """It would not be registered, so it would be missing in the state dict."""
        named = NamedModules({"training": torch.nn.Linear(1, 1)})
        with pytest.raises(AssertionError, match="other"):
            named.other = torch.nn.Linear(1, 1)


class TestRefusals:
    def test_a_term_that_needs_targets_needs_a_refinement(self, make: Make) -> None:
        with pytest.raises(AssertionError):  # a recipe is refused before: test_checks_losses
            make(regularizers={"scr": {}})

    def test_kl_needs_a_gaussian_bottleneck(self, make: Make, images: Tensor) -> None:
        with pytest.raises(AssertionError):  # the recipe check rejects it
            make(regularizers={"kl": {}}).loss(images, generator())


def test_gaussian_with_kl_runs(make: Make, images: Tensor) -> None:
    objective = make(bottleneck={"use": "gaussian", "channels": 6}, regularizers={"kl": {}})
    assert objective.loss(images, generator())["kl"].item() > 0


def test_tokenizer_is_shared(make: Make) -> None:
    objective = make()
    assert isinstance(objective.tokenizer, ComposedTokenizer)
    assert objective.reconstruction.perceptual.encoder is objective.tokenizer.encoder
