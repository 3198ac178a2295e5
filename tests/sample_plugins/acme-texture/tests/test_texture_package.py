import torch
from acme_texture.contrast import Contrast, local_contrast
from acme_texture.parameters import ContrastConfig, SharpnessConfig, TextureConfig
from acme_texture.sharpness import Sharpness
from acme_texture.texture_encoder import Texture

from pae_framework.testing import (
    EncoderContract,
    EvaluatorContract,
    RegistrationContract,
    RegularizerContract,
)


class TestRegistration(RegistrationContract):
    plugin = "acme_texture"


class TestTexture(EncoderContract):
    component = Texture
    config = TextureConfig()


class TestContrast(RegularizerContract):
    component = Contrast
    config = ContrastConfig()


class TestSharpness(EvaluatorContract):
    component = Sharpness
    config = SharpnessConfig()


def test_contrast_of_a_chess_board():
    i = torch.arange(4)
    board = ((i[:, None] + i) % 2).float().expand(1, 3, 4, 4)
    assert local_contrast(board).item() == 1
    assert local_contrast(board, reach=2).item() == 0
