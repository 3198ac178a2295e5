"""The checks see tokens and grids in a wrong order, also where shapes cannot tell: N = D, h = w."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pae_framework.config import (
    BottleneckConfig,
    DecoderConfig,
    EncoderConfig,
    GeneratorConfig,
    LatentShape,
    ModulatorConfig,
)
from pae_framework.contracts import (
    Bottleneck,
    Decoder,
    Encoder,
    Features,
    Generator,
    Modulator,
    Posterior,
)
from pae_framework.layers import map_to_tokens, unpatchify
from pae_framework.promises import order_problem, probe_cells
from pae_framework.testing.bottlenecks import check_bottleneck
from pae_framework.testing.decoders import check_decoder
from pae_framework.testing.encoders import check_encoder
from pae_framework.testing.generators import check_generator
from pae_framework.testing.modulators import check_modulator

SIZE, PATCH, GRID, WIDTH = 8, 2, 4, 16


def same(x: Tensor) -> Tensor:
    return x


def transposed(tokens: Tensor) -> Tensor:
    return tokens.transpose(1, 2)


def by_column(tokens: Tensor) -> Tensor:
    side = round(tokens.shape[1] ** 0.5)
    return tokens.unflatten(1, (side, side)).transpose(1, 2).flatten(1, 2)


def map_transposed(x: Tensor) -> Tensor:
    return x.transpose(2, 3)


def upside_down(x: Tensor) -> Tensor:
    return x.flip(2)


class PatchesConfig(EncoderConfig):
    def token_grid(self, image_size: int) -> int:
        return image_size // PATCH

    def token_width(self) -> int:
        return WIDTH


class OneSizeConfig(PatchesConfig):
    def token_grid(self, image_size: int) -> int:
        if image_size != SIZE:
            raise ValueError(f"{image_size} px, only {SIZE} px are possible")
        return GRID


def encoder(change: Callable[[Tensor], Tensor], config: EncoderConfig, mixes: bool) -> Encoder:
    class Patches(Encoder):
        mean, std = (0.5, 0.4, 0.3), (0.5, 0.25, 0.2)

        def __init__(self, config: EncoderConfig, image_size: int):
            super().__init__(config, image_size)
            self.grid, self.width = config.token_grid(image_size), WIDTH
            self.heads, self.patch = 2, PATCH
            self.embed = nn.Conv2d(3, WIDTH, PATCH, PATCH)

        def forward(self, pixels: Tensor) -> Features:
            tokens = map_to_tokens(self.embed(pixels))
            if mixes:
                tokens = tokens.sum(1, keepdim=True) - tokens  # each from all others
            tokens = change(F.layer_norm(tokens, (WIDTH,)))
            return Features(tokens, tokens.mean(1))

    return Patches(config, SIZE)


def modulator(change: Callable[[Tensor], Tensor]) -> None:
    class Add(Modulator):
        def __init__(self, config: ModulatorConfig, encoder: Encoder):
            super().__init__(config, encoder)
            self.layer = nn.Linear(WIDTH, WIDTH)

        def forward(self, pixels: Tensor, tokens: Tensor) -> Tensor:
            return change(tokens + self.layer(tokens))

    frozen = encoder(same, PatchesConfig(), mixes=False)
    check_modulator(Add(ModulatorConfig(), frozen), ModulatorConfig(), frozen)


def bottleneck(change: Callable[[Tensor], Tensor]) -> None:
    class Squeeze(Bottleneck):
        def __init__(self, config: BottleneckConfig, width: int, grid: int):
            super().__init__(config, width, grid)
            self.in_channels = self.channels = 4
            self.layer = nn.Conv2d(4, 4, 1)

        def forward(self, x: Tensor, generator: torch.Generator | None) -> Posterior:
            return Posterior(change(self.layer(x)))

    class SqueezeConfig(BottleneckConfig):
        def latent_channels(self, token_width: int) -> int:
            return 4

    check_bottleneck(Squeeze(SqueezeConfig(), WIDTH, GRID), SqueezeConfig(), WIDTH, GRID)


def decoder(change: Callable[[Tensor], Tensor]) -> None:
    class Unfold(Decoder):
        def __init__(self, config: DecoderConfig, width: int, grid: int):
            super().__init__(config, width, grid)
            self.layer = nn.Linear(width, 3 * PATCH**2)

        def forward(self, tokens: Tensor) -> Tensor:
            return change(unpatchify(self.layer(tokens), PATCH))

        def last_layer(self) -> nn.Parameter:
            return self.layer.weight

    class UnfoldConfig(DecoderConfig):
        def image_size(self, grid: int) -> int:
            return PATCH * grid

    check_decoder(Unfold(UnfoldConfig(), WIDTH, GRID), UnfoldConfig(), WIDTH, GRID)


def generator(change: Callable[[Tensor], Tensor]) -> None:
    class Velocity(Generator):
        def __init__(self, config: GeneratorConfig, latent: LatentShape, num_classes: int):
            super().__init__(config, latent, num_classes)
            self.layer = nn.Conv2d(latent.channels, latent.channels, 1)
            self.label = nn.Embedding(num_classes + 1, latent.channels)

        def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
            shift = self.label(y) + t[:, None]
            return change(self.layer(x) + shift[:, :, None, None])

    check_generator(Velocity(GeneratorConfig(), LatentShape(4, GRID), 3), GeneratorConfig())


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize("config", [PatchesConfig(), OneSizeConfig()])
@pytest.mark.parametrize(
    ("change", "fact"),
    [(transposed, r"\(B, D, N\)|\(2, 16, 64\)"), (by_column, "rows and columns")],
)
def test_tokens_of_an_encoder(config: EncoderConfig, change, fact: str) -> None:
    with pytest.raises(AssertionError, match=fact):
        check_encoder(encoder(change, config, mixes=False))


def test_transposed_tokens_that_all_depend_on_each_patch() -> None:
    """Another image size tells the axes apart: 8 x 8 tokens of width 16."""
    with pytest.raises(AssertionError, match=r"\(2, 16, 64\), expected \(2, 64, 16\)"):
        check_encoder(encoder(transposed, PatchesConfig(), mixes=True))


@pytest.mark.parametrize("mixes", [False, True])
@pytest.mark.parametrize("config", [PatchesConfig(), OneSizeConfig()])
def test_an_encoder_with_as_many_tokens_as_channels_passes(config, mixes: bool) -> None:
    check_encoder(encoder(same, config, mixes))


@pytest.mark.parametrize(
    ("check", "change", "fact"),
    [
        (modulator, transposed, r"\(B, D, N\)"),
        (modulator, by_column, "rows and columns swapped"),
        (bottleneck, map_transposed, "rows and columns swapped"),
        (bottleneck, upside_down, "another order"),
        (decoder, map_transposed, "rows and columns swapped"),
        (decoder, upside_down, "another order"),
        (generator, map_transposed, "rows and columns swapped"),
        (generator, upside_down, "another order"),
    ],
)
def test_parts_and_generators(check, change, fact: str) -> None:
    with pytest.raises(AssertionError, match=fact):
        check(change)


@pytest.mark.parametrize("check", [modulator, bottleneck, decoder, generator])
def test_parts_and_generators_in_the_right_order_pass(check) -> None:
    check(same)


@pytest.mark.parametrize("grid", [3, 4, 7])
def test_order_of_cells(grid: int) -> None:
    cells = probe_cells(grid)
    assert all(row != column for row, column in cells)
    change = torch.full((len(cells), grid, grid), 0.001)
    mirrored = change.clone()
    for k, (row, column) in enumerate(cells):
        change[k, row, column] = mirrored[k, grid - 1 - row, grid - 1 - column] = 1
    assert order_problem(change, cells, "they") is None
    assert "swapped" in str(order_problem(change.transpose(1, 2), cells, "they"))
    assert order_problem(torch.ones_like(change), cells, "they") is None  # everything changes
    if grid > 3:
        assert "another order" in str(order_problem(mirrored, cells, "they"))
