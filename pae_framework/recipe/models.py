"""The recipe: the fixed top level of one experiment, as pydantic models. No torch."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from pae_framework.config import Settings
from pae_framework.data.data_settings import LatentsSettings
from pae_framework.flow.flow_settings import SampleSettings
from pae_framework.recipe.components import (
    BottleneckComponent,
    DataSourceComponent,
    DecoderComponent,
    DiscriminatorComponent,
    EncoderComponent,
    EvaluatorComponent,
    GeneratorComponent,
    ModulatorComponent,
    RegularizerComponent,
)
from pae_framework.tokenizer.tokenizer_settings import ReconstructionSettings, RefinementSettings
from pae_framework.training.train_settings import Length, OptimizerSettings, TrainSettings


def _labelled(value: Any) -> Any:
    """In ``{ssr: {weight: 0.2}}`` the label names the component, unless ``use`` does."""
    if isinstance(value, dict):
        return {
            label: {"use": label, **(parameters or {})}
            if parameters is None or isinstance(parameters, dict)
            else parameters
            for label, parameters in value.items()
        }
    return value


class RuntimeSettings(Settings):
    """The machine's part."""

    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="auto: cuda where there is one"
    )
    tf32: bool = Field(
        False, description="on cuda, float32 products round their factors to TF32's 10 bits: faster"
    )
    threads: int | None = Field(
        None,
        gt=0,
        description="CPU threads of torch; fixed, since sums depend on it; null: torch's",
    )


class DataSection(Settings):
    """Where images come from, and at which size."""

    image_size: int = Field(gt=0, description="side of the square images, px")
    train: DataSourceComponent = Field(description="images that are learned from")
    test: DataSourceComponent = Field(description="images that are judged")
    flip: bool = Field(False, description="mirror training images at random; also in the latents")
    test_images: int | None = Field(
        None, gt=0, description="test images that are judged, drawn at random; null: all"
    )
    max_damaged: int = Field(
        0,
        ge=0,
        description="training images that may be unreadable: each is named in damaged.txt and the "
        "next one takes its place",
    )


class AdversarialSection(Settings):
    """The adversarial term of the tokenizer's loss, and the discriminator it is played against."""

    weight: float = Field(0.5, ge=0, description="factor of the term; 0 skips it altogether")
    discriminator: DiscriminatorComponent
    adaptive: bool = Field(
        True,
        description="also multiply by |grad of reconstruction| / |grad of the term| at the "
        "decoder's last layer (VQGAN)",
    )
    update_from: Length = Field(
        Length(steps=0), description="when the discriminator begins to learn"
    )
    start: Length = Field(Length(steps=0), description="when the term enters the tokenizer's loss")
    warmup: Length = Field(
        Length(steps=0), description="over how long its weight grows from 0, linearly, from `start`"
    )
    optimizer: OptimizerSettings = Field(
        OptimizerSettings(lr=2e-4), description="of the discriminator; counts its own steps"
    )


class TokenizerSection(Settings):
    """The tokenizer: pixels <-> latents."""

    encoder: EncoderComponent
    modulator: ModulatorComponent
    bottleneck: BottleneckComponent
    decoder: DecoderComponent
    reconstruction: ReconstructionSettings = ReconstructionSettings()
    regularizers: Annotated[dict[str, RegularizerComponent], BeforeValidator(_labelled)] = Field(
        {}, description="label -> term of the loss; the label names it"
    )
    adversarial: AdversarialSection | None = None
    refinement: RefinementSettings | None = None
    target: Literal["refined", "raw"] = Field(
        "refined", description="what ssr and scr align with: the refined prior, or raw features"
    )
    noise: float = Field(
        0.0,
        ge=0,
        description="tau: in training the decoder's input gets normal noise, its deviation uniform "
        "in [0, tau] per image (RAE)",
    )
    weights: str | None = Field(
        None,
        description="file of a trained tokenizer, ours or a released PAE one: loaded, not trained",
    )
    train: TrainSettings

    @property
    def active_regularizers(self) -> dict[str, RegularizerComponent]:
        """The regularizers that are on, by label: a weight of 0 switches one off."""
        return {label: term for label, term in self.regularizers.items() if term.config.weight}

    @property
    def active_adversarial(self) -> AdversarialSection | None:
        """The adversarial term, if it is on: a weight of 0 switches it off."""
        return self.adversarial if self.adversarial and self.adversarial.weight else None

    @property
    def active_target(self) -> Literal["refined", "raw"] | None:
        """What the regularizers align with; None: no active one needs a target."""
        needed = any(term.config.needs_target for term in self.active_regularizers.values())
        return self.target if needed else None

    @property
    def decodes(self) -> int:
        """Decodes with gradient per image and step: the reconstruction's and the regularizers'."""
        return 1 + sum(term.config.decodes for term in self.active_regularizers.values())


class SweepSection(Settings):
    """Variants of a recipe, each a map of overrides; what they do not change is run once."""

    variants: dict[str, dict[str, Any]] = Field(
        min_length=1, description="name -> `key.path: value` overrides of this recipe"
    )
    seeds: tuple[int, ...] = Field(
        (0,),
        min_length=1,
        description="seeds of tokenizer and generator; each variant runs with each",
    )


class Recipe(Settings):
    """One experiment."""

    pae: Literal[1] = Field(description="version of the recipe format")
    name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", description="names the run directory"
    )
    description: str = Field("", description="what it is for, in one line; the report shows it")
    seed: int = Field(
        0,
        ge=0,
        description="seed of every training that states none; sampling has its own, `sample.seed`",
    )
    runtime: RuntimeSettings = RuntimeSettings()
    data: DataSection
    extractor: EncoderComponent | None = Field(
        None, description="network trained on the classes whose features Frechet distances use"
    )
    tokenizer: TokenizerSection
    latents: LatentsSettings = LatentsSettings()
    generator: GeneratorComponent | None = None
    sample: SampleSettings | None = None
    evaluate: Annotated[dict[str, EvaluatorComponent], BeforeValidator(_labelled)] = Field(
        {}, description="label -> evaluator; the label names it"
    )
    sweep: SweepSection | None = None
