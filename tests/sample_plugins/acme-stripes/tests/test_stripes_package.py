from acme_stripes.components import Gain, Pointwise, Stripes
from acme_stripes.config import GainConfig, PointwiseConfig, StripesConfig

from pae_framework.testing import (
    DataSourceContract,
    GeneratorContract,
    ModulatorContract,
    RegistrationContract,
)


class TestRegistration(RegistrationContract):
    plugin = "acme_stripes.plugin"


class TestStripes(DataSourceContract):
    component = Stripes
    config = StripesConfig(count=8)


class TestGain(ModulatorContract):
    component = Gain
    config = GainConfig()


class TestPointwise(GeneratorContract):
    component = Pointwise
    config = PointwiseConfig()


def test_stripes_of_a_period_of_two_pixels():
    across = Stripes(StripesConfig(), 4)[0]
    assert across.label == 0
    assert across.image[0, :, 0].tolist() == [0, 0, 255, 255]
    assert across.image[0, 0].tolist() == [0, 0, 0, 0]
