"""Pydantic models of a recipe. No torch."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    BeforeValidator,
    Field,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    field_serializer,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from pae_framework.config import (
    AttentionKernel,
    Count,
    LatentShape,
    Length,
    PathText,
    Processes,
    Seed,
    Settings,
    Side,
    Weight,
)
from pae_framework.data.data_settings import LatentsSettings
from pae_framework.flow.flow_settings import SampleSettings
from pae_framework.recipe.components import (
    BottleneckComponent,
    DataSourceComponent,
    DecoderComponent,
    DiscriminatorComponent,
    EncoderComponent,
    EvaluatorComponent,
    ExtractorComponent,
    GeneratorComponent,
    GuideComponent,
    ModulatorComponent,
    RegularizerComponent,
    TeacherComponent,
    TokenizerComponent,
    TrackerComponent,
)
from pae_framework.recipe.profile_settings import Launch, Profile
from pae_framework.tokenizer.tokenizer_settings import (
    LpipsNetwork,
    PerceptualSettings,
    ReconstructionSettings,
    RefinementSettings,
)
from pae_framework.training.train_settings import OptimizerSettings, TrainSettings

MAX_NAME = 100
"""Longest name of a folder that a recipe chooses: suffixes and temporary files make it longer."""


def _labeled(value: Any) -> Any:
    """Make the label the default of ``use``, as in ``{ssr: {weight: 0.2}}``."""
    if isinstance(value, dict):
        return {
            label: {"use": label, **(parameters or {})}
            if parameters is None or isinstance(parameters, dict)
            else parameters
            for label, parameters in value.items()
        }
    return value


def _whole(value: Any) -> Any:
    """Reject ``true`` and ``1.0``, which are equal to 1."""
    if isinstance(value, bool | float):
        raise PydanticCustomError("int_type", "expected an integer")
    return value


class RuntimeSettings(Settings):
    """Device and number formats of this machine; not part of fingerprints."""

    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto: cuda if available")
    tf32: bool = Field(
        False, description="TF32 matrix products on cuda: faster, with 10 bits of precision"
    )
    threads: Processes | None = Field(
        None,
        description="CPU threads of torch, which rounding depends on; null: torch's default",
    )


class DataSection(Settings):
    """Image sources and image size."""

    image_size: Side = Field(description="side of the square images, px")
    train: DataSourceComponent = Field(description="source of the training images")
    test: DataSourceComponent = Field(description="source of the test images")
    flip: bool = Field(
        False, description="mirror training images at random; latents are stored plain and mirrored"
    )
    test_images: Count | None = Field(
        None, description="number of test images to evaluate, chosen at random; null: all"
    )
    max_damaged: int = Field(
        0,
        ge=0,
        le=1_000_000_000,
        description="largest number of unreadable training images to tolerate; each is replaced "
        "by the next one and listed in damaged.txt",
    )


class AdversarialSection(Settings):
    """The adversarial term of the tokenizer's loss and its discriminator."""

    weight: Weight = Field(0.5, description="weight of the term; 0: off")
    discriminator: DiscriminatorComponent
    adaptive: bool = Field(
        True,
        description="also multiply by |grad of reconstruction| / |grad of the term| at the last "
        "layer of the decoder (VQGAN)",
    )
    update_from: Length = Field(
        Length(steps=0), description="when training of the discriminator starts"
    )
    start: Length = Field(Length(steps=0), description="when the term is added to the loss")
    warmup: Length = Field(
        Length(steps=0),
        description="length of the linear increase of the weight from 0, after `start`",
    )
    optimizer: OptimizerSettings = Field(
        OptimizerSettings(lr=2e-4),
        description="optimizer of the discriminator; its schedule counts its own steps",
    )


def _off(value: Any) -> Any:
    """No section for ``{weight: 0}``: a term that is switched off needs no discriminator."""
    if isinstance(value, dict) and value.keys() == {"weight"}:
        weight = value["weight"]
        return None if weight == 0 and not isinstance(weight, bool) else value
    return value


class TokenizerSection(Settings):
    """A tokenizer composed of an encoder, a modulator, a bottleneck and a decoder."""

    encodes: ClassVar[bool] = True
    decodes: ClassVar[bool] = True

    encoder: EncoderComponent
    modulator: ModulatorComponent
    bottleneck: BottleneckComponent
    decoder: DecoderComponent
    reconstruction: ReconstructionSettings = ReconstructionSettings()
    regularizers: Annotated[dict[str, RegularizerComponent], BeforeValidator(_labeled)] = Field(
        {}, description="label -> term of the loss; the label is its name in the log"
    )
    adversarial: Annotated[AdversarialSection | None, BeforeValidator(_off)] = None
    refinement: RefinementSettings | None = None
    teacher: TeacherComponent | None = Field(
        None,
        description="frozen encoder whose features replace those of the tokenizer's encoder in "
        "regularizers, such as vf; with `train`, a stage trains it first",
    )
    target: Literal["refined", "raw"] = Field(
        "refined", description="target of ssr and scr: the refined prior or the raw features"
    )
    noise: Weight = Field(
        0.0,
        description="tau: in training, normal noise is added to the decoder's input, with standard "
        "deviation uniform in [0, tau] per image (RAE)",
    )
    train_encoder: bool = Field(
        False,
        description="train the encoder with the tokenizer, from its initial, pretrained or stage "
        "`encoder`'s weights, instead of freezing it",
    )
    attention: AttentionKernel = Field(
        "sdpa",
        description="attention kernel of projector, deprojector and refinement; encoder, "
        "modulator and decoder have their own",
    )
    log_shares_every: Count | None = Field(
        None,
        description="steps between measurements of each term's share of the loss (`loss/<term>` in "
        "the log) and of the gradient at the latents (`grad/<term>`); null: none. Each costs about "
        "one backward pass per term and changes no result",
    )
    cache_features: bool = Field(
        False,
        description="compute the frozen encoder's tokens of the training images once and read them "
        "from the disk in the trainings of refinement and tokenizer; same results up to rounding",
    )
    weights: PathText | None = Field(
        None,
        description="weights file of a trained tokenizer, from this project or a PAE release; it "
        "is then loaded, not trained",
    )
    initial_weights: PathText | None = Field(
        None,
        description="such a file from which the training starts, instead of random weights; the "
        "discriminator and the regularizers start anew",
    )
    train: TrainSettings

    @property
    def active_regularizers(self) -> dict[str, RegularizerComponent]:
        """The regularizers with a weight other than 0, by label."""
        return {label: term for label, term in self.regularizers.items() if term.config.weight}

    @property
    def active_adversarial(self) -> AdversarialSection | None:
        """The adversarial term; None if there is none or its weight is 0."""
        return self.adversarial if self.adversarial and self.adversarial.weight else None

    @property
    def active_target(self) -> Literal["refined", "raw"] | None:
        """The target of the regularizers; None if no active one needs a target."""
        needed = any(term.config.needs_target for term in self.active_regularizers.values())
        return self.target if needed else None

    @property
    def needs_features(self) -> bool:
        """Whether an active regularizer uses frozen features, of the teacher or the encoder."""
        raw = self.active_target == "raw"
        return raw or any(term.config.needs_features for term in self.active_regularizers.values())

    @property
    def decoder_passes(self) -> int:
        """Decoder passes with gradient per image and step, of reconstruction and regularizers."""
        return 1 + sum(term.config.decodes for term in self.active_regularizers.values())

    @property
    def perceptual(self) -> PerceptualSettings | LpipsNetwork:
        """The perceptual distance of the evaluation."""
        term = self.reconstruction
        return term.lpips if term.perceptual_metric == "lpips" else term.perceptual

    def latent_shape(self, image_size: int) -> LatentShape:
        """Shape (C, h, w) of one latent: the bottleneck's channels on the encoder's token grid."""
        encoder = self.encoder.config
        channels = self.bottleneck.config.latent_channels(encoder.token_width())
        return LatentShape(channels, encoder.token_grid(image_size))


class PaperSection(Settings):
    """Values that a paper reports for variants of a sweep; shown beside their results."""

    source: str = Field(
        min_length=1, description="where they are published, such as a paper and its table"
    )
    values: dict[str, Annotated[dict[str, float], Field(min_length=1)]] = Field(
        min_length=1, description="variant -> metric -> value, such as `all: {gFID: 1.86}`"
    )


class SweepSection(Settings):
    """Variants of a recipe, each a map of overrides; they share the stages they do not change."""

    variants: dict[str, dict[str, Any]] = Field(
        min_length=1, description="name -> overrides of this recipe, as `key.path: value`"
    )
    seeds: tuple[Seed, ...] = Field(
        (0,),
        min_length=1,
        max_length=1000,
        description="seeds of tokenizer and generator; each variant runs with each seed",
    )
    paper: PaperSection | None = Field(
        None, description="published values of the variants, for the report; null: none"
    )


class Recipe(Settings):
    """One experiment."""

    pae: Annotated[Literal[1], BeforeValidator(_whole)] = Field(
        description="version of the recipe format"
    )
    name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$",
        max_length=MAX_NAME,
        description="name of the run directory",
    )
    description: str = Field("", description="purpose in one line, shown in the report")
    plugins: tuple[PathText, ...] = Field(
        (),
        description="plugins of one file each, relative to this file; those of a recipe that it "
        "extends count, too",
    )
    seed: Seed = Field(
        0,
        description="seed of every training without its own; for sampling see `sample.seed`",
    )
    runtime: RuntimeSettings = RuntimeSettings()
    data: DataSection
    extractor: ExtractorComponent | None = Field(
        None,
        description="classifier trained in the run, or a pretrained encoder; Frechet distances use "
        "its pooled features",
    )
    tokenizer: TokenizerSection | TokenizerComponent
    latents: LatentsSettings = LatentsSettings()
    generator: GeneratorComponent | None = None
    guide: GuideComponent | None = Field(
        None,
        description="network of the weights file in `sample.guidance.autoguidance`; it needs none "
        "if that names a run",
    )
    sample: SampleSettings | None = None
    evaluate: Annotated[dict[str, EvaluatorComponent], BeforeValidator(_labeled)] = Field(
        {}, description="label -> evaluator; the label names its results"
    )
    trackers: Annotated[dict[str, TrackerComponent], BeforeValidator(_labeled)] = Field(
        {}, description="label -> tracker that follows the run; not part of fingerprints"
    )
    launch: Launch = Field(
        None,
        description="where the stages run: the name of a profile (`pae profiles`), or a map with "
        "its keys; null: in this process; not part of fingerprints",
    )
    sweep: SweepSection | None = None

    @property
    def composed(self) -> TokenizerSection | None:
        """The tokenizer if it is composed; None if it is one component."""
        return self.tokenizer if isinstance(self.tokenizer, TokenizerSection) else None

    @property
    def tokenizer_section(self) -> TokenizerSection:
        """The same, in code that only recipes with a composed tokenizer reach."""
        assert isinstance(self.tokenizer, TokenizerSection)
        return self.tokenizer

    @field_validator("tokenizer", mode="wrap")
    @classmethod
    def _one_model(
        cls, value: Any, _: ValidatorFunctionWrapHandler, info: ValidationInfo
    ) -> TokenizerSection | TokenizerComponent:
        """With ``use`` it is a component, so errors refer to one model only."""
        if isinstance(value, TokenizerSection | TokenizerComponent):
            return value
        named = isinstance(value, str) or (isinstance(value, dict) and value.get("use") is not None)
        model = TokenizerComponent if named else TokenizerSection
        return model.model_validate(value, context=info.context)

    @model_validator(mode="after")
    def _latents_of_tokenizer(self) -> Self:
        """Latents that come with the tokenizer are those of the recipe."""
        if self.composed is not None or self.latents.folder is not None:
            return self
        assert isinstance(self.tokenizer, TokenizerComponent)
        folder = self.tokenizer.config.latents_folder()
        if folder is None:
            return self
        latents = self.latents.model_copy(update={"folder": folder})
        return self.model_copy(update={"latents": latents})

    @field_serializer("launch")
    def _written_launch(self, launch: Profile | None) -> dict[str, Any] | None:
        """Without defaults, which would override the profile that it extends."""
        return None if launch is None else launch.model_dump(mode="json", exclude_unset=True)
