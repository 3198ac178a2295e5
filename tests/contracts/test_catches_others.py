"""The checks of data sources, regularizers, evaluators and registration find what is broken."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from pae_framework.config import DataSourceConfig, EvaluatorConfig, RegularizerConfig
from pae_framework.contracts import DataSource, Evaluator, LabeledImage, Metric, Regularizer
from pae_framework.seeding import randn
from pae_framework.testing import check_registration
from pae_framework.testing.data_sources import check_data_source
from pae_framework.testing.evaluators import check_evaluator
from pae_framework.testing.regularizers import check_regularizer

Check = Callable[[type], None]

# --- data sources ---------------------------------------------------------------------------------


class Gray(DataSource):
    """Right: gray squares of two classes."""

    class_names = ("dark", "bright")

    def __len__(self) -> int:
        return 20

    def __getitem__(self, index: int) -> LabeledImage:
        level = 10 * index
        image = torch.full((3, self.image_size, self.image_size), level, dtype=torch.uint8)
        return LabeledImage(image, int(level > 90))


class MaskedConfig(DataSourceConfig):
    provides_masks = True


class Floats(Gray):
    def __getitem__(self, index):
        item = super().__getitem__(index)
        return LabeledImage(item.image / 255, item.label)


class OtherSize(Gray):
    def __getitem__(self, index):
        return LabeledImage(super().__getitem__(index).image[:, 1:], 0)


class LabelBeyond(Gray):
    def __getitem__(self, index):
        return LabeledImage(super().__getitem__(index).image, index)


class SharedNames(Gray):
    class_names = ("same", "same")


class FewLabels(Gray):
    def labels(self):
        return [0, 1]


class OtherLabels(Gray):
    def labels(self):
        return [1] * 20


class Empty(Gray):
    def __len__(self):
        return 0


class Dice(Gray):
    def __getitem__(self, index):
        return super().__getitem__(np.random.randint(20))


class Cursor(Gray):
    position = 0

    def __getitem__(self, index):
        self.position = (self.position + 1) % 20
        return super().__getitem__(self.position)


class OpenHandle(Gray):
    def __init__(self, config, image_size):
        super().__init__(config, image_size)
        self.handle = (number for number in range(3))


# --- regularizers ---------------------------------------------------------------------------------


class TargetConfig(RegularizerConfig):
    needs_target = True


class Pull(Regularizer):
    """Right: pulls latents to the target, blurred by noise."""

    def forward(self, inputs):
        noise = randn(inputs.target.shape, inputs.generator)
        return (inputs.posterior.latents - inputs.target - 0.1 * noise).square().mean()


class SecretlyAdaptive(Pull):
    adaptive = True


class Vector(Pull):
    def forward(self, inputs):
        return super().forward(inputs).expand(2)


class Sum(Pull):
    def forward(self, inputs):
        return super().forward(inputs) * len(inputs.images)


class NoGradient(Pull):
    def forward(self, inputs):
        return super().forward(inputs).detach()


class FlatGradient(Pull):
    def forward(self, inputs):
        return super().forward(inputs).detach() + 0 * inputs.posterior.latents.sum()


class OwnDice(Pull):
    def forward(self, inputs):
        return super().forward(inputs) + torch.rand(())


class InPlace(Pull):
    def forward(self, inputs):
        inputs.target.mul_(2)
        return super().forward(inputs)


class Undefined(Pull):
    def forward(self, inputs):
        return (inputs.posterior.latents.abs().sum() * -1).sqrt()


# --- evaluators -----------------------------------------------------------------------------------


class BrightnessConfig(EvaluatorConfig):
    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"samples"})


class Brightness(Evaluator):
    """Right: mean brightness of every sample set."""

    def evaluate(self, inputs, directory: Path) -> list[Metric]:
        return [
            self.metric(samples.images, {"role": samples.role}) for samples in inputs.sample_sets
        ]

    def metric(self, images: Tensor, at: dict) -> Metric:
        value = images.float().mean().item()
        return Metric("made/brightness", "light", value, True, {"count": len(images)}, at=at)


class GreedyForLatents(Brightness):
    def evaluate(self, inputs, directory):
        return [self.metric(inputs.latents, {})]


class SameTwice(Brightness):
    def metric(self, images, at):
        return super().metric(images, {})


class Nameless(Brightness):
    def metric(self, images, at):
        return Metric("brightness", "light", 1.0, True, {"count": 1}, at=at)


class NotANumber(Brightness):
    def metric(self, images, at):
        return Metric("made/brightness", "light", math.nan, True, {"count": 1}, at=at)


class ATensor(Brightness):
    def metric(self, images, at):
        return Metric("made/brightness", "light", images.float().mean(), True, {"n": 1}, at=at)


class OddProtocol(Brightness):
    def metric(self, images, at):
        return Metric("made/brightness", "light", 1.0, True, {"images": images}, at=at)


class NoProtocol(Brightness):
    def metric(self, images, at):
        return Metric("made/brightness", "light", 1.0, True, {}, at=at)


class Guessing(Brightness):
    def evaluate(self, inputs, directory):
        return super().evaluate(inputs, directory) if torch.rand(()) < 2 else []


class Counting(Brightness):
    calls = 0

    def metric(self, images, at):
        self.calls += 1
        return super().metric(images * 0 + self.calls, at)


class Careless(Brightness):
    def evaluate(self, inputs, directory):
        inputs.images.zero_()
        return super().evaluate(inputs, directory)


# --- the checks -----------------------------------------------------------------------------------


def data_source(cls: type[DataSource]) -> None:
    check_data_source(cls(DataSourceConfig(), 8))


def regularizer(cls: type[Regularizer]) -> None:
    check_regularizer(cls(TargetConfig()), TargetConfig())


def evaluator(cls: type[Evaluator]) -> None:
    check_evaluator(cls(BrightnessConfig()))


CASES = [
    (data_source, Floats, "float32.*torch.uint8"),
    (data_source, OtherSize, r"\(3, 7, 8\).*\(3, 8, 8\)"),
    (data_source, LabelBeyond, "label.* 0 to 1"),
    (data_source, SharedNames, "class names.*same"),
    (data_source, FewLabels, r"labels\(\).* 2 of 20"),
    (data_source, OtherLabels, r"labels\(\)\[0\] is 1"),
    (data_source, Empty, "DataError"),
    (data_source, Dice, "numpy's global random state"),
    (data_source, Cursor, r"image \d+.*same item"),
    (data_source, OpenHandle, "pickle"),
    (regularizer, SecretlyAdaptive, r"adaptive is True.*adapts_weight is False"),
    (regularizer, Vector, r"\(2,\).*\(\)"),
    (regularizer, Sum, "mean over images"),
    (regularizer, NoGradient, "the term has no gradient"),
    (regularizer, FlatGradient, "no gradient .* the latents or the decoder"),
    (regularizer, OwnDice, "torch's global random state"),
    (regularizer, InPlace, "inputs.target in place"),
    (regularizer, Undefined, "NaN or infinity"),
    (evaluator, GreedyForLatents, r"latents.*config.needs.*\['samples'\]"),
    (evaluator, SameTwice, "made/brightness at {}"),
    (evaluator, Nameless, "`group/metric`"),
    (evaluator, NotANumber, "made/brightness is nan"),
    (evaluator, ATensor, "not a float"),
    (evaluator, OddProtocol, "JSON"),
    (evaluator, NoProtocol, "no protocol"),
    (evaluator, Guessing, "torch's global random state"),
    (evaluator, Counting, "the same metrics"),
    (evaluator, Careless, "inputs in place"),
]


@pytest.mark.parametrize(("check", "broken", "fact"), CASES)
def test_broken_component_is_caught(check: Check, broken: type, fact: str) -> None:
    with pytest.raises(AssertionError, match=fact):
        check(broken)


@pytest.mark.parametrize(
    ("check", "right"), [(data_source, Gray), (regularizer, Pull), (evaluator, Brightness)]
)
def test_correct_component_passes(check: Check, right: type) -> None:
    check(right)


def test_promised_masks_must_be_there():
    with pytest.raises(AssertionError, match=r"MaskedConfig.has_masks.. is True.*is None"):
        check_data_source(Gray(MaskedConfig(), 8))


def test_config_of_a_regularizer_must_state_its_needs():
    with pytest.raises(AssertionError, match=r"RegularizerConfig.*no needs"):
        check_regularizer(Pull(RegularizerConfig()), RegularizerConfig())


# --- registration ---------------------------------------------------------------------------------

PLUGIN = """
from pae_framework import hookimpl
pae_api = {api}
{extra}
@hookimpl
def pae_register_regularizers(register):
    register("{name}", target="{target}", config="{config}", summary="{summary}")
"""
GOOD = {
    "api": 1,
    "extra": "",
    "name": "pull",
    "target": "test_catches_others:Pull",
    "config": "pull_config:PullConfig",
    "summary": "pulls",
}
CONFIG = '''
from pydantic import ConfigDict, Field
from pae_framework.config import EncoderConfig, RegularizerConfig
class PullConfig(RegularizerConfig):
    """How strongly it pulls."""
    strength: float = Field(1.0, description="factor")
class Bare(PullConfig):
    """One field is not described."""
    other: float = 1.0
class Undocumented(PullConfig):
    pass
class Loose(PullConfig):
    """Takes anything."""
    model_config = ConfigDict(extra="allow")
class OtherKind(EncoderConfig):
    """Of an encoder."""
'''


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"api": 99}, "plugin API 99"),
        ({"name": "Not A Name"}, "'Not A Name'"),
        ({"summary": " "}, "one line"),
        ({"target": "test_catches_others:Gray"}, "Gray, is not a .*contracts.Regularizer"),
        ({"config": "pull_config:OtherKind"}, "OtherKind, is not a .*config.RegularizerConfig"),
        ({"config": "pull_config:Bare"}, "Bare.other has no description"),
        ({"config": "pull_config:Undocumented"}, "Undocumented has no docstring"),
        ({"config": "pull_config:Loose"}, "Loose .*unknown keys"),
        ({"extra": "import torch"}, "registering imports torch"),
        ({"config": "heavy_config:PullConfig"}, "the config heavy_config:PullConfig imports torch"),
    ],
    ids=lambda value: next(iter(value), "") if isinstance(value, dict) else "",
)
def test_broken_registration(changes, message, request, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    number = request.node.callspec.indices["changes"]
    (tmp_path / "pull_config.py").write_text(CONFIG)
    (tmp_path / "heavy_config.py").write_text("import torch\n" + CONFIG)
    module = f"pull_plugin_{number}"
    (tmp_path / f"{module}.py").write_text(PLUGIN.format(**{**GOOD, **changes}))

    with pytest.raises(AssertionError, match=message):
        check_registration(module)


def test_correct_registration_passes(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "pull_config.py").write_text(CONFIG)
    (tmp_path / "pull_plugin.py").write_text(PLUGIN.format(**GOOD))
    check_registration("pull_plugin")


def test_a_module_that_registers_nothing(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "silent_plugin.py").write_text("pae_api = 1\n")
    with pytest.raises(AssertionError, match=r"silent_plugin does not load.*no hook"):
        check_registration("silent_plugin")


def test_a_hook_that_registers_nothing(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    source = PLUGIN.format(**GOOD).partition("    register(")[0] + "    pass\n"
    (tmp_path / "idle_plugin.py").write_text(source)
    with pytest.raises(AssertionError, match="idle_plugin registers nothing"):
        check_registration("idle_plugin")
