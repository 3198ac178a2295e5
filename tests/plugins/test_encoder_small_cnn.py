"""small_cnn: the encoder contract, and its training as a classifier."""

import pytest
import torch
from pydantic import ValidationError

from pae_datasets.config import DigitsConfig
from pae_datasets.digits import Digits
from pae_encoders.config import SmallCNNConfig
from pae_encoders.small_cnn import SmallCNN
from pae_framework.data.images import read_images
from pae_framework.data.pixels import to_float


def build(size: int = 16, **changes) -> SmallCNN:
    torch.manual_seed(0)
    return SmallCNN(SmallCNNConfig(**{"width": 16, "depth": 3, **changes}), size)


def images(count: int, size: int = 16) -> torch.Tensor:
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(1))


def test_each_stage_halves_the_side_and_doubles_the_channels():
    config = SmallCNNConfig(width=16, depth=3)

    # 32 -> 16 -> 8 -> 4; 16, 32, 64 channels
    assert (config.token_grid(32), config.token_width(), config.patch) == (4, 64, 8)
    with pytest.raises(ValueError, match=r"28 px.*8 px.*24 or 32"):
        config.token_grid(28)
    with pytest.raises(ValueError, match=r"4 px.*8 px.*8 px"):
        config.token_grid(4)
    with pytest.raises(ValidationError, match="multiple of 8"):
        SmallCNNConfig(width=12)


@pytest.mark.parametrize("size", [8, 24, 32])
def test_features_at_every_size_that_fits(size):
    encoder = build(size)
    features = encoder(images(2, size))

    assert features.tokens.shape == (2, (size // 8) ** 2, 64)
    assert features.pooled.shape == (2, 64)
    assert encoder.grid == size // 8


def test_tokens_are_normalized_and_pooled_features_are_plain_means_after_relu():
    encoder = build(32)
    features, last = encoder(images(2, 32)), [*encoder.feature_maps(images(2, 32))][-1]

    assert features.tokens.mean(-1).abs().max() < 1e-5
    assert torch.allclose(features.pooled, last.mean(1))
    assert (features.pooled >= 0).all()


def test_an_image_has_the_same_features_in_every_batch_and_mode():
    batch = images(5)
    training, evaluating = build().train(), build().eval()

    assert torch.allclose(training(batch).pooled[3], evaluating(batch[3:4]).pooled[0], atol=1e-5)


def test_gradients_reach_pixels_through_the_feature_maps_of_each_stage():
    encoder = build().requires_grad_(False)
    pixels = images(2).requires_grad_()

    maps = list(encoder.feature_maps(pixels))

    assert [tuple(x.shape) for x in maps] == [(2, 64, 16), (2, 16, 32), (2, 4, 64)]
    for x in maps:
        (gradient,) = torch.autograd.grad(x.square().sum(), pixels, retain_graph=True)
        assert (gradient.abs().amax(dim=(1, 2, 3)) > 0).all()


def test_weights_survive_a_state_dict():
    encoder, other = build(), SmallCNN(SmallCNNConfig(width=16, depth=3), 16)
    other.load_state_dict(encoder.state_dict())

    assert torch.equal(encoder(images(2)).pooled, other(images(2)).pooled)


def test_sixty_steps_on_digits_learn_most_of_them():
    pictures, labels = read_images(Digits(DigitsConfig(), 16))
    objective = build().pretraining(10)
    optimizer = torch.optim.AdamW(objective.parameters(), lr=3e-3)
    random = torch.Generator().manual_seed(0)
    for _ in range(60):
        chosen = torch.randint(len(pictures), (64,), generator=random)
        terms = objective.loss(to_float(pictures[chosen]), labels[chosen], random)
        optimizer.zero_grad()
        terms["loss"].backward()
        optimizer.step()

    test, answers = read_images(Digits(DigitsConfig(split="test"), 16))
    with torch.no_grad():
        encoder = objective.encoder
        guesses = objective.classifier(encoder(encoder.normalize(to_float(test))).pooled).argmax(1)
    assert (guesses == answers).float().mean() > 0.8
