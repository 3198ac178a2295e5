"""The recipe: the fixed top level of one experiment, as pydantic models. No torch."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from pae_framework.config import Settings
from pae_framework.recipe.components import (
    BottleneckComponent,
    DataSourceComponent,
    DecoderComponent,
    EncoderComponent,
    EvaluatorComponent,
    GeneratorComponent,
    ModulatorComponent,
    RegularizerComponent,
)
from pae_framework.settings import (
    LatentsSettings,
    ReconstructionSettings,
    RefinementSettings,
    RuntimeSettings,
    SampleSettings,
    TrainSettings,
)


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


class DataSection(Settings):
    """Where images come from, and at which size."""

    image_size: int = Field(gt=0, description="side of the square images, px")
    train: DataSourceComponent = Field(description="images that are learned from")
    test: DataSourceComponent = Field(description="images that are judged")
    flip: bool = Field(False, description="mirror training images at random; also in the latents")
    test_images: int | None = Field(
        None, gt=0, description="test images that are judged, drawn at random; null: all"
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
    refinement: RefinementSettings | None = None
    train: TrainSettings


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
