"""The conformance class of each kind of component."""

from __future__ import annotations

import unittest
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor

from pae_framework.config import ComponentConfig, LatentShape
from pae_framework.contracts import Encoder
from pae_framework.kinds import KINDS
from pae_framework.plugins import load_registry
from pae_framework.seeding import seeded
from pae_framework.testing.bottlenecks import check_bottleneck
from pae_framework.testing.contract import ComponentContract, ModuleContract
from pae_framework.testing.data_sources import check_data_source, expect_same_items_elsewhere
from pae_framework.testing.decoders import check_decoder
from pae_framework.testing.discriminators import check_discriminator
from pae_framework.testing.encoders import check_encoder
from pae_framework.testing.evaluators import check_evaluator
from pae_framework.testing.expect import expect
from pae_framework.testing.generators import check_generator
from pae_framework.testing.modulators import check_modulator
from pae_framework.testing.regularizers import (
    CHANNELS,
    check_regularizer,
    prepared,
    term_of_latents,
)
from pae_framework.testing.setups import Setup, accepted
from pae_framework.testing.synthetic import normal, synthetic_images
from pae_framework.testing.tokenizers import check_tokenizer
from pae_framework.testing.trackers import check_follower

_WIDTH, _CHANNELS, _CLASSES, _PATCH = 24, 6, 3, 4


class EncoderContract(ModuleContract):
    """The contract of encoders."""

    kind = "encoder"

    def setups(self) -> list[Setup]:
        """Two image sizes, of which one has another number of tokens than channels."""
        found = accepted(self.image_sizes, self.config.token_grid)
        grids = {side: self.config.token_grid(side) for side in found}
        usable = [side for side in found if grids[side] >= 3] or found
        other = [side for side in usable if grids[side] ** 2 != self.config.token_width()]
        candidates = [*other, *usable] or self.image_sizes
        sides = self._chosen("image sizes", candidates, self.config.token_grid)
        return [self._at(side) for side in dict.fromkeys(sides)]

    def odd_setups(self) -> list[Setup]:
        """Image sizes that no patch divides."""
        return [self._at(side) for side in accepted(self.odd_image_sizes, self.config.token_grid)]

    def _at(self, side: int) -> Setup:
        return Setup(
            f"images of {side} px",
            self.component,
            (self.config, side),
            check_encoder,
            lambda count: (synthetic_images(count, side),),
            lambda encoder, images: _tokens(encoder, images),
        )


def _tokens(encoder: Any, images: Tensor) -> Tensor:
    tokens: Tensor = encoder(encoder.normalize(images)).tokens
    return tokens


class TokenizerContract(ModuleContract):
    """The contract of tokenizers that are one component."""

    kind = "tokenizer"

    def setups(self) -> list[Setup]:
        """Two image sizes."""
        sides = self._chosen("image sizes", self.image_sizes, self.config.latent_shape)
        return [setup for side in sides for setup in self._at(side)]

    def odd_setups(self) -> list[Setup]:
        """Image sizes that no patch divides."""
        sides = accepted(self.odd_image_sizes, self.config.latent_shape)
        return [setup for side in sides for setup in self._at(side)]

    def _at(self, side: int) -> list[Setup]:
        """Encoding and decoding, as far as the config says that it does."""
        latent = self.config.latent_shape(side)

        def check(tokenizer: Any) -> None:
            check_tokenizer(tokenizer, self.config, side)

        at = f"images of {side} px"
        encoding = Setup(
            f"{at}, encoded",
            self.component,
            (self.config, side),
            check,
            lambda count: (synthetic_images(count, side),),
            lambda tokenizer, images: tokenizer.encode(images).latents,
        )
        decoding = replace(
            encoding,
            at=f"{at}, decoded",
            inputs=lambda count: (
                normal(count, latent.channels, latent.side, latent.side, seed=0),
            ),
            compute=lambda tokenizer, latents: tokenizer.decode(latents),
        )
        return [encoding] * self.config.encodes + [decoding] * self.config.decodes


class ModulatorContract(ModuleContract):
    """The contract of modulators, which are built for the encoder ``tiny_vit``."""

    kind = "modulator"

    def setups(self) -> list[Setup]:
        """Encoders of width 24 whose numbers of tokens are the first two ``grids``."""
        return [self._at(_PATCH * grid) for grid in self.grids[:2]]

    def odd_setups(self) -> list[Setup]:
        """Encoders with ``odd_grids`` of tokens."""
        return [self._at(_PATCH * grid) for grid in self.odd_grids]

    def _at(self, side: int) -> Setup:
        encoder = tiny_encoder(side)

        def inputs(count: int) -> tuple[Tensor, ...]:
            pixels = encoder.normalize(synthetic_images(count, side))
            with torch.no_grad():
                return pixels, encoder(pixels).tokens

        return Setup(
            f"{encoder.grid} x {encoder.grid} tokens",
            self.component,
            (self.config, encoder),
            lambda modulator: check_modulator(modulator, self.config, encoder),
            inputs,
            lambda modulator, pixels, tokens: modulator(pixels, tokens),
        )


def tiny_encoder(side: int = 16) -> Encoder:
    """A frozen ``tiny_vit`` with random weights: patches of 4 px, width 24, 2 heads."""
    spec = load_registry().find("encoder", "tiny_vit")
    config = spec.config_class().model_validate({"width": 24, "depth": 2, "heads": 2})
    with seeded("tiny encoder"):
        encoder: Encoder = spec.component_class()(config, side)
    return encoder.eval().requires_grad_(False)


class BottleneckContract(ModuleContract):
    """The contract of bottlenecks."""

    kind = "bottleneck"

    def setups(self) -> list[Setup]:
        """The first two ``grids`` of tokens of width 24."""
        return [self._at(grid) for grid in self.grids[:2]]

    def odd_setups(self) -> list[Setup]:
        """3 x 3 and 5 x 5 tokens."""
        return [self._at(grid) for grid in self.odd_grids]

    def _at(self, grid: int) -> Setup:
        arguments = (self.config, _WIDTH, grid)

        def inputs(count: int) -> tuple[Tensor, ...]:
            with seeded("contract"):
                channels = self.component(*arguments).in_channels
            return (normal(count, channels, grid, grid, seed=0),)

        return Setup(
            f"{grid} x {grid} tokens of width {_WIDTH}",
            self.component,
            arguments,
            lambda bottleneck: check_bottleneck(bottleneck, self.config, _WIDTH, grid),
            inputs,
            lambda bottleneck, x: bottleneck(x, None).latents,
        )


class DecoderContract(ModuleContract):
    """The contract of decoders."""

    kind = "decoder"

    def setups(self) -> list[Setup]:
        """4 x 4 and 6 x 6 tokens of width 24, or the grids that the config accepts."""
        return [
            self._at(grid) for grid in self._chosen("grids", self.grids, self.config.image_size)
        ]

    def odd_setups(self) -> list[Setup]:
        """3 x 3 and 5 x 5 tokens."""
        return [self._at(grid) for grid in accepted(self.odd_grids, self.config.image_size)]

    def _at(self, grid: int) -> Setup:
        return Setup(
            f"{grid} x {grid} tokens of width {_WIDTH}",
            self.component,
            (self.config, _WIDTH, grid),
            lambda decoder: check_decoder(decoder, self.config, _WIDTH, grid),
            lambda count: (normal(count, grid**2, _WIDTH, seed=0),),
            lambda decoder, tokens: decoder(tokens),
        )


class DiscriminatorContract(ModuleContract):
    """The contract of discriminators."""

    kind = "discriminator"

    def setups(self) -> list[Setup]:
        """Two image sizes."""
        accepts = self.config.check_image_size
        return [self._at(side) for side in self._chosen("image sizes", self.image_sizes, accepts)]

    def odd_setups(self) -> list[Setup]:
        """Image sizes that no patch divides."""
        return [
            self._at(side) for side in accepted(self.odd_image_sizes, self.config.check_image_size)
        ]

    def _at(self, side: int) -> Setup:
        return Setup(
            f"images of {side} px",
            self.component,
            (self.config, side),
            lambda discriminator: check_discriminator(discriminator, self.config, side),
            lambda count: (synthetic_images(count, side),),
            lambda discriminator, images: discriminator(images),
        )


class RegularizerContract(ModuleContract):
    """The contract of regularizers."""

    kind = "regularizer"

    def setups(self) -> list[Setup]:
        """Latents of 4 channels with 4 x 4 and 6 x 6 positions, or others the config accepts."""
        return [self._at(side) for side in self._chosen("latent sides", self.grids, self._accepts)]

    def odd_setups(self) -> list[Setup]:
        """Latents with 3 x 3 and 5 x 5 positions."""
        return [self._at(side) for side in accepted(self.odd_grids, self._accepts)]

    def _accepts(self, side: int) -> None:
        self.config.check_latent(LatentShape(CHANNELS, side))

    def _at(self, side: int) -> Setup:
        return Setup(
            f"{side} x {side} latents",
            self.component,
            (self.config,),
            lambda regularizer: check_regularizer(regularizer, self.config, side),
            lambda count: (normal(count, CHANNELS, side, side, seed=1),),
            partial(term_of_latents, self.config, side),
            per_image=False,
            prepare=lambda regularizer: prepared(regularizer, self.config, side),
        )


class GeneratorContract(ModuleContract):
    """The contract of generators."""

    kind = "generator"

    def setups(self) -> list[Setup]:
        """Latents of 6 channels with 4 x 4 and 6 x 6 positions, or others the config accepts."""
        return [self._at(side) for side in self._chosen("latent sides", self.grids, self._accepts)]

    def odd_setups(self) -> list[Setup]:
        """Latents with 3 x 3 and 5 x 5 positions."""
        return [self._at(side) for side in accepted(self.odd_grids, self._accepts)]

    def _accepts(self, side: int) -> None:
        self.config.check_latent(LatentShape(_CHANNELS, side))

    def _at(self, side: int) -> Setup:
        latent, stated = LatentShape(_CHANNELS, side), self.config.stated_classes()
        classes = _CLASSES if stated is None else stated
        return Setup(
            f"latents {latent}",
            self.component,
            (self.config, latent, classes),
            lambda generator: check_generator(generator, self.config),
            lambda count: (
                normal(count, _CHANNELS, side, side, seed=0),
                torch.linspace(0.1, 0.9, count),
                torch.arange(count) % (classes + 1),
            ),
            lambda generator, x, t, y: generator(x, t, y),
        )


class DataSourceContract(ComponentContract):
    """The contract of data sources. ``config`` must name data that this machine has."""

    kind = "dataset"
    image_sizes: ClassVar[Sequence[int]] = (16, 27)
    """Sides of the images in pixels; all are tested."""

    def test_data_are_there(self) -> None:
        """Nothing is missing on this machine."""
        missing = self.config.missing()
        expect(missing is None, f"the data to check it with are missing: {missing}")

    def test_contract(self) -> None:
        """What the engine relies on in a data source, at its image sizes."""
        for side in self.image_sizes:
            with self._explained(f"images of {side} px"):
                check_data_source(self.component(self.config, side))

    def test_other_process(self) -> None:
        """A worker process gets the source by pickle and reads the same images."""
        side = self.image_sizes[0]
        with self._explained(f"images of {side} px"):
            expect_same_items_elsewhere(self.component(self.config, side))


class EvaluatorContract(ComponentContract):
    """The contract of evaluators."""

    kind = "evaluator"

    def test_contract(self) -> None:
        """What the engine relies on in an evaluator, on synthetic inputs."""
        with self._explained("synthetic inputs"):
            check_evaluator(self.component(self.config))


class TrackerContract(ComponentContract):
    """The contract of trackers."""

    kind = "tracker"

    def test_contract(self) -> None:
        """Its hooks follow a run that is stopped and resumes."""
        if (missing := self.config.missing()) is not None:
            raise unittest.SkipTest(missing)
        with self._explained("a run of one stage"):
            check_follower(lambda: self.component(self.config))


CONTRACTS: dict[str, type[ComponentContract]] = {
    contract.kind: contract
    for contract in (
        DataSourceContract,
        TokenizerContract,
        EncoderContract,
        ModulatorContract,
        BottleneckContract,
        DecoderContract,
        DiscriminatorContract,
        RegularizerContract,
        GeneratorContract,
        EvaluatorContract,
        TrackerContract,
    )
}
"""The conformance class of each kind of component."""


def contract_of(
    kind: str,
    component: type[Any],
    config: ComponentConfig,
    sizes: Mapping[str, Sequence[int]] | None = None,
) -> ComponentContract:
    """The conformance tests of a component.

    Args:
        kind: of the component.
        component: its class.
        config: its parameters.
        sizes: in place of those of the contract: ``image_sizes``, ``grids``.
    """
    attributes = {"component": component, "config": config, **(sizes or {})}
    made: ComponentContract = type(component.__name__, (CONTRACTS[kind],), attributes)()
    return made


def check_component(component: type[Any], config: ComponentConfig) -> None:
    """Run all conformance tests of a component of any kind.

    Args:
        component: its class.
        config: its parameters; small ones make it fast.

    Raises:
        AssertionError: the component breaks the contract of its kind; the message says how.
    """
    kinds = [kind for kind in KINDS.values() if issubclass(component, kind.contract_class())]
    expect(bool(kinds), f"{component.__name__} derives from no class of pae_framework.contracts")
    contract = contract_of(kinds[0].name, component, config)
    for name in contract.names_of_tests():
        with suppress(unittest.SkipTest):
            getattr(contract, name)()
