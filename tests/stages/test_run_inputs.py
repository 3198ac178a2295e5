"""What evaluators are given: of a fixed choice of test images, and computed once, whoever asks."""

from types import SimpleNamespace

import pytest
import torch
import yaml
from torch import nn

from pae_framework.config import DataSourceConfig, EncoderConfig
from pae_framework.contracts import DataSource, Encoder, Features, LabeledImage
from pae_framework.evaluation import inputs as inputs_module
from pae_framework.evaluation.inputs import RunInputs
from pae_framework.plugins import load_registry
from pae_framework.recipe.load import load_recipe
from pae_framework.tokenizer.losses.lpips import build_lpips
from pae_framework.tokenizer.model import ComposedTokenizer
from pae_framework.tokenizer.tokenizer_settings import (
    LpipsNetwork,
    LpipsSettings,
    ReconstructionSettings,
)


class CountingExtractor:
    name = "counting"

    def __init__(self):
        self.calls = 0

    def __call__(self, images):
        self.calls += 1
        return images.double().mean((2, 3))


def test_features_of_the_test_images_are_extracted_once():
    data = SimpleNamespace(test_images=None)
    inputs = RunInputs(SimpleNamespace(recipe=SimpleNamespace(data=data)))
    images = torch.arange(5, dtype=torch.uint8).view(5, 1, 1, 1).expand(5, 3, 2, 2)
    extractor = CountingExtractor()
    # Stand-ins for the run's test images and its trained extractor.
    vars(inputs).update(_test=(images, torch.zeros(5)), extractor=extractor)

    first, again = inputs.image_features, inputs.image_features

    assert first.tolist() == [[float(level)] * 3 for level in range(5)]
    assert again is first
    assert extractor.calls == 1


LPIPS_OFF = ("tokenizer.reconstruction.lpips.weight=0",)


class PixelsConfig(EncoderConfig):
    def token_width(self):
        return 3

    def token_grid(self, image_size):
        return 1

    def patch_size(self, image_size):
        return image_size


class Pixels(Encoder):
    """One token: the image's mean color."""

    mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)

    def forward(self, pixels):
        tokens = pixels.mean((2, 3))[:, None]
        return Features(tokens, tokens[:, 0])


class WithEncoder(ComposedTokenizer):
    """A composed tokenizer with an encoder and nothing else."""

    def __init__(self, encoder):
        nn.Module.__init__(self)
        self.encoder = encoder


def recipe_with(reconstruction):
    """The quickstart, whose encoder is frozen, with other reconstruction terms."""
    recipe = load_recipe("quickstart", (), load_registry()).recipe
    section = recipe.tokenizer.model_copy(update={"reconstruction": reconstruction})
    return recipe.model_copy(update={"tokenizer": section})


def test_the_perceptual_distance_is_in_the_features_of_the_tokenizers_own_encoder():
    recipe = recipe_with(ReconstructionSettings())
    # A context that can load nothing: a second encoder would be one too many.
    inputs = RunInputs(SimpleNamespace(recipe=recipe, device=torch.device("cpu")))
    encoder = Pixels(PixelsConfig(), 2)
    vars(inputs).update(tokenizer=WithEncoder(encoder))
    red, green = torch.zeros(2, 1, 3, 2, 2)
    red[:, 0], green[:, 1] = 1, 0.5

    # Normalized features e_r and e_g are |e_r - e_g|^2 = 2 apart.
    assert inputs.perceptual(red, green).tolist() == [2.0]
    assert inputs.perceptual(red, red).tolist() == [0.0]


def judging_by(**reconstruction):
    recipe = recipe_with(ReconstructionSettings.model_validate(reconstruction))
    return RunInputs(SimpleNamespace(recipe=recipe, device=torch.device("cpu")))


def test_the_perceptual_distance_is_lpips_if_it_is_an_active_term():
    inputs = judging_by(lpips={"weight": 0.5, "weights": "none"})
    vars(inputs).update(tokenizer=WithEncoder(None))
    a, b = torch.rand(2, 2, 3, 16, 16)
    lpips = build_lpips(LpipsSettings(weight=1.0, weights="none"))
    torch.testing.assert_close(inputs.perceptual(a, b), lpips(a, b))


TRAINED = "the encoder is trained with the tokenizer"


@pytest.mark.parametrize(
    ("recipe", "overrides", "lacking"),
    [
        ("vavae_f16d32", (), {"features"}),
        ("kl_vae_f16d32", (), {"features"}),
        ("gae", (), {"features"}),
        ("vavae_f16d32", LPIPS_OFF, {"features", "perceptual"}),
        ("gae", LPIPS_OFF, {"features", "perceptual"}),
        ("rae_dinov2", (), set()),
        ("quickstart", (), set()),
    ],
)
def test_features_of_a_trained_encoder_are_no_reference(recipe, overrides, lacking):
    loaded = load_recipe(recipe, overrides, load_registry()).recipe
    inputs = RunInputs(SimpleNamespace(recipe=loaded, device=torch.device("cpu")))
    assert {key: TRAINED in reason for key, reason in inputs.unavailable.items()} == dict.fromkeys(
        lacking, True
    )


def test_the_perceptual_distance_is_named():
    assert "stand-in for LPIPS" in judging_by().perceptual_name
    assert "layers 0, 2" in judging_by(perceptual={"layers": [0, 2]}).perceptual_name
    assert judging_by(lpips={"weight": 1.0}).perceptual_name.startswith("LPIPS (VGG-16")


def test_without_a_perceptual_distance_it_is_said_what_to_add():
    tokenizer = SimpleNamespace(perceptual=None, encodes=True, decodes=True)
    recipe = SimpleNamespace(composed=None, tokenizer=tokenizer)
    reasons = RunInputs(SimpleNamespace(recipe=recipe)).unavailable
    assert reasons.keys() == {"features", "perceptual"}
    added = yaml.safe_load(reasons["perceptual"].split("`")[1])
    assert LpipsNetwork.model_validate(added["lpips"]).weights == "default"


class SortedByClass(DataSource):
    """Two hundred images, the first twenty of class 0 and so on; image i shows i everywhere."""

    class_names = tuple("0123456789")

    def __len__(self):
        return 200

    def __getitem__(self, index):
        return LabeledImage(torch.full((3, 4, 4), index, dtype=torch.uint8), index // 20)

    def mask(self, index):
        return torch.full((4, 4), index)


def judged(test_images, seed=0, limit=None, contents=None):
    """The inputs of a run with these settings, with a tokenizer that does next to nothing."""
    config = SimpleNamespace(model_dump=lambda mode: {"folder": "/here", "split": "test"})
    config.locations = {"folder"}
    data = SimpleNamespace(
        test_images=test_images, test=SimpleNamespace(use="sorted", config=config), image_size=4
    )
    section = recipe_with(ReconstructionSettings()).tokenizer
    recipe = SimpleNamespace(data=data, seed=seed, **composed_of(section))
    context = SimpleNamespace(
        recipe=recipe,
        test_source=SortedByClass(DataSourceConfig(), 4),
        device=torch.device("cpu"),
        machine={"tf32": False},
        planned=SimpleNamespace(data={} if contents is None else {"test": contents}),
    )
    inputs = RunInputs(context, limit)
    vars(inputs).update(tokenizer=Halves())
    return inputs


def composed_of(section):
    return {"tokenizer": section, "composed": section, "tokenizer_section": section}


class Halves(ComposedTokenizer):
    """Latents are the pixels; tokens are the colors of the upper and of the lower half."""

    def __init__(self):
        nn.Module.__init__(self)
        self.batches = []

    def encode(self, x):
        return SimpleNamespace(latents=x)

    def decode(self, latents):
        return latents

    def features(self, x):
        self.batches.append(len(x))
        halves = torch.stack([x[:, :, :2].mean((2, 3)), x[:, :, 2:].mean((2, 3)) + 1], 1)
        return Features(halves, halves[:, 0])


def shown(images):
    return images[:, 0, 0, 0].tolist()


def test_all_inputs_use_the_same_test_images_of_many_classes():
    inputs = judged(test_images=60)
    indices = list(inputs.indices)

    assert len(indices) == 60
    assert shown(inputs.images) == indices
    assert inputs.labels.tolist() == [index // 20 for index in indices]
    assert inputs.masks[:, 0, 0].tolist() == indices
    assert inputs.masks_of(torch.tensor([5, 2]))[:, 0, 0].tolist() == [indices[5], indices[2]]
    assert shown(inputs.reconstructions) == indices
    assert (inputs.latents[:, 0, 0, 0] * 255).round().tolist() == indices
    assert (inputs.pooled_features[:, 0] * 255 - 127.5).round().tolist() == indices
    assert len(inputs.labels.unique()) == 10


def test_the_images_of_the_report_are_of_several_classes_and_are_evaluated():
    few, many = judged(60, limit=16), judged(60)

    assert len(few.images) == 16
    assert len(few.labels.unique()) > 3
    assert set(few.indices) < set(many.indices)


def test_by_default_all_test_images_are_evaluated_in_order():
    assert shown(judged(None).images) == list(range(200))


def test_the_protocol_records_the_choice_of_test_images():
    def chosen(inputs):
        keys = ("test_images", "test_images_chosen", "test_images_seed")
        return [inputs.protocol.get(key) for key in keys]

    assert chosen(judged(60, seed=3)) == [60, "of 200, at random", 3]
    assert chosen(judged(None)) == chosen(judged(200)) == [200, "all", None]


def test_the_seed_of_the_recipe_is_not_part_of_the_test_images():
    first, second = judged(None, seed=0), judged(None, seed=1)
    assert first.protocol_of("test_images") == second.protocol_of("test_images")
    assert first.protocol["evaluation_seed"] != second.protocol["evaluation_seed"]


def test_the_test_images_are_known_by_their_contents_wherever_they_are():
    assert judged(None).protocol["test_data"] == {
        "use": "sorted",
        "folder": "/here",
        "split": "test",
    }
    assert judged(None, contents="abc").protocol["test_data"] == {
        "use": "sorted",
        "split": "test",
        "contents": "abc",
    }


def with_networks(encoder_color, seed=0, metric="perceptual"):
    """Inputs whose encoder and extractor have one weight each."""
    inputs = judged(None, seed=seed)
    context, terms = inputs._context, {"lpips": {"weight": 1.0, "weights": "none"}}
    settings = ReconstructionSettings.model_validate(terms if metric == "lpips" else {})
    trained = SimpleNamespace(use="pixels", config=PixelsConfig(), train=object())
    frozen = SimpleNamespace(
        use="pixels", config=PixelsConfig(), train=None, pooling="mean", resize=None
    )
    section = recipe_with(settings).tokenizer.model_copy(update={"encoder": trained})
    vars(context.recipe).update(composed_of(section))
    context.recipe.extractor = frozen
    context.seed = lambda train: seed
    encoder, extractor = (Pixels(PixelsConfig(), 2) for _ in range(2))
    for network, color in ((encoder, encoder_color), (extractor, 0.0)):
        network.register_buffer("color", torch.tensor(color))
    vars(inputs).update(tokenizer=WithEncoder(encoder), _extractor_network=extractor)
    return inputs


def test_networks_are_known_by_their_weights_and_the_seed_they_were_trained_with():
    one, same, other = with_networks(0.1), with_networks(0.1), with_networks(0.2, seed=7)
    assert one.protocol_of("encoder") == same.protocol_of("encoder")
    assert one.protocol_of("extractor") == other.protocol_of("extractor")
    assert other.protocol_of("encoder")["encoder_seed"] == 7
    assert "extractor_seed" not in other.protocol_of("extractor")
    first, second = (i.protocol_of("encoder")["encoder_digest"] for i in (one, other))
    assert first != second


@pytest.mark.parametrize(("metric", "depends"), [("perceptual", True), ("lpips", False)])
def test_the_perceptual_distance_depends_on_the_encoder_only_if_it_uses_it(metric, depends):
    one, other = (with_networks(color, metric=metric) for color in (0.1, 0.2))
    assert (one.protocol_of("perceptual") != other.protocol_of("perceptual")) == depends


def test_an_unknown_part_is_an_error():
    with pytest.raises(ValueError, match="decoder"):
        judged(None).protocol_of("decoder")


def test_tokens_of_chosen_images_and_pooled_features_of_all():
    inputs = judged(None)
    tokens = inputs.features(torch.tensor([7, 3]))

    assert tokens.shape == (2, 2, 3)
    assert (tokens[:, 0, 0] * 255).round().tolist() == [7, 3]
    assert inputs.tokenizer.batches == [2]
    assert inputs.pooled_features.shape == (200, 3)
    assert torch.equal(inputs.pooled_features[[7, 3]], tokens.mean(1))
    assert inputs.pooled_features is inputs.pooled_features


def test_masks_of_some_images_are_read_without_the_others(monkeypatch):
    inputs, read = judged(60), []
    monkeypatch.setattr(SortedByClass, "mask", lambda _, index: read.append(index))
    assert inputs.masks_of(torch.tensor([7])) is None
    assert read == [inputs.indices[7]]


class CountingInception:
    sha256, widths = "none", (3, 1)

    def __init__(self):
        self.batches = []

    def __call__(self, images):
        self.batches.append(len(images))
        floats = images.float()
        return floats.mean((2, 3)), floats[:, 0, 0, :1]

    def logits(self, pool):
        return 2 * pool


def test_inception_is_built_once_for_each_weights_and_takes_few_images_at_once(monkeypatch):
    built = {}

    def build(weights, device):
        assert weights not in built
        return built.setdefault(weights, CountingInception())

    monkeypatch.setattr(inputs_module, "inception_network", build)
    recipe = SimpleNamespace(data=SimpleNamespace(test_images=None))
    inputs = RunInputs(SimpleNamespace(recipe=recipe, device=torch.device("cpu")))
    images = torch.arange(120, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 2, 2)

    network, again = inputs.inception("none"), inputs.inception("none")
    inputs.inception("other.pth")
    pool, spatial = network(images)

    assert pool[:, 0].tolist() == spatial[:, 0].tolist() == list(range(120))
    assert sum(built["none"].batches) == 120
    assert max(built["none"].batches) <= 50
    assert set(built) == {"none", "other.pth"}
    assert (again.sha256, again.widths) == ("none", (3, 1))
    assert torch.equal(network.logits(pool), 2 * pool)
