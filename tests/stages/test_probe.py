"""A component of a plugin that breaks its contract is named before a stage uses it.

Each broken component differs from one that passes in one thing.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pae_framework.config import (
    BottleneckConfig,
    DataSourceConfig,
    DecoderConfig,
    DiscriminatorConfig,
    EncoderConfig,
    GeneratorConfig,
    LatentShape,
    ModulatorConfig,
)
from pae_framework.contracts import (
    Bottleneck,
    DataSource,
    Decoder,
    Discriminator,
    Encoder,
    Features,
    Generator,
    LabeledImage,
    Metric,
    Modulator,
    Posterior,
)
from pae_framework.errors import PluginError
from pae_framework.execution import probe
from pae_framework.layers import map_to_tokens, unpatchify
from pae_framework.registry import ComponentSpec, Plugin, Registry

SIZE, PATCH, GRID, WIDTH, CHANNELS = 16, 4, 4, 16, 4
"""N = D = 16, as in the quickstart: shapes alone do not tell the axes of the tokens apart."""
LATENT = LatentShape(CHANNELS, GRID)


# --- encoders -------------------------------------------------------------------------------------


class PatchesConfig(EncoderConfig):
    def token_grid(self, image_size: int) -> int:
        return image_size // PATCH

    def token_width(self) -> int:
        return WIDTH


class Patches(Encoder):
    """Right in all things."""

    mean, std = (0.5, 0.4, 0.3), (0.5, 0.25, 0.2)

    def __init__(self, config: EncoderConfig, image_size: int):
        super().__init__(config, image_size)
        self.grid, self.width, self.heads, self.patch = GRID, WIDTH, 2, PATCH
        self.embed = nn.Conv2d(3, WIDTH, PATCH, PATCH)

    def tokens(self, pixels: Tensor) -> Tensor:
        return F.layer_norm(map_to_tokens(self.embed(pixels)), (WIDTH,))

    def forward(self, pixels: Tensor) -> Any:
        tokens = self.tokens(pixels)
        return Features(tokens, tokens.mean(1))


def encoder_with(change: Callable[[Tensor], Tensor]) -> type[Encoder]:
    class Changed(Patches):
        def tokens(self, pixels: Tensor) -> Tensor:
            return change(super().tokens(pixels))

    return Changed


def encoder_giving(change: Callable[[Features], Any]) -> type[Encoder]:
    class Changed(Patches):
        def forward(self, pixels: Tensor) -> Any:
            return change(super().forward(pixels))

    return Changed


def encoder_of(pixels_change: Callable[[Tensor], Tensor]) -> type[Encoder]:
    class Changed(Patches):
        def forward(self, pixels: Tensor) -> Any:
            return super().forward(pixels_change(pixels))

    return Changed


def encoder_that_is(**attributes: Any) -> type[Encoder]:
    class Changed(Patches):
        def __init__(self, config: EncoderConfig, image_size: int):
            super().__init__(config, image_size)
            for name, value in attributes.items():
                setattr(self, name, value)

    return Changed


class NormalizedOverTokens(Patches):
    """Transposed before the norm, so that each row of the wrong matrix is normalized."""

    def tokens(self, pixels: Tensor) -> Tensor:
        return F.layer_norm(map_to_tokens(self.embed(pixels)).transpose(1, 2), (GRID**2,))


def swapped(tokens: Tensor) -> Tensor:
    """Column by column."""
    return tokens.unflatten(1, (GRID, GRID)).transpose(1, 2).flatten(1, 2)


def with_nan(tokens: Tensor) -> Tensor:
    return torch.where(torch.arange(WIDTH) == 3, torch.nan, tokens)


ENCODERS = [
    (encoder_giving(lambda features: features.tokens), "Features.*Tensor"),
    (encoder_giving(lambda features: (features.tokens, features.pooled)), "Features.*tuple"),
    (encoder_giving(lambda features: None), "Features.*NoneType"),
    (encoder_giving(lambda features: Features(features.tokens, features.tokens)), "pooled"),
    (encoder_with(Tensor.half), r"tokens.*float16.*float32"),
    (encoder_with(Tensor.bfloat16), r"tokens.*bfloat16.*float32"),
    (encoder_with(Tensor.double), r"tokens.*float64.*float32"),
    (encoder_with(with_nan), "tokens.*NaN or infinity"),
    (encoder_with(lambda x: F.pad(x, (0, 0, 1, 0))), r"tokens.*\(2, 17, 16\).*\(2, 16, 16\)"),
    (encoder_with(lambda x: F.pad(x, (0, 16))), r"tokens.*\(2, 16, 32\).*\(2, 16, 16\)"),
    (encoder_with(lambda x: x.unflatten(1, (GRID, GRID))), r"\(2, 4, 4, 16\)"),
    (encoder_with(lambda x: x.transpose(1, 2)), r"\(B, D, N\)"),
    (NormalizedOverTokens, r"\(B, D, N\)"),
    (encoder_with(swapped), "rows and columns swapped"),
    (encoder_with(lambda x: x.flip(1)), "another order"),
    (encoder_with(lambda x: x + 0.1 * torch.randn_like(x)), "same for the same input"),
    (encoder_with(lambda x: F.dropout(x, 0.5)), "same for the same input"),
    (encoder_with(lambda x: x - x.mean(0)), "other images of the batch"),
    (encoder_of(torch.zeros_like), "equal tokens"),
    (encoder_that_is(width=32), "token_width gives 16.*32"),
    (encoder_that_is(grid=2), "token_grid gives 4.*2"),
    (encoder_that_is(heads=3), "3 heads"),
    (encoder_that_is(heads=None), "heads.*None"),
    (encoder_that_is(patch=2.0), "patch.*2.0"),
    (encoder_that_is(patch=8), r"normalize.*\(2, 3, 16, 16\).*\(2, 3, 32, 32\)"),
    (encoder_that_is(std=(1.0,)), "std"),
    (encoder_of(lambda x: x.unknown), "fails: AttributeError"),
]

# --- tokenizer parts ------------------------------------------------------------------------------


class Add(Modulator):
    """Right: adds a function of the token."""

    def __init__(self, config: ModulatorConfig, encoder: Encoder):
        super().__init__(config, encoder)
        self.layer = nn.Linear(encoder.width, encoder.width)

    def forward(self, pixels: Tensor, tokens: Tensor) -> Tensor:
        return self.change(tokens + self.layer(tokens))

    def change(self, tokens: Tensor) -> Any:
        return tokens


class Squeeze(Bottleneck):
    """Right: a 1 x 1 convolution."""

    def __init__(self, config: BottleneckConfig, width: int, grid: int):
        super().__init__(config, width, grid)
        self.in_channels, self.channels = 8, CHANNELS
        self.layer = nn.Conv2d(8, CHANNELS, 1)

    def forward(self, x: Tensor, generator: torch.Generator | None) -> Any:
        return self.change(self.layer(x))

    def change(self, latents: Tensor) -> Any:
        return Posterior(latents)


class SqueezeConfig(BottleneckConfig):
    def latent_channels(self, token_width: int) -> int:
        return CHANNELS


class Unfold(Decoder):
    """Right: one linear layer for each patch."""

    def __init__(self, config: DecoderConfig, width: int, grid: int):
        super().__init__(config, width, grid)
        self.layer = nn.Linear(width, 3 * PATCH**2)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.change(unpatchify(self.layer(tokens), PATCH))

    def change(self, pixels: Tensor) -> Any:
        return pixels

    def last_layer(self) -> nn.Parameter:
        return self.layer.weight


class UnfoldConfig(DecoderConfig):
    def image_size(self, grid: int) -> int:
        return PATCH * grid


class Velocity(Generator):
    """Right: a 1 x 1 convolution of the latents, and the time."""

    def __init__(self, config: GeneratorConfig, latent: LatentShape, num_classes: int):
        super().__init__(config, latent, num_classes)
        self.layer = nn.Conv2d(latent.channels, latent.channels, 1)

    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        return self.change(self.layer(x) + (t + y).view(-1, 1, 1, 1))

    def change(self, velocity: Tensor) -> Any:
        return velocity


class Judge(Discriminator):
    """Right: the mean of each channel."""

    def forward(self, images: Tensor) -> Tensor:
        return self.change(images.mean((2, 3)))

    def change(self, logits: Tensor) -> Any:
        return logits


def changed(base: type, change: Callable[[Tensor], Any]) -> type:
    return type("Changed", (base,), {"change": lambda self, x: change(x)})


ONE_PIXEL_SHORT = slice(None, -1)
PARTS = [
    (changed(Add, lambda x: (x, x)), "tuple"),
    (changed(Add, Tensor.half), "float16"),
    (changed(Add, lambda x: x[:, 1:]), r"\(2, 15, 16\)"),
    (changed(Add, lambda x: x / 0), "NaN or infinity"),
    (changed(Add, lambda x: x.transpose(1, 2)), r"\(B, D, N\)"),
    (changed(Add, swapped), "rows and columns swapped"),
    (changed(Add, lambda x: x - x.mean(0)), "other images of the batch"),
    (changed(Squeeze, lambda z: z), "Posterior.*Tensor"),
    (changed(Squeeze, lambda z: Posterior(z, logvar=z)), "logvar.*mean"),
    (changed(Squeeze, lambda z: Posterior(z[:, :2])), r"\(2, 2, 4, 4\)"),
    (changed(Squeeze, lambda z: Posterior(z.sqrt())), "NaN or infinity"),
    (changed(Squeeze, lambda z: Posterior(z.transpose(2, 3))), "rows and columns swapped"),
    (changed(Squeeze, lambda z: Posterior(z + torch.rand(()))), "same for the same input"),
    (changed(Unfold, lambda x: x[..., ONE_PIXEL_SHORT]), r"\(2, 3, 16, 15\)"),
    (changed(Unfold, lambda x: x.movedim(1, -1)), r"\(2, 16, 16, 3\)"),
    (changed(Unfold, lambda x: [x]), "list"),
    (changed(Unfold, lambda x: x.log()), "NaN or infinity"),
    (changed(Unfold, lambda x: x.transpose(2, 3)), "rows and columns swapped"),
    (changed(Velocity, lambda v: v[:, :1]), r"\(2, 1, 4, 4\)"),
    (changed(Velocity, lambda v: v.flatten(1)), r"\(2, 64\)"),
    (changed(Velocity, lambda v: (v,)), "tuple"),
    (changed(Velocity, lambda v: v / 0), "NaN or infinity"),
    (changed(Velocity, lambda v: v.transpose(2, 3)), "rows and columns swapped"),
    (changed(Velocity, lambda v: v - v.mean(0)), "other images of the batch"),
    (changed(Judge, lambda x: x[:, 0]), r"logits.*\(2,\)"),
    (changed(Judge, lambda x: x.mean()), r"logits.*\(\)"),
    (changed(Judge, lambda x: x[:1]), r"logits.*\(1, 3\)"),
    (changed(Judge, lambda x: None), "logits.*NoneType"),
    (changed(Judge, lambda x: x * torch.nan), "NaN or infinity"),
]

# --- data sources and evaluators ------------------------------------------------------------------


class Gray(DataSource):
    """Right: gray squares of two classes."""

    class_names: Any = ("dark", "bright")

    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> Any:
        size = self.image_size
        return self.change(torch.full((3, size, size), index, dtype=torch.uint8), index % 2)

    def change(self, image: Tensor, label: int) -> Any:
        return LabeledImage(image, label)


def source_giving(change: Callable[[Tensor, int], Any]) -> type:
    return type("Changed", (Gray,), {"change": lambda self, image, label: change(image, label)})


SOURCES = [
    (source_giving(lambda image, label: (image, label)), "tuple.*LabeledImage"),
    (source_giving(lambda image, label: LabeledImage(image / 255, label)), "float32.*uint8"),
    (source_giving(lambda image, label: LabeledImage(image[:1], label)), r"\(1, 16, 16\)"),
    (source_giving(lambda image, label: LabeledImage(image.movedim(0, 2), label)), r"16, 16, 3"),
    (source_giving(lambda image, label: LabeledImage(image, label + 2)), "label.*2.*0 to 1"),
    (source_giving(lambda image, label: LabeledImage(image, -1)), "label.*-1.*0 to 1"),
    (source_giving(lambda image, label: LabeledImage(image, float(label))), "label.*0.0"),
    (type("Empty", (Gray,), {"__len__": lambda self: 0}), "no image"),
    (type("One", (Gray,), {"class_names": "dark"}), "class_names"),
    (type("Same", (Gray,), {"class_names": ("a", "a")}), "unique"),
    (type("Number", (Gray,), {"class_names": (0, 1)}), "class_names"),
]
GOOD_METRIC = Metric("group/metric", "label", 1.0, True, {"count": 1})


def metric(**changes: Any) -> Metric:
    return Metric(**({**vars(GOOD_METRIC), **changes}))


METRICS = [
    (None, "list"),
    ({"group/metric": 1.0}, "list"),
    ([], "list"),
    ([1.0], "Metric"),
    ([metric(name="metric")], "group/metric"),
    ([metric(name=None)], "None"),
    ([metric(value=torch.tensor(1.0))], "not a float"),
    ([metric(value=float("nan"))], "nan"),
    ([metric(std="small")], "standard deviation"),
    ([metric(protocol={})], "protocol"),
    ([metric(protocol={"x": torch.ones(1)})], "JSON"),
    ([metric(), metric()], "more than one"),
]

# --- the tests ------------------------------------------------------------------------------------


def registry(distribution: str = "acme-kit") -> Registry:
    """One component of each kind, called ``x``, of plugin ``acme``."""
    found = Registry()
    plugin = Plugin("acme", "acme", distribution, "1")
    kinds = ("dataset", "encoder", "modulator", "bottleneck", "decoder", "discriminator")
    for kind in (*kinds, "generator", "evaluator"):
        found.add(ComponentSpec(kind, "x", f"acme.{kind}:X", "acme:C", "", plugin))
    return found


def component(kind: str, config: Any = None) -> Any:
    return SimpleNamespace(kind=kind, use="x", config=config)


def encoder(cls: type[Encoder] = Patches) -> Encoder:
    torch.manual_seed(1)
    return cls(PatchesConfig(), SIZE)


def run_probe(cls: type, found: Registry) -> nn.Module | None:
    """Probe a component of a class; gives the component."""
    torch.manual_seed(2)
    if issubclass(cls, Encoder):
        built = encoder(cls)
        probe.probe_encoder(built, component("encoder"), found)
    elif issubclass(cls, Generator):
        built = cls(GeneratorConfig(), LATENT, 10)
        probe.probe_generator(built, component("generator"), LATENT, found)
    elif issubclass(cls, Discriminator):
        built = cls(DiscriminatorConfig(), SIZE)
        probe.probe_discriminator(built, component("discriminator"), SIZE, found)
    elif issubclass(cls, DataSource):
        probe.probe_source(cls(DataSourceConfig(), SIZE), component("dataset"), found)
        return None
    else:
        parts = {base: base for base in (Add, Squeeze, Unfold)}
        parts[next(base for base in parts if issubclass(cls, base))] = cls
        frozen = encoder()
        tokenizer = SimpleNamespace(
            encoder=frozen,
            delta_encoder=parts[Add](ModulatorConfig(), frozen),
            bottleneck=parts[Squeeze](SqueezeConfig(), WIDTH, GRID),
            decoder=parts[Unfold](UnfoldConfig(), WIDTH, GRID),
        )
        section = SimpleNamespace(
            modulator=component("modulator"),
            bottleneck=component("bottleneck", SqueezeConfig()),
            decoder=component("decoder"),
        )
        probe.probe_tokenizer(tokenizer, section, found)  # type: ignore[arg-type]
        built = next(x for x in vars(tokenizer).values() if isinstance(x, cls))
    return built


KINDS = {
    Encoder: "encoder",
    Modulator: "modulator",
    Bottleneck: "bottleneck",
    Decoder: "decoder",
    Generator: "generator",
    Discriminator: "discriminator",
    DataSource: "dataset",
}
RIGHT = (Patches, Add, Squeeze, Unfold, Velocity, Judge, Gray)


@pytest.fixture(autouse=True)
def _states() -> Iterator[None]:
    with torch.random.fork_rng():
        yield


@pytest.mark.parametrize(("broken", "fact"), [*ENCODERS, *PARTS, *SOURCES])
def test_the_broken_promise_is_named(broken: type, fact: str) -> None:
    with pytest.raises(PluginError, match=f"(?s){fact}") as caught:
        run_probe(broken, registry())
    kind = next(kind for base, kind in KINDS.items() if issubclass(broken, base))
    assert str(caught.value).startswith(f"plugin acme (acme-kit): {kind}:x (acme.{kind}:X)")
    assert caught.value.exit_code == 3


@pytest.mark.parametrize(("metrics", "fact"), METRICS)
def test_the_metrics_of_an_evaluator_are_checked(metrics: object, fact: str) -> None:
    with pytest.raises(PluginError, match=f"plugin acme.*evaluator:x.*{fact}"):
        probe.require_metrics(metrics, component("evaluator"), registry())


@pytest.mark.parametrize("right", RIGHT)
def test_a_correct_component_passes_and_nothing_changes(right: type) -> None:
    random.seed(1)
    np.random.seed(1)
    module = run_probe(right, registry())
    numbers = torch.rand(3), np.random.rand(), random.random()
    random.seed(1)
    np.random.seed(1)
    again = run_probe(right, registry("pae-framework"))  # built-in components are not probed
    assert torch.equal(numbers[0], torch.rand(3))
    assert numbers[1:] == (np.random.rand(), random.random())
    if module is not None:
        assert again is not None
        state = again.state_dict()
        assert all(torch.equal(x, state[name]) for name, x in module.state_dict().items())
        assert all(part.training for part in module.modules())
        assert all(parameter.grad is None for parameter in module.parameters())


def test_metrics_that_are_right_pass() -> None:
    probe.require_metrics([metric()], component("evaluator"), registry())


def test_an_encoder_that_mixes_all_tokens_passes() -> None:
    """Attention without a residual spreads a change over all tokens: no verdict on the order."""
    run_probe(
        encoder_with(lambda x: F.layer_norm(x + 5 * x.mean(1, keepdim=True), (WIDTH,))), registry()
    )


def test_running_averages_do_not_change() -> None:
    class Normalized(Velocity):
        def __init__(self, *arguments: Any):
            super().__init__(*arguments)
            self.norm = nn.BatchNorm2d(CHANNELS)

        def change(self, velocity: Tensor) -> Tensor:
            return self.norm(velocity)

    module = run_probe(Normalized, registry())
    assert module is not None
    assert module.norm.num_batches_tracked == 0
    assert torch.equal(module.norm.running_mean, torch.zeros(CHANNELS))
