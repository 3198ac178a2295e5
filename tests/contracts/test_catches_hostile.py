"""The conformance classes find what hostile circumstances break, and say what to change.

Each broken component differs from one that passes in one thing.
"""

from __future__ import annotations

import os
import time

import pytest
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from pae_framework.config import BottleneckConfig, EncoderConfig
from pae_framework.contracts import Bottleneck, Encoder, Features, Posterior
from pae_framework.layers import map_to_tokens
from pae_framework.testing import CONTRACTS, EncoderContract, check_component
from pae_framework.testing.kind_contracts import contract_of


class PatchesConfig(EncoderConfig):
    """Right in all things."""

    width: int = Field(8, gt=0, description="token width D")

    def token_grid(self, image_size: int) -> int:
        if image_size % 4:
            raise ValueError(f"images of {image_size} px, not a multiple of 4 px")
        return image_size // 4

    def token_width(self) -> int:
        return self.width


class Patches(Encoder):
    """Right in all things."""

    mean = std = (0.5, 0.5, 0.5)

    def __init__(self, config: EncoderConfig, image_size: int):
        super().__init__(config, image_size)
        self.embed = nn.Conv2d(3, self.width, self.patch, self.patch)

    def forward(self, pixels: Tensor) -> Features:
        return Features(F.layer_norm(map_to_tokens(self.embed(pixels)), (self.width,)))


class Squeezed(Patches):
    def forward(self, pixels):
        tokens = super().forward(pixels).tokens
        return Features(tokens.squeeze(0), torch.zeros(len(pixels), self.width))


class HidesNan(Patches):
    def forward(self, pixels):
        return super().forward(pixels.nan_to_num())


class SpreadsNan(Patches):
    def forward(self, pixels):
        return super().forward(pixels + 0 * pixels.sum())


class NeedsGradients(Patches):
    def forward(self, pixels):
        found = super().forward(pixels)
        torch.autograd.grad(found.tokens.sum(), self.embed.weight, retain_graph=True)
        return found


class DependsOnGradients(Patches):
    def forward(self, pixels):
        return super().forward(pixels if torch.is_grad_enabled() else pixels.flip(2))


class ReadsValues(Patches):
    def forward(self, pixels):
        scale = 2.0 if pixels.mean().item() > 1e6 else 1.0
        return super().forward(pixels * scale)


class TimeDependent(Patches):
    def __init__(self, config, image_size):
        super().__init__(config, image_size)
        own = torch.Generator().manual_seed(time.time_ns() % 2**31)
        nn.init.normal_(self.embed.weight, generator=own)


class ProcessDependent(Patches):
    def __init__(self, config, image_size):
        super().__init__(config, image_size)
        own = torch.Generator().manual_seed(os.getpid())
        nn.init.normal_(self.embed.weight, generator=own)


class AnySizeConfig(PatchesConfig):
    """Accepts sizes that its encoder does not."""

    def token_grid(self, image_size: int) -> int:
        return image_size // 4


class CrashingConfig(PatchesConfig):
    """Fails in its own way."""

    def token_grid(self, image_size: int) -> int:
        return {16: 4, 32: 8}[image_size]


class UndescribedConfig(PatchesConfig):
    """One field has no description."""

    depth: int = 1


class OtherSmokeConfig(PatchesConfig):
    """Its smoke version is another config."""

    def smoke(self):
        return PatchesConfig()


class CodebookConfig(BottleneckConfig):
    """Two entries."""

    def latent_channels(self, token_width: int) -> int:
        return 2


class Codebook(Bottleneck):
    """Gives the entry with the larger product, without a straight-through estimator."""

    in_channels = channels = 2

    def forward(self, x: Tensor, generator: torch.Generator | None) -> Posterior:
        entries = torch.eye(2)
        return Posterior(entries[x.argmax(1)].movedim(-1, 1))


class StatedCodebook(Codebook):
    hides_nan = "it gives the nearest entry of a codebook"


class SpreadingCodebook(StatedCodebook):
    def forward(self, x, generator):
        return super().forward(x.flip(0), generator)


def local_class() -> type[Encoder]:
    class Local(Patches):
        pass

    return Local


CASES = [
    ("test_one_image", Squeezed, PatchesConfig, "squeeze"),
    ("test_nan", HidesNan, PatchesConfig, "nan_to_num"),
    ("test_nan", SpreadsNan, PatchesConfig, "others in its batch"),
    ("test_no_grad", NeedsGradients, PatchesConfig, "no_grad"),
    ("test_no_grad", DependsOnGradients, PatchesConfig, "no_grad"),
    ("test_meta_device", ReadsValues, PatchesConfig, "--dry-run"),
    ("test_equal_builds", TimeDependent, PatchesConfig, "embed.weight"),
    ("test_odd_sizes", Patches, AnySizeConfig, "13 px"),
    ("test_contract", Patches, CrashingConfig, "ValueError"),
    ("test_parameters_are_documented", Patches, UndescribedConfig, "UndescribedConfig.depth"),
    ("test_smoke_version", Patches, OtherSmokeConfig, "OtherSmokeConfig"),
    ("test_other_process", local_class(), PatchesConfig, "top of an importable module"),
]


@pytest.mark.parametrize(("test", "broken", "config", "fact"), CASES)
def test_broken_component_is_caught(test, broken, config, fact):
    with pytest.raises(AssertionError, match=fact):
        getattr(contract_of("encoder", broken, config()), test)()


@pytest.mark.slow
def test_weights_of_another_process_are_compared():
    with pytest.raises(AssertionError, match="two processes"):
        contract_of("encoder", ProcessDependent, PatchesConfig()).test_other_process()


@pytest.mark.parametrize(
    ("bottleneck", "fact"),
    [(Codebook, "hides_nan"), (StatedCodebook, None), (SpreadingCodebook, "others in its batch")],
)
def test_a_codebook_may_hide_nan_if_it_says_so_but_not_spread_it(bottleneck, fact):
    test = contract_of("bottleneck", bottleneck, CodebookConfig()).test_nan
    if fact is None:
        test()
    else:
        with pytest.raises(AssertionError, match=fact):
            test()


IN_PROCESS = [
    t for t in EncoderContract.names_of_tests() if t not in ("test_gpu", "test_other_process")
]


@pytest.mark.parametrize("test", IN_PROCESS)
def test_correct_component_passes(test):
    getattr(contract_of("encoder", Patches, PatchesConfig()), test)()


@pytest.mark.parametrize("width", [16, 9])
def test_one_of_the_sizes_has_another_number_of_tokens_than_channels(width):
    contract = contract_of("encoder", Patches, PatchesConfig(width=width))
    builds = [setup.build() for setup in contract.setups()]
    assert len({built.grid for built in builds}) == 2
    assert any(built.grid**2 != built.width for built in builds)


@pytest.mark.slow
def test_the_function_runs_all_tests_of_the_kind():
    check_component(Patches, PatchesConfig())
    with pytest.raises(AssertionError, match="HidesNan"):
        check_component(HidesNan, PatchesConfig())
    with pytest.raises(AssertionError, match="Linear"):
        check_component(nn.Linear, PatchesConfig())


@pytest.mark.parametrize("kind", CONTRACTS)
def test_every_class_refuses_a_component_of_another_kind(kind):
    with pytest.raises(AssertionError, match="component is"):
        contract_of(kind, nn.Linear, PatchesConfig()).test_config_and_class()


def test_a_class_without_component_or_config_says_what_to_set():
    class Forgotten(EncoderContract):
        pass

    with pytest.raises(AssertionError, match="component"):
        Forgotten().test_config_and_class()
