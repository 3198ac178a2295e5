"""tiny_vit: the encoder contract, and the masked objective that trains it."""

import math

import pytest
import torch
from pydantic import ValidationError

from pae_datasets.config import DigitsConfig
from pae_datasets.digits import Digits
from pae_encoders.config import TinyViTConfig
from pae_encoders.tiny_vit import TinyViT, random_orders, take_tokens
from pae_framework.data.images import read_images
from pae_framework.data.pixels import to_float
from pae_framework.layers import patchify, unpatchify

SMALL = {"patch": 4, "width": 32, "depth": 2, "heads": 2}


def build(size: int = 16, **changes) -> TinyViT:
    torch.manual_seed(0)
    return TinyViT(TinyViTConfig(**{**SMALL, **changes}), size)


def images(count: int, size: int = 16) -> torch.Tensor:
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(1))


def test_the_config_knows_grid_and_width_before_anything_is_built():
    config = TinyViTConfig(**SMALL)

    assert (config.token_grid(32), config.token_width()) == (8, 32)
    with pytest.raises(ValueError, match=r"30 px.*4 px.*28 or 32"):
        config.token_grid(30)
    with pytest.raises(ValidationError, match=r"heads.*3.*width.*32"):
        TinyViTConfig(width=32, heads=3)


def test_attributes_of_the_contract():
    encoder = build()

    assert (encoder.grid, encoder.width, encoder.heads, encoder.patch) == (4, 32, 2, 4)
    # mean and std 0.5: [0, 1] becomes [-1, 1]
    assert encoder.normalize(torch.tensor([0.0, 1.0]).view(2, 1, 1, 1)).unique().tolist() == [-1, 1]


def test_tokens_end_in_a_norm_without_affine_and_pooled_is_their_mean():
    encoder = build()
    features = encoder(encoder.normalize(images(3)))

    assert features.tokens.shape == (3, 16, 32)
    assert features.tokens.mean(-1).abs().max() < 1e-5
    assert torch.allclose(features.tokens.square().mean(-1), torch.ones(3, 16), atol=1e-3)
    assert torch.allclose(features.pooled, features.tokens.mean(1))
    assert "norm.weight" not in encoder.state_dict()


def test_tokens_know_their_place():
    # A flat image has equal patches; only positions can tell its tokens apart.
    tokens = build()(torch.zeros(1, 3, 16, 16)).tokens[0]

    assert torch.pdist(tokens).min() > 0.1


def test_gradients_reach_pixels_through_the_feature_maps_of_each_block():
    encoder = build().requires_grad_(False)
    pixels = images(2).requires_grad_()

    maps = list(encoder.feature_maps(pixels))

    assert [tuple(x.shape) for x in maps] == [(2, 16, 32)] * 2
    for x in maps:
        (gradient,) = torch.autograd.grad(x.square().sum(), pixels, retain_graph=True)
        assert (gradient.abs().amax(dim=(1, 2, 3)) > 0).all()
    assert torch.allclose(encoder.norm(maps[-1]), encoder(pixels).tokens)


def test_weights_survive_a_state_dict():
    encoder, other = build(), TinyViT(TinyViTConfig(**SMALL), 16)
    other.load_state_dict(encoder.state_dict())

    assert torch.equal(encoder(images(2)).tokens, other(images(2)).tokens)


# --- the objective --------------------------------------------------------------------------------


@pytest.mark.parametrize(("ratio", "hidden"), [(0.5, 8), (0.75, 12), (0.6, 10), (0.99, 15)])
def test_the_encoder_sees_what_the_mask_leaves(ratio, hidden):
    # 16 tokens: 0.6 * 16 = 9.6 hides 10; at least one token stays visible.
    encoder = build(mask_ratio=ratio)
    objective = encoder.pretraining(10)
    seen = []
    encoder.blocks[0].register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))

    objective.loss(images(3), torch.tensor([1, 2, 3]), torch.Generator().manual_seed(0))

    assert [tuple(x.shape) for x in seen] == [(3, 16 - hidden, 32)]


def test_each_image_gets_a_permutation_of_its_own():
    orders = random_orders(64, 16, torch.Generator().manual_seed(0))

    assert torch.equal(orders.sort(dim=1).values, torch.arange(16).expand(64, 16))
    assert len(orders.unique(dim=0)) == 64
    # Every token is visible half the time: 64 draws of probability 1/2 have deviation 4.
    visible = orders[:, :8].flatten().bincount(minlength=16)
    assert (visible - 32).abs().max() <= 16


def test_take_gathers_tokens_by_place():
    tokens = torch.arange(12.0).view(1, 6, 2)

    assert take_tokens(tokens, torch.tensor([[5, 0]])).tolist() == [[[10, 11], [0, 1]]]


def test_predicting_the_mean_costs_one_and_guessing_costs_log_k():
    # A chequerboard of 0 and 1 becomes -1 and 1: mean 0, variance 1, in every patch.
    squares = (torch.arange(16)[:, None] + torch.arange(16)) % 2
    chequered = squares.float().expand(8, 3, 16, 16)
    objective = build(crop=1.0, class_weight=1.0).pretraining(10)
    for layer in (objective.decoder[-1], objective.classifier[-1]):
        torch.nn.init.zeros_(layer.weight)
        torch.nn.init.zeros_(layer.bias)

    def terms(pictures):
        return objective.loss(pictures, torch.arange(8), torch.Generator().manual_seed(0))

    assert terms(chequered)["masked"].item() == pytest.approx(1, abs=1e-5)
    assert terms(chequered)["class"].item() == pytest.approx(math.log(10), abs=1e-5)
    assert terms(chequered)["loss"].item() == pytest.approx(1 + math.log(10), abs=1e-5)


def test_the_class_weight_multiplies_the_class_term():
    terms = [
        build(class_weight=weight)
        .pretraining(10)
        .loss(images(8), torch.arange(8), torch.Generator().manual_seed(0))
        for weight in (1.0, 0.25)
    ]

    assert terms[1]["class"].item() == pytest.approx(terms[0]["class"].item() / 4, rel=1e-5)
    assert terms[1]["masked"].item() == pytest.approx(terms[0]["masked"].item(), rel=1e-5)


def test_what_is_predicted_depends_on_no_hidden_pixel():
    objective = build(crop=1.0).pretraining(10)
    predicted = []
    objective.decoder.register_forward_hook(lambda module, inputs, out: predicted.append(out))
    # Without crops the first numbers drawn are the orders; the last 8 tokens of each are hidden.
    hidden = random_orders(4, 16, torch.Generator().manual_seed(7))[:, 8:]
    patches = patchify(images(4), 4)
    changed = patches.scatter(1, hidden[..., None].expand(-1, -1, 48), 0.123)

    losses = [
        objective.loss(unpatchify(x, 4), torch.arange(4), torch.Generator().manual_seed(7))
        for x in (patches, changed)
    ]

    assert torch.equal(predicted[0], predicted[1])
    assert losses[0]["masked"] != losses[1]["masked"]


def test_the_loss_is_a_function_of_the_generators_state():
    objective = build().pretraining(10)

    def loss(seed: int) -> float:
        random = torch.Generator().manual_seed(seed)
        return objective.loss(images(4), torch.arange(4), random)["loss"].item()

    assert loss(0) == loss(0)
    assert loss(0) != loss(1)


def test_without_class_weight_labels_do_not_matter():
    objective = build(class_weight=0).pretraining(10)
    losses = [
        objective.loss(images(4), labels, torch.Generator().manual_seed(0))
        for labels in (torch.arange(4), torch.zeros(4, dtype=torch.int64))
    ]

    assert set(losses[0]) == {"loss", "masked"}
    assert losses[0]["loss"] == losses[1]["loss"]


def test_forty_steps_on_digits_lower_both_terms():
    pictures, labels = read_images(Digits(DigitsConfig(), 16))
    objective = build(width=64).pretraining(10)
    optimizer = torch.optim.AdamW(objective.parameters(), lr=3e-3)
    random = torch.Generator().manual_seed(0)
    terms = []
    for _ in range(40):
        chosen = torch.randint(len(pictures), (64,), generator=random)
        terms.append(objective.loss(to_float(pictures[chosen]), labels[chosen], random))
        optimizer.zero_grad()
        terms[-1]["loss"].backward()
        optimizer.step()

    for name in ("masked", "class"):
        first, last = (
            torch.stack([term[name] for term in part]).mean() for part in (terms[:5], terms[-5:])
        )
        assert last < 0.8 * first, name
