from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from tokenizer_fakes import FakeEncoder
from torch import Tensor

from pae_framework.contracts import Regularizer, RegularizerInputs
from pae_framework.errors import UsageError
from pae_framework.plugins import Registry
from pae_framework.recipe.models import TokenizerSection
from pae_framework.tokenizer.model import Tokenizer, build_tokenizer
from pae_framework.tokenizer.objective import TokenizerObjective, build_objective
from pae_framework.tokenizer.refinement import PriorRefiner

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


@pytest.fixture
def make(
    section: Section, registry: Registry, encoder: FakeEncoder
) -> Callable[..., TokenizerObjective]:
    """An objective of the given section; with ``regularizers`` objects, by label, in place."""

    def make(objects: dict[str, Regularizer] | None = None, **changes: Any) -> TokenizerObjective:
        described = section(**changes)
        tokenizer = build_tokenizer(described, 16, registry, encoder)
        refiner = None
        if described.refinement:
            refiner = PriorRefiner(described.refinement, encoder, 6)
        if objects is None:
            return build_objective(tokenizer, described, registry, refiner)
        return TokenizerObjective(tokenizer, described, objects, refiner)

    return make


Make = Callable[..., TokenizerObjective]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class TestTerms:
    def test_all_terms_are_there_and_the_loss_is_their_sum(
        self, make: Make, images: Tensor
    ) -> None:
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
        perceptual = 3 * objective.perceptual(reconstruction, images).mean()
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
        assert list(objective.regularizers) == ["mcr"]

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
    def test_what_a_regularizer_sees(self, make: Make, images: Tensor) -> None:
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
        perceptual = 3 * objective.perceptual(images, other).mean()
        torch.testing.assert_close(seen.inputs.distance(images, other), l1 + perceptual)

    def test_frozen_features_are_computed_once(
        self, make: Make, images: Tensor, encoder: FakeEncoder
    ) -> None:
        make(regularizers=ALIGNED, refinement=REFINEMENT).loss(images, generator())
        assert encoder.calls == 1
        # the image, the reconstruction, and the two decodes of the cascade
        assert encoder.map_calls == 4


class TestGradients:
    def test_reach_the_whole_tokenizer_and_nothing_frozen(self, make: Make, images: Tensor) -> None:
        objective = make(regularizers=ALIGNED, refinement=REFINEMENT).train()
        objective.loss(images, generator())["loss"].backward()
        assert all(p.grad is not None for p in objective.tokenizer.parameters())
        for frozen in (objective.tokenizer.encoder, objective.refiner):
            assert not frozen.training
            assert all(p.grad is None and not p.requires_grad for p in frozen.parameters())

    def test_what_is_trained_is_the_tokenizer(self, make: Make) -> None:
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
    def test_is_the_generators_alone(self, make: Make, images: Tensor, bottleneck: str) -> None:
        objective = make(
            bottleneck={"use": bottleneck, "channels": 6},
            regularizers=ALIGNED,
            refinement=REFINEMENT,
        )
        first = objective.loss(images, generator(1))["loss"]
        torch.rand(7)  # the default generator plays no part
        assert torch.equal(objective.loss(images, generator(1))["loss"], first)
        assert not torch.equal(objective.loss(images, generator(2))["loss"], first)

    def test_of_a_term_is_its_own_whichever_others_there_are(
        self, make: Make, images: Tensor
    ) -> None:
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

    def test_of_the_bottleneck_is_no_regularizers(self, make: Make, images: Tensor) -> None:
        """A term labelled ``bottleneck`` does not draw the numbers of the bottleneck again."""
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
    def test_the_loop_calls_the_module_itself(self, make: Make, images: Tensor) -> None:
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


class TestRefusals:
    def test_a_term_that_needs_targets_needs_a_refinement(self, make: Make) -> None:
        with pytest.raises(UsageError, match=r"regularizers.scr needs refined targets"):
            make(regularizers={"scr": {}})

    @pytest.mark.parametrize("label", ["loss", "l1", "perceptual"])
    def test_a_label_that_is_the_objectives_own(self, make: Make, label: str) -> None:
        with pytest.raises(UsageError, match=rf"regularizers.{label}: .* `use: mcr`"):
            make(regularizers={label: {"use": "mcr"}})

    def test_kl_needs_a_gaussian_bottleneck(self, make: Make, images: Tensor) -> None:
        with pytest.raises(UsageError, match="kl needs a bottleneck with a mean"):
            make(regularizers={"kl": {}}).loss(images, generator())


def test_gaussian_with_kl_runs(make: Make, images: Tensor) -> None:
    objective = make(bottleneck={"use": "gaussian", "channels": 6}, regularizers={"kl": {}})
    assert objective.loss(images, generator())["kl"].item() > 0


def test_tokenizer_is_shared(make: Make) -> None:
    objective = make()
    assert isinstance(objective.tokenizer, Tokenizer)
    assert objective.perceptual.encoder is objective.tokenizer.encoder
